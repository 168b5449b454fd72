"""What the models of a source give: their outputs, or what a softmax or a squeeze at the end makes of them."""

import ast

from .source import FUNCTIONS, Source
from .ways import ways

_KINDS = frozenset({"softmax", "log_softmax", "sigmoid", "squeezed"})


def ends(source: Source) -> dict[str, dict[str, int]]:
    r"""Return for each class with a `forward` what is done to what it returns in training, and in which line.

    Only what is done on every way through it counts. What stands under `if not self.training` is none of it.

    Example:
        >>> text = "class Net(nn.Module):\n def forward(self, x):\n  x = self.fc(x)\n  return x.softmax(1)"
        >>> ends(Source(ast.parse(text)))
        {'Net': {'softmax': 4}}
    """
    found = {}
    for node in [node for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef)]:
        methods = {part.name: part.body for part in node.body if isinstance(part, FUNCTIONS)}
        if "forward" in methods:
            found[node.name] = _of(source, [*methods.get("__init__", []), *methods["forward"]])
    return found


def _of(source: Source, statements: list[ast.stmt]) -> dict[str, int]:
    trained = [path for path in ways(source, statements, None) if path.choices.get("self.training", True)]
    common = frozenset.intersection(_KINDS, *(path.returned for path in trained))
    return {kind: trained[0].where[kind] for kind in sorted(common)}
