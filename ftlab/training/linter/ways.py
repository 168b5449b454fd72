"""All ways through a source: each branch is taken both ways, the same condition always the same way."""

import ast
import contextlib
from collections.abc import Iterator, Sequence

from .paths import LONGEST, Leave, Path
from .roles import last, made_here
from .source import Source

MANY = 64  # ways; more are not tried


def ways(source: Source, statements: Sequence[ast.stmt], function: ast.AST | None) -> Iterator[Path]:
    """Yield the ways through statements, or through a function that is called again and again."""
    todo: list[dict[str, bool]] = [{}]
    total = 0
    for choices in todo:
        path = Path(source, choices)
        _go(path, statements, function)
        yield path
        total += path.count
        if total > 4 * LONGEST:
            return
        decided = dict(choices)
        for key in [key for key in path.asked if key not in choices]:  # the other way at each new condition
            if len(todo) < MANY:
                todo.append(decided | {key: False})
            decided[key] = True


def _go(path: Path, statements: Sequence[ast.stmt], function: ast.AST | None) -> None:
    if function is None:
        with contextlib.suppress(Leave):
            path.run(statements)
        return
    path.inside = (function.name,)
    path.names = {argument.arg: argument.arg for argument in function.args.args}
    path.body(function)
    backward = [event for event in path.events if event.kind in ("backward", "step")]
    builds = any(isinstance(n, ast.Call) and made_here(last(n.func), "optimizer") for n in ast.walk(function))
    if backward and not builds and not any(event.loops for event in backward):
        path.body(function)
