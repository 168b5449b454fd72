"""The linter for training cells: reads the source, watches one run, and names each slip with its repair."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from .reading import read
from .report import LoopReport
from .seen import Seen, variables, watch
from .slips import KNOWN, Slip

__all__ = ["KNOWN", "LoopReport", "Slip", "check_loop"]


def check_loop(step_or_source: Callable | str, /, *, seconds: float = 10.0, **given: Any) -> LoopReport:
    """Say what is wrong with a training loop: each slip with its line, the reason and the repair.

    Nothing is changed: not the model, nor the optimizer, the data, or the random state. A source is only read. A
    function is read, and run once: what it can reach is put back afterwards.

    The trap that this is for: a loop with a slip runs, and the loss even falls, only less than it could. What the
    run shows is believed before what the source looks like; each slip says on which of the two it rests.

    What a function does outside of Python, such as writing a file, is not put back; what it prints is not shown.

    A function is called with what is given by name. What is not given is made, by the names of the parameters:
    a small model for `model`, a batch for `images` and `targets`, a loader for `train_loader`, and so on. A
    function that makes one step is called five times, so that what one step leaves to the next can be seen.

    Args:
        step_or_source: A function that trains, for one step or for many, or the text of a cell.
        seconds: After this time the run is stopped; what was seen until then counts.
        **given: Values for parameters of the function: `model=model, loader=loader`.

    Raises:
        TypeError: It is neither a function nor text, or a name that is given is no parameter.

    Example:
        >>> import torch.nn.functional as F
        >>> def step(model, images, targets, optimizer):
        ...     loss = F.cross_entropy(model(images), targets)
        ...     loss.backward()
        ...     optimizer.step()
        >>> report = check_loop(step)
        >>> report.kinds, report.slips[0].line
        (['no zero_grad'], 3)
    """
    if isinstance(step_or_source, str):
        return _report(_plain(step_or_source), None, Seen(note="the text was only read, not run"))
    if isinstance(step_or_source, partial):
        bound = inspect.signature(step_or_source.func).bind_partial(*step_or_source.args)
        given = {**bound.arguments, **step_or_source.keywords, **given}
        return check_loop(step_or_source.func, seconds=seconds, **given)
    if not callable(step_or_source):
        raise TypeError(
            f"check_loop takes a function that trains, or the text of a cell; {step_or_source!r} is neither"
        )
    return _look(step_or_source, given, seconds)


def _plain(cell: str) -> str:
    """Return the text of a cell without what only a notebook understands: `%time`, `!pip`."""
    return re.sub(r"^( *)([%!].*)$", r"\1pass  # \2", textwrap.dedent(cell), flags=re.MULTILINE)


def _look(function: Callable, given: dict[str, Any], seconds: float) -> LoopReport:
    plain = inspect.unwrap(function)
    try:
        lines, first = inspect.getsourcelines(plain)
        source = textwrap.dedent("".join(lines))
    except (OSError, TypeError):
        source, first = "", getattr(getattr(plain, "__code__", None), "co_firstlineno", 1)
    seen = watch(function, given, first_line=max(first, 1), seconds=seconds)
    return _report(source, variables(plain) | given, seen)


def _report(source: str, objects: dict[str, Any] | None, seen: Seen) -> LoopReport:
    found = [] if not source.strip() else read(source, objects)
    if objects is not None:  # a lambda, or a decorated line, may be no whole statement; it was run all the same
        found = [one for one in found if one.kind != "syntax error"]
    found = [one for one in found if one.kind not in seen.refuted]
    shown = [replace(one, line=_statement(source, one.line)) for one in seen.slips]
    return LoopReport(_merged(found, shown), source, seen.note, seen.steps)


def _merged(found: list[Slip], shown: list[Slip]) -> list[Slip]:
    """Return what was read and what was seen, each slip once; what was seen says more."""
    slips = {(one.kind, one.line): one for one in found}
    for one in shown:
        same = [key for key in slips if key[0] == one.kind]
        key = (one.kind, one.line)
        if key not in slips and len(same) == 1 and slips[same[0]].evidence == "read":
            key = same[0]
        if key in slips and slips[key].evidence == "read":
            slips[key] = replace(slips[key], evidence=f"read; {one.evidence}")
        elif key not in slips and not (same and one.line is None):
            slips[key] = one
    return list(slips.values())


def _statement(source: str, line: int | None) -> int | None:
    """Return the first line of the innermost statement that a line belongs to."""
    try:
        nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt)]
    except SyntaxError:
        return line
    around = [node.lineno for node in nodes if line and node.lineno <= line <= (node.end_lineno or 0)]
    return max(around, default=line)
