"""Run a learner's training function once, watched and put back, and say what the run showed."""

import inspect
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from ftlab import runner
from ftlab.freezing.snapshot import Snapshot, trainers

from . import arguments
from .order import order_slips
from .slips import Slip, slip
from .watching import Watch

TIMES = 5  # so often a function that makes one step is called


@dataclass
class Seen:
    """What a run showed.

    Attributes:
        slips: What is wrong.
        refuted: What is not wrong, whatever the source looks like.
        note: What was run.
        steps: How many optimizer steps there were.
    """

    slips: list[Slip] = field(default_factory=list)
    refuted: set[str] = field(default_factory=set)
    note: str = ""
    steps: int = 0


def watch(function: Callable, given: dict[str, Any], *, first_line: int, seconds: float) -> Seen:
    """Run `function` and return what was seen; everything it can reach is put back afterwards.

    Args:
        function: A function or a bound method.
        given: Values for its parameters.
        first_line: The line of its file that is line 1 of its source.
        seconds: Time limit.
    """
    plain = inspect.unwrap(function)
    plain = getattr(plain, "__func__", plain)
    if reason := _refusal(plain, given):
        return Seen(note=f"it was not run: {reason}")
    found = Watch(plain)
    with runner.no_trace(0):
        try:
            values, own = arguments.bind(function, given)
        except arguments.UnknownParameterError as unknown:
            return Seen(note=f"it was not run: {unknown}")
    things = [*values.values(), *_reached(function, plain)]
    before = _remember(things, plain)

    def work() -> None:
        try:
            with found, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what they warn of is in the report
                function(**values)
                if found.count("step") <= 1:  # it makes one step, or none
                    for _ in range(TIMES - 1):
                        function(**values)
        except runner.Stopped as stop:
            found.stopped_in = _line_in(found, stop)
            raise

    try:
        result = runner.run(work, seconds=seconds)
    finally:
        found.changed = found.any_moved()
        before()
    return _conclude(found, result, first_line, own, seconds)


def _refusal(function: Any, given: dict[str, Any]) -> str:
    if not isinstance(function, types.FunctionType):
        return "it is no function written in Python; hand over a function, or a method"
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return "it is async; a loop that is awaited cannot be watched"
    if inspect.isgeneratorfunction(function):
        return "it is a generator: nothing happens until somebody asks for its values"
    for name, value in given.items():
        if hasattr(value, "__next__"):
            return f"`{name}` is an iterator, which one look would use up; hand over the loader itself"
    return ""


def _reached(function: Callable, plain: types.FunctionType) -> Iterator[Any]:
    """Yield what a function can reach besides its arguments: globals, free variables, its object."""
    owner = getattr(function, "__self__", None)
    if owner is not None:
        yield owner if isinstance(owner, nn.Module) else vars(owner) if hasattr(owner, "__dict__") else owner
    yield from variables(plain).values()


def variables(plain: Callable) -> dict[str, Any]:
    """Return the globals and free variables that a function uses, by name; none if it cannot be asked.

    Example:
        >>> limit = 3
        >>> variables(lambda: limit + 1)
        {'limit': 3}
    """
    try:
        known = inspect.getclosurevars(plain)
    except (TypeError, ValueError):  # no Python function; or a free variable that has no value yet
        return {}
    return {**known.globals, **known.nonlocals}


def _remember(things: list[Any], plain: types.FunctionType) -> Callable[[], None]:
    """Remember all there is to remember; return how to put it back."""
    models = [thing for thing in things if isinstance(thing, nn.Module)]
    for thing in things:
        if isinstance(thing, dict):
            models += [value for value in thing.values() if isinstance(value, nn.Module)]
    helpers = [helper for model in models for kind in trainers(model) for helper in kind]
    data = [thing.dataset for thing in things if isinstance(thing, DataLoader)]
    tensors = [tensor for one in data for tensor in getattr(one, "tensors", ())]
    snapshot = Snapshot(*things, *helpers, *tensors)
    names = {name: plain.__globals__[name] for name in plain.__code__.co_names if name in plain.__globals__}
    missing = [name for name in plain.__code__.co_names if name not in plain.__globals__]
    cells = [(cell, cell.cell_contents) for cell in plain.__closure__ or () if _is_full(cell)]

    def put_back() -> None:
        snapshot.restore()
        plain.__globals__.update(names)
        for name in missing:
            plain.__globals__.pop(name, None)
        for cell, content in cells:
            cell.cell_contents = content

    return put_back


def _is_full(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # empty
        return False


def _line_in(found: Watch, error: BaseException | None) -> int | None:
    """Return the last line of the learner's function in a traceback."""
    frames = list(traceback.walk_tb(error.__traceback__)) if error else []
    return next((line for frame, line in reversed(frames) if frame.f_code in found.codes), None)


def _conclude(found: Watch, result: runner.Run, first_line: int, own: bool, seconds: float) -> Seen:
    seen = Seen(steps=len(found.moved))
    seen.slips = list(_slips(found))
    seen.refuted = set(_refuted(found, seen.slips))
    seen.note = f"one run was watched: {_count(found)}"
    if result.stopped:
        _stopped(seen, found, result, own, seconds)
    elif result.error is not None:
        _raised(seen, found, result.error, own, first_line)
    seen.slips = [replace(one, line=one.line and one.line - first_line + 1) for one in dict.fromkeys(seen.slips)]
    return seen


def _count(found: Watch) -> str:
    words = {
        "forward": "forward passes",
        "backward": "backward passes",
        "step": "steps",
        "schedule": "schedule steps",
    }
    counts = {word: found.count(kind) for kind, word in words.items()}
    return (
        ", ".join(f"{count} {word if count != 1 else _one(word)}" for word, count in counts.items() if count)
        or "nothing of a training happened"
    )


def _one(words: str) -> str:
    return words.removesuffix("es") if words.endswith("sses") else words.removesuffix("s")


def _stopped(seen: Seen, found: Watch, result: runner.Run, own: bool, seconds: float) -> None:
    what = f"it was stopped after {seconds:g} seconds" if result.stopped == "time" else "its memory was used up"
    seen.note = f"{seen.note}; {what}"
    if own or not seen.steps:
        given = "it does not end by itself"
        seen.slips.append(slip("does not end", found.stopped_in, f"seen: {what}", given=given))
    if result.alive:
        seen.note += "; it does not react, and goes on until the kernel is restarted"


def _raised(seen: Seen, found: Watch, error: BaseException, own: bool, first_line: int) -> None:
    """Name the slip behind an error, or pass the error on."""
    seen.slips = [one for one in seen.slips if one.kind not in ("no step", "no backward")]  # they would have come
    text, line = f"{type(error).__name__}: {error}".partition("\n")[0], _line_in(found, error)
    says = f"seen: it raised `{text}`"
    last = next((event for event in reversed(found.events) if event.kind == "forward"), None)
    if "does not require grad" in text and last is not None:
        kind = "graph cut by detach" if last.grad else "no_grad around the forward"
        seen.slips.append(slip(kind, line if last.grad else last.line, says))
    elif "has no attribute 'backward'" in text:
        seen.slips.append(slip("number instead of loss", line, says))
    elif "_scale is None" in text:
        seen.slips.append(slip("loss not scaled", found.line_of_last("backward"), says))
    elif seen.slips or (own and not _is_theirs(error)):
        seen.note += f"; it ended in line {line and line - first_line + 1} with {text}"
    else:
        seen.slips.append(slip("raises", line, says, given=text))


def _is_theirs(error: BaseException) -> bool:
    """Say whether an error cannot come from the small model and the data that are ours."""
    return isinstance(error, NameError) or "second time" in str(error)


def _slips(found: Watch) -> Iterator[Slip]:
    """Yield each slip once; what was noticed in the tensors says more than the order of the lines."""
    noticed = [slip(fact.kind, fact.line, f"seen: {fact.says}") for fact in found.facts]
    order = list(
        order_slips([replace(event, name="") for event in found.events], "seen: the run did it in this order")
    )
    if found.changed:  # somebody stepped, by hand
        order = [one for one in order if one.kind != "no step"]
    yield from {(one.kind, one.line): one for one in [*order, *noticed, *_owners(found)]}.values()


def _owners(found: Watch) -> Iterator[Slip]:
    """What was stepped, against what got gradients and what was clipped."""
    step = next((event.line for event in found.events if event.kind == "step"), None)
    graded, owned = set(found.graded), set(found.owned)
    strangers = owned - set(found.used)
    missing = {key for key in graded - owned if found.graded[key].requires_grad}
    if missing and strangers and owned & set(found.used):
        says = (
            f"seen: {len(missing)} tensors with gradients are in no optimizer, which has {len(strangers)} others"
        )
        yield slip("optimizer before the head", step, says)
    elif graded and owned and not graded & owned:
        says = f"seen: {len(graded)} tensors got gradients, and the optimizer has none of them"
        yield slip("optimizer of other parameters", step, says)
    elif late := missing & found.frozen:
        says = f"seen: {len(late)} tensors were frozen at first, then got gradients, and are in no optimizer"
        yield slip("unfrozen without an optimizer", step, says)
    for line, clipped in found.clipped:
        if clipped and owned and clipped - owned:
            says = f"seen: {len(clipped - owned)} of {len(clipped)} clipped gradients belong to no optimizer"
            yield slip("clip of other parameters", line, says)
    if found.moved and not any(found.moved) and graded & owned:
        yield slip(
            "step never moves anything", step, f"seen: after {len(found.moved)} steps no parameter has moved"
        )
    yield from _idle(found)


def _idle(found: Watch) -> Iterator[Slip]:
    """An optimizer beside others whose parameters never had a gradient."""
    for line, ungraded in found.idle.values():
        if len(ungraded) > 1 and all(ungraded) and any(found.moved):
            says = f"seen: in {len(ungraded)} steps of this optimizer none of its parameters had a gradient"
            yield slip("step never moves anything", line, says)


def _refuted(found: Watch, slips: list[Slip]) -> Iterator[str]:
    """Yield the kinds that the run shows not to be there."""
    kinds = {one.kind for one in slips}
    if len(found.moved) >= 2 and "no zero_grad" not in kinds:
        yield "no zero_grad"
    if any(found.moved):
        yield from {"no step", "no backward", "optimizer of other parameters", "number instead of loss"} - kinds
