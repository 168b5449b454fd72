"""Read the source of a training loop, and say what is wrong with it."""

import ast
from collections import Counter
from collections.abc import Iterator
from typing import Any

from .ends import ends
from .events import Event
from .order import order_slips
from .paths import Path
from .roles import last
from .slips import Slip, slip
from .source import Source
from .unused import is_read, never_stepped
from .ways import ways


def read(source: str, objects: dict[str, Any] | None = None) -> list[Slip]:
    """Return the slips that can be read in a source; nothing of it is run.

    A slip is reported if it is there on every way through its line: where two branches fit together in only one
    of two ways, the other one proves nothing.

    Args:
        source: Python.
        objects: What some of its names are known to be.

    Example:
        >>> source = '''
        ... for images, targets in loader:
        ...     loss = F.cross_entropy(model(images), targets)
        ...     loss.backward()
        ...     optimizer.step()
        ... '''
        >>> [(found.line, found.kind) for found in read(source)]
        [(4, 'no zero_grad')]
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        return [slip("syntax error", getattr(error, "lineno", None), given=getattr(error, "msg", str(error)))]
    whole = Source(tree, objects)
    whole.ends = ends(whole)
    found: list[Slip] = []
    for statements, function in whole.units():
        found += _on_every_way(list(ways(whole, statements, function)))
    found += never_stepped(tree, whole.roles)
    return sorted(dict.fromkeys(found), key=lambda one: (one.line or 0, one.kind))


def _on_every_way(paths: list[Path]) -> Iterator[Slip]:
    """Yield the slips that are found on every way through their line; where steps matter, on those with one."""
    count: Counter[Slip] = Counter()
    for path in paths:
        count.update(set(_slips(path)))
    steps = {id(path) for path in paths if any(event.kind == "step" for event in path.events)}
    for found, times in count.items():
        ways = [path for path in paths if found.line is None or found.line in path.lines]
        if found.kind in _WITH_STEP:
            ways = [path for path in ways if id(path) in steps] or ways
        if times >= len(ways):
            yield found


_WITH_STEP = {  # these say nothing about a way on which nothing is trained
    "scheduler before optimizer",
    "scheduler per batch",
    "scheduler per epoch",
    "eval left on",
    "accumulation not divided",
    "total keeps graphs",
    "last window lost",
    "validation in train mode",
    "no zero_grad",
    "zero_grad between backward and step",
    "loss not scaled",
}


def _slips(path: Path) -> Iterator[Slip]:
    yield from path.slips
    yield from path.sums.values()
    yield from order_slips(path.events)
    yield from _kept(path)
    yield from _emptied(path)
    yield from _accumulation(path)
    yield from _rates(path)
    yield from _owners(path)


def _emptied(path: Path) -> Iterator[Slip]:
    """`empty_cache` for each batch; once per epoch it does no harm."""
    batches = {event.loops for event in path.events if event.kind in ("forward", "backward") and event.loops}
    for event in path.events:
        if event.kind == "empty_cache" and event.loops in batches:
            yield slip("empty_cache in the loop", event.line)


def _kept(path: Path) -> Iterator[Slip]:
    backwards = {event.line for event in path.events if event.kind == "backward"}
    for line, loss in path.kept.items():
        if len(backwards) == 1:
            yield slip("retain_graph", line, loss=loss)


def _accumulation(path: Path) -> Iterator[Slip]:
    """Steps that are rarer than backwards: behind a condition, or after a loop of their own."""
    steps = [event for event in path.events if event.kind == "step"]
    for step in steps:
        guard, line = path.windows.get(step.line, (None, 0))
        together = any(guard in around for around in path.rare.values())  # a step that is rare as a whole
        size = _window(guard) if guard is not None and step.loops and not together else ""
        yield from _undivided(path, step, size)
        later = [one for one in steps if len(one.loops) < len(step.loops)]
        if size and not later and isinstance(guard, ast.Compare):
            yield slip("last window lost", line, steps=size)


def _undivided(path: Path, step: Event, size: str) -> Iterator[Slip]:
    """The backwards that add up for a step, and are not divided by their number."""
    cleared = {event.loops for event in path.events if event.kind == "zero_grad"}
    for backward in path.events:
        if backward.kind != "backward" or backward.line in path.divided:
            continue
        inner = backward.loops[len(step.loops) :]
        if size and not inner and backward.loops == step.loops:
            yield slip("accumulation not divided", backward.line, steps=size, loss=backward.name)
        if len(inner) == 1 and backward.loops[: len(step.loops)] == step.loops and backward.loops not in cleared:
            over = path.over.get(inner[0])
            many = (
                ast.unparse(over.args[-1] if isinstance(over, ast.Call) and over.args else over)
                if over
                else "the"
            )
            yield slip("accumulation not divided", backward.line, steps=many, loss=backward.name)


def _window(guard: ast.expr) -> str:
    """Return by what a condition such as `(i + 1) % 4 == 0` divides; "" if it is no such condition."""
    for part in ast.walk(guard):
        if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Mod):
            return ast.unparse(part.right)
    return ""


_PER_EPOCH = {"StepLR", "MultiStepLR", "ReduceLROnPlateau"}
_PER_BATCH = {"OneCycleLR", "CyclicLR"}


def _rates(path: Path) -> Iterator[Slip]:
    """Schedules that are stepped more, or less, often than they are made for."""
    steps = [event for event in path.events if event.kind == "step"]
    for event in path.events:
        made = path.roles.losses.get(event.of, "") if event.kind == "schedule" else ""
        text = path.schedulers.get(event.of, made)
        inner = max((len(step.loops) for step in steps), default=0)
        if not steps or not made:
            continue
        loops = 1 if any("epoch" in name for name in path.inside[:1]) else 2  # those of an epoch's batches
        if inner >= loops and len(event.loops) == inner and _is_for_epochs(made, text):
            yield slip("scheduler per batch", event.line, scheduler=event.of, given=text)
        if inner > len(event.loops) >= 1 and _is_for_batches(made, text):
            yield slip("scheduler per epoch", event.line, scheduler=event.of, given=text)


def _is_for_epochs(made: str, text: str) -> bool:
    return (
        not _counts_steps(text)
        and (made in _PER_EPOCH or ("epoch" in text.lower() and "*" not in text))
        and (made not in _PER_BATCH)
    )


def _counts_steps(text: str) -> bool:
    """Say whether a schedule is made for steps, as far as its text tells: by a length, a name, or a large number.

    Example:
        >>> _counts_steps("StepLR(optimizer, 10 * steps_per_epoch)"), _counts_steps("StepLR(optimizer, 10)")
        (True, False)
    """
    made = ast.parse(text, mode="eval").body
    given = [*made.args[1:], *(key.value for key in made.keywords)] if isinstance(made, ast.Call) else []
    parts = [part for value in given for part in ast.walk(value)]
    words = [last(part).lower() for part in parts]
    large = any(isinstance(part, ast.Constant) and isinstance(part.value, int | float) and part.value >= 1000
                for part in parts)  # fmt: skip
    return large or any(word == "len" or any(sign in word for sign in _OF_STEPS) for word in words)


_OF_STEPS = ("step", "iter", "batch")


def _is_for_batches(made: str, text: str) -> bool:
    return made in _PER_BATCH or "len(" in text


def _owners(path: Path) -> Iterator[Slip]:
    """The optimizer of a model that is made and never called."""
    names = [node for node in ast.walk(path.source.tree) if isinstance(node, ast.Name)]
    used = Counter(node.id for node in names if is_read(node))
    forwards = [event.of for event in path.events if event.kind == "forward"]
    for event in path.events:
        if event.kind == "optimizer" and _is_made(path, event.of) and used[event.of] == 1 and forwards:
            yield slip("optimizer of other parameters", event.line, optimizer=event.name, model=forwards[0])


def _is_made(path: Path, name: str | None) -> bool:
    """Say whether a name was given a new module here: the call of a class."""
    value = path.meaning.get(name or "")
    return isinstance(value, ast.Call) and last(value.func)[:1].isupper()
