"""The source of an exercise: its signature and docstring, its body, and whether two functions do the same."""

import ast
import inspect
import textwrap
import types
from collections.abc import Callable


def head_and_body(function: Callable) -> tuple[str, str]:
    """Return the source of `function` in two parts: the signature with the docstring, and the rest."""
    source = textwrap.dedent(inspect.getsource(function))
    lines, node = source.splitlines(), ast.parse(source).body[0]
    end = node.body[0].end_lineno if ast.get_docstring(node) else _end_of_signature(node, lines)
    return "\n".join(lines[node.lineno - 1 : end]), "\n".join(lines[end:])


def _end_of_signature(node: ast.FunctionDef, lines: list[str]) -> int:
    last = max([node.lineno, *(part.end_lineno for part in (node.returns, *node.args.args) if part)])
    while not lines[last - 1].partition("#")[0].rstrip().endswith(":"):
        last += 1
    return last


def same_code(function: Callable, source: str) -> bool:
    """Say whether `function` is what `source` defines, whatever its comments and blank lines.

    The compiled code alone does not tell: Python 3.11 compiles `torch.cat(...)` differently if `import torch`
    stands in the same cell. The text alone does not either: a function need not have one.
    """
    if not isinstance(function, types.FunctionType):
        return False
    return _same_text(function, source) or _same_compiled(function, source)


def _same_text(function: Callable, source: str) -> bool:
    try:
        own = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, SyntaxError, IndexError):
        return False
    return isinstance(own, ast.FunctionDef) and ast.dump(own) == ast.dump(ast.parse(source).body[0])


def _same_compiled(function: types.FunctionType, source: str) -> bool:
    name = ast.parse(source).body[0].name
    constants = compile(source, "<starter>", "exec").co_consts  # annotations have a code of their own there
    codes = [c for c in constants if isinstance(c, types.CodeType) and c.co_name == name]
    return _essence(function.__code__) == _essence(codes[0])


def _essence(code: types.CodeType) -> tuple:
    """Return what a function does, without the places that its lines come from."""
    constants = [_essence(c) if isinstance(c, types.CodeType) else (type(c), c) for c in code.co_consts]
    return code.co_code, code.co_names, code.co_varnames, code.co_freevars, tuple(constants)
