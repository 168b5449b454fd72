"""A source, and what is known of it before anybody goes through it: its functions, and which of them matter."""

import ast
from collections.abc import Iterator
from typing import Any

from .calls import KNOWN
from .roles import Roles, generates_parameters, last

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITIONS = (*FUNCTIONS, ast.ClassDef)


class Source:
    r"""Hold a tree with its functions.

    Attributes:
        tree: The source.
        roles: What its names stand for.
        functions: By name; of two with one name the last.
        methods: The names of those that are methods.
        alive: The names of those in which something of a training happens.
        ends: From the name of a model's class to what is done at the end of its forward, and in which line.
        squeezed: From a line to what is squeezed there with no dimension named; filled on the way through.
        generators: From `self.name` to the generator of parameters that an object keeps there, and how often the
            method that makes it has used it already.

    Args:
        tree: The source.
        objects: What some of its names are known to be.

    Example:
        >>> source = Source(ast.parse("def f(): optimizer.step()\ndef g(): f()\ndef h(): print()"))
        >>> sorted(source.alive)
        ['f', 'g']
    """

    def __init__(self, tree: ast.Module, objects: dict[str, Any] | None = None) -> None:
        self.tree, self.roles = tree, Roles(tree, objects)
        self.functions = {node.name: node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)}
        classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        self.methods = {node.name for one in classes for node in one.body if isinstance(node, FUNCTIONS)}
        self.alive = self._alive()
        self.squeezed: dict[int, str] = {}
        self.ends: dict[str, dict[str, int]] = {}
        self.generators = {name: found for one in classes for name, found in _kept_generators(one)}

    def _alive(self) -> set[str]:
        used = {node.name: _called(node) for node in ast.walk(self.tree) if isinstance(node, FUNCTIONS)}
        alive = {name for name, words in used.items() if self._trains(words)}
        while more := {name for name, words in used.items() if name not in alive and words & alive}:
            alive |= more
        return alive

    def _trains(self, words: set[str]) -> bool:
        return any(word in KNOWN or self.roles.of(word) in ("model", "loss") for word in words)

    def matters(self, node: ast.AST) -> bool:
        """Say whether something of a training happens in there."""
        words = _called(node)
        return bool(words & (self.alive | _TELLING)) or self._trains(words)

    def units(self) -> Iterator[tuple[list[ast.stmt], Any]]:
        """Yield what runs by itself: the source, and each function that nothing in the source calls."""
        yield [node for node in self.tree.body if not isinstance(node, DEFINITIONS)], None
        calls = [node.func for node in ast.walk(self.tree) if isinstance(node, ast.Call)]
        used = {node.id for node in calls if isinstance(node, ast.Name)} - self.methods
        used |= self.methods & {
            node.attr
            for node in calls
            if isinstance(node, ast.Attribute) and self.roles.of(ast.unparse(node.value)) != "model"
        }  # `model.train()` is no call of a function, or of a method, that is called `train` here
        mine = self.alive - _closures(self.tree)  # a closure runs in the step that it is handed to
        outer = [node for node in _outer(self.tree) if node.name in mine]
        outer += [node for node in _returned(outer) if node.name in self.alive - used]
        for function in [node for node in outer if node.name not in used] or outer:
            yield function.body, function


_TELLING = {"softmax", "log_softmax", "sigmoid", "squeeze"}  # one way with it, and another without


def _kept_generators(class_: ast.ClassDef) -> Iterator[tuple[str, tuple[str, int]]]:
    """Yield `self.params = model.parameters()` of a class, where nothing else is ever put there."""
    sets = [node for node in ast.walk(class_) if isinstance(node, ast.Assign)]
    targets = [ast.unparse(target) for node in sets for target in node.targets]
    for method in (node for node in class_.body if isinstance(node, FUNCTIONS)):
        given = [part for node in ast.walk(method) if isinstance(node, ast.Call) for part in node.args]
        for node in ast.walk(method):
            name = ast.unparse(node.targets[0]) if isinstance(node, ast.Assign) else ""
            if name.startswith("self.") and targets.count(name) == 1 and generates_parameters(node.value):
                yield name, (ast.unparse(node.value), sum(ast.unparse(part) == name for part in given))


def _called(node: ast.AST) -> set[str]:
    """Return all that is called in there, with its last word, and what is handed over."""
    calls = [part for part in ast.walk(node) if isinstance(part, ast.Call)]
    words = {last(call.func) for call in calls} | {ast.unparse(call.func) for call in calls}
    return (
        words | {arg.id for call in calls for arg in call.args if isinstance(arg, ast.Name)} if calls else words
    )


def _closures(tree: ast.AST) -> set[str]:
    """Return the names of the functions that are handed to a step, which calls them."""
    steps = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and last(node.func) == "step"]
    given = [part for node in steps for part in [*node.args, *(key.value for key in node.keywords)]]
    return {last(part) for part in given if isinstance(part, ast.Name | ast.Attribute)}


def _returned(functions: list[Any]) -> Iterator[Any]:
    """Yield the functions that other ones make and return; they are called by another name."""
    for function in functions:
        inside = {node.name: node for node in function.body if isinstance(node, FUNCTIONS)}
        for node in function.body:
            if isinstance(node, ast.Return) and isinstance(node.value, ast.Name) and node.value.id in inside:
                yield inside[node.value.id]


def _outer(tree: ast.AST) -> Iterator[Any]:
    """Yield the functions and methods that stand in no other function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, FUNCTIONS):
            yield node
        else:
            yield from _outer(node)
