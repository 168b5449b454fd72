"""What is made for a training loop and never used: schedulers, and optimizers that are only cleared."""

import ast
from collections import Counter
from collections.abc import Iterator

from .roles import Roles, last, made_here
from .slips import Slip, slip
from .source import FUNCTIONS

_NO_STEP = ("zero_grad", "param_groups", "state_dict", "state")  # what is asked of an optimizer besides a step


def never_stepped(tree: ast.Module, roles: Roles) -> Iterator[Slip]:
    r"""Yield the schedulers that are made, or taken, and never used, and the optimizers that are only cleared.

    Example:
        >>> tree = ast.parse("opt = SGD(p)\nother = SGD(q)\nopt.zero_grad()\nother.step()")
        >>> [(found.kind, found.line) for found in never_stepped(tree, Roles(tree))]
        [('optimizer never stepped', 1)]
    """
    if not any(isinstance(node, ast.Attribute) and node.attr == "step" for node in ast.walk(tree)):
        return
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name | ast.Attribute) and is_read(node)]
    used = Counter(map(_key, names))
    besides = Counter(_key(n.value) for n in names if isinstance(n, ast.Attribute) and n.attr in _NO_STEP)
    local = _local(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and roles.of(node.arg) == "scheduler" and not used[node.arg]:
            yield slip("scheduler never stepped", node.lineno, scheduler=node.arg)
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
            continue
        made, name, key = last(node.value.func), ast.unparse(node.targets[0]), _key(node.targets[0])
        if made_here(made, "scheduler") and not used[key]:
            yield slip("scheduler never stepped", node.lineno, scheduler=name)
        ends = used[key] or id(node) in local  # what is not used here may be, in another cell or class
        if made_here(made, "optimizer") and ends and used[key] == besides[key]:
            yield slip("optimizer never stepped", node.lineno, optimizer=name)


def _key(node: ast.expr) -> str:
    """Return what a name is counted as; an attribute by its last word, since objects have many names."""
    if isinstance(node, ast.Attribute) and last(node.value) != "optim":  # torch.optim.lr_scheduler is a module
        return f".{node.attr}"
    return ast.unparse(node)


def _local(tree: ast.Module) -> set[int]:
    """Return the assignments to names inside of functions; nobody else can use these."""
    functions = [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]
    inside = [node for one in functions for node in ast.walk(one) if isinstance(node, ast.Assign)]
    return {id(node) for node in inside if isinstance(node.targets[0], ast.Name)}


def is_read(node: ast.Name | ast.Attribute) -> bool:
    """Say whether a name is read here, not set."""
    return isinstance(node.ctx, ast.Load)
