"""What is known of a value: "output", "loss", "softmax", "no grad", ...; and what is left of it on its way."""

import ast
from collections.abc import Sequence

Tags = frozenset[str]
NOTHING: Tags = frozenset()
LIVE = frozenset({"output", "loss"})
CUT = frozenset({"number", "detached", "no grad"})  # what has no way back to the parameters


def together(parts: Sequence[Tags]) -> Tags:
    """Return what is known of several values at once: a softmax if all have it, a cut if all losses do.

    Example:
        >>> loss, output, other = frozenset({"loss", "number"}), frozenset({"output", "number"}), NOTHING
        >>> sorted(together([loss, output, other])), sorted(together([loss, frozenset({"output"})]))
        (['loss', 'number', 'output'], ['loss', 'output'])
    """
    live = [tags for tags in parts if tags & LIVE]
    cut = frozenset.intersection(CUT, *live) if live else NOTHING
    common = frozenset.intersection(*parts) if parts else NOTHING
    return (NOTHING.union(*live) & LIVE) | cut | common


_SUMS = {"sum", "min", "max", "round", "abs", "sorted", "list", "tuple"}  # Python's own: numbers stay numbers
_PRODUCTS = {"matmul", "mm", "bmm", "mul", "multiply", "dot"}
_RESHAPES = {"view", "reshape", "flatten", "unsqueeze"}  # these may give the batch back
_COUNTS = {"len", "int", "bool", "str", "range", "id", "type", "isinstance", "print"}


def after_method(word: str, inner: Tags, given: list[Tags]) -> Tags:
    """Return what is known after a method that nobody knows."""
    if word in _PRODUCTS:
        inner = together([inner, *given])
    return inner - ({"number", "squeezed"} if word in _RESHAPES else {"number"}) | _through(given)


def after_function(node: ast.Call, word: str, given: list[Tags]) -> Tags:
    """Return what is known after a function that nobody knows; those of torch keep what has no graph."""
    if isinstance(node.func, ast.Name) and word in _SUMS | _COUNTS:
        return NOTHING.union(*given) if word in _SUMS else NOTHING
    parts = [*node.args, *(key.value for key in node.keywords)]
    fed = [tags for part, tags in zip(parts, given, strict=True) if not isinstance(part, ast.Constant)]
    if isinstance(node.func, ast.Attribute) and fed and all(tags & CUT for tags in fed):
        return NOTHING.union(*given)
    return _through(fed)


def _through(given: list[Tags]) -> Tags:
    """A function may be a module with parameters of its own, behind which there is a graph again."""
    return together(given) - CUT - {"squeezed"}
