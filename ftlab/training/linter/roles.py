"""What a name in a training loop stands for: by how it is made, by what it is, or by what it is called."""

import ast
import inspect
from typing import Any

import torch
from torch import nn
from torch.amp import GradScaler
from torch.nn.modules.loss import _Loss as Loss
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

_CLASSES = {
    "optimizer": {name for name, made in vars(torch.optim).items() if inspect.isclass(made)},
    "scheduler": {name for name in vars(lr_scheduler) if name[0].isupper()},
    "scaler": {"GradScaler"},
    "loss": {name for name in dir(nn) if name.endswith("Loss")},
    "model": {name for name in dir(nn) if name[0].isupper() and not name.endswith("Loss")} - {"Parameter"},
}
_TYPES = {
    "optimizer": Optimizer,
    "scheduler": (LRScheduler, lr_scheduler.ReduceLROnPlateau),
    "scaler": GradScaler,
    "loss": Loss,
    "model": nn.Module,
}
_WORDS = {
    "scheduler": ("sched", "lr_policy"),
    "scaler": ("scaler",),
    "optimizer": ("optim", "opt", "adam", "sgd"),
    "loss": ("criterion", "loss_f", "lossf", "loss_fn", "crit"),
    "model": ("model", "net", "backbone", "classifier", "discriminator", "generator", "critic", "encoder",
              "decoder", "student", "teacher", "learner"),
}  # fmt: skip
LOSSES = {
    "cross_entropy", "nll_loss", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div", "bce_loss",
    "binary_cross_entropy", "binary_cross_entropy_with_logits",
}  # fmt: skip
_SAME = {
    "CrossEntropyLoss": "cross_entropy",
    "NLLLoss": "nll_loss",
    "BCEWithLogitsLoss": "binary_cross_entropy_with_logits",
}


class Roles:
    """Know what the names of one source stand for.

    Args:
        tree: The source; names that are made in it by a known class are known.
        objects: What names are known to be, from a function's arguments and globals.
    """

    def __init__(self, tree: ast.AST, objects: dict[str, Any] | None = None) -> None:
        self.known: dict[str, str] = {}
        self.losses: dict[str, str] = {}  # the name of a criterion: the function that it is
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and any(
                last(base) in ("Module", "Sequential") for base in node.bases
            ):
                self.known[node.name] = "model class"
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                for target in node.targets:
                    self.made(ast.unparse(target), made_by(node.value))
        for name, thing in (objects or {}).items():
            self._is(name, thing)

    def made(self, name: str, by: str) -> None:
        """Learn that a name is made by a class or function called `by`."""
        if self.known.get(by) == "model class":
            self.known[name] = "model"
        for role, classes in _CLASSES.items():
            if by in classes:
                self.known[name] = role
                self.losses[name] = _SAME.get(by, by)
                return

    def _is(self, name: str, thing: Any) -> None:
        for role, types in _TYPES.items():
            if isinstance(thing, types):
                self.known[name] = role
                self.losses[name] = _SAME.get(type(thing).__name__, type(thing).__name__)
                return
        if getattr(thing, "__name__", "") in LOSSES:
            self.known[name], self.losses[name] = "loss", thing.__name__

    def copy(self) -> "Roles":
        """Return another one that knows the same, and may learn something else."""
        other = Roles(ast.Module([], []))
        other.known, other.losses = dict(self.known), dict(self.losses)
        return other

    def of(self, name: str) -> str:
        """Return "optimizer", "scheduler", "scaler", "loss", "model", or "" for what nobody knows.

        Example:
            >>> Roles(ast.parse("o = torch.optim.SGD(p)")).of("o"), Roles(ast.parse("")).of("self.lr_scheduler")
            ('optimizer', 'scheduler')
        """
        if name in self.known:
            return self.known[name]
        word = name.rpartition(".")[2].lower().partition("[")[0]
        for role, words in _WORDS.items():
            if (
                any(part in word for part in words if len(part) > 3)
                or word in words
                or (role == "optimizer" and word.startswith("opt"))
                or (role == "model" and (word.startswith("net") or word.endswith("net")))
            ):
                return role
        return ""

    def loss(self, function: str) -> str:
        """Return which loss function a name is: "cross_entropy", ...; the name itself if that is not known."""
        short = function.rpartition(".")[2]
        return self.losses.get(function) or (short if short in LOSSES else _SAME.get(short, short))


def last(node: ast.AST) -> str:
    """Return the last word of a name: `SGD` of `torch.optim.SGD`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def made_by(value: ast.Call) -> str:
    """Return what something is made by: `Net` of `Net(10).to(device)`.

    Example:
        >>> made_by(ast.parse("Net(10).to(device)", mode="eval").body)
        'Net'
    """
    function = value.func
    moved = isinstance(function, ast.Attribute) and function.attr in _SAME_AGAIN
    return made_by(function.value) if moved and isinstance(function.value, ast.Call) else last(function)


_SAME_AGAIN = ("to", "cuda", "cpu", "train", "eval", "requires_grad_", "float", "half", "double")


def operand(node: ast.expr) -> str:
    """Return an expression as text to which a method call can be added.

    Example:
        >>> operand(ast.parse("loss * n", mode="eval").body), operand(ast.parse("loss", mode="eval").body)
        ('(loss * n)', 'loss')
    """
    text = ast.unparse(node)
    return text if isinstance(node, ast.Name | ast.Attribute | ast.Call | ast.Subscript) else f"({text})"


def generates_parameters(value: ast.expr) -> bool:
    """Say whether a value is a generator of parameters, which is empty after its first use.

    Example:
        >>> texts = ("model.parameters()", "list(model.parameters())", "filter(trains, net.parameters())")
        >>> [generates_parameters(ast.parse(text, mode="eval").body) for text in texts]
        [True, False, True]
    """
    word = last(value.func) if isinstance(value, ast.Call) else ""
    made = isinstance(value, ast.GeneratorExp) or word in ("parameters", "filter", "map")
    return made and "param" in ast.unparse(value)


def made_here(word: str, role: str) -> bool:
    """Say whether `word` is a class that makes things of a role.

    Example:
        >>> made_here("SGD", "optimizer"), made_here("SGD", "scheduler")
        (True, False)
    """
    return word in _CLASSES[role]
