"""Snapshots: remember everything a training step may change, and put it back in place."""

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ftlab.given import expect

from .norms import Held

_OPENED = (nn.Module, Held, Optimizer, LRScheduler, GradScaler)  # objects whose attributes we remember


class Snapshot:
    """Remember objects with all their tensors and attributes; `restore` puts the same objects back.

    Nothing is replaced: a tensor keeps its identity and its memory, so that a tie stays a tie, and an optimizer
    goes on knowing its parameters. Attributes are remembered for modules, optimizers, schedulers and gradient
    scalers, and through any dictionary, list and set in them.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> before = Snapshot(model)
        >>> weight = model.weight.item()
        >>> model.weight.data.zero_(), model.eval()
        (tensor([[0.]]), Linear(in_features=1, out_features=1, bias=True))
        >>> before.restore()
        >>> model.weight.item() == weight, model.training
        (True, True)
    """

    def __init__(self, *things: Any, values: bool = True) -> None:
        self._copies = values  # whether what the tensors contain is remembered too
        self.values: dict[int, torch.Tensor] = {}  # what each tensor contained, by its id
        self._known: dict[int, Any] = {}  # also keeps the objects alive, so that ids stay theirs
        self._undo: list[Callable[[], None]] = []
        for thing in things:
            self.add(thing)

    def add(self, thing: Any) -> None:
        """Remember one more object, and what it holds; what is known already is not remembered again."""
        if id(thing) in self._known or not isinstance(thing, (torch.Tensor, dict, list, set, tuple, *_OPENED)):
            return
        self._known[id(thing)] = thing
        if isinstance(thing, torch.Tensor):
            self._add_tensor(thing)
        elif isinstance(thing, dict):
            self._add_container(thing, dict(thing), thing.update, thing.values())
        elif isinstance(thing, list):
            self._add_container(thing, list(thing), thing.extend, thing)
        elif isinstance(thing, set):
            self._add_container(thing, set(thing), thing.update, ())
        elif isinstance(thing, tuple):
            for value in thing:
                self.add(value)
        else:
            self.add(vars(thing))

    def restore(self) -> None:
        """Put everything back as it was when it was remembered."""
        with torch.no_grad():
            for undo in self._undo:
                undo()

    def _add_container(self, thing: Any, content: Any, refill: Callable, values: Any) -> None:
        def undo() -> None:
            thing.clear()
            refill(content)

        self._undo.append(undo)
        for value in list(values):
            self.add(value)

    def _add_tensor(self, tensor: torch.Tensor) -> None:
        if not self._copies or nn.parameter.is_lazy(tensor) or tensor.is_meta:
            return
        leaf = tensor.is_leaf
        memory, values, flag = tensor.detach(), tensor.detach().clone(), tensor.requires_grad
        gradient = tensor.grad if leaf else None
        self.values[id(tensor)] = values
        self.add(gradient)

        def undo() -> None:
            if leaf:
                tensor.grad = None  # a gradient of another type would stand in the way
                tensor.data = memory
                tensor.requires_grad_(flag)
            if not same(memory, values):  # writing would tell autograd that the tensor has changed
                memory.copy_(values)
            if leaf:
                tensor.grad = gradient

        self._undo.append(undo)


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two tensors have the same type, shape and values; NaN equals NaN."""
    if one.dtype != other.dtype or one.shape != other.shape or one.device != other.device:
        return False
    one, other = dense(one), dense(other)
    return torch.equal(one, other) or bool(((one == other) | (one.isnan() & other.isnan())).all())


def dense(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor, or its values with all zeros if it is sparse: few functions take sparse ones."""
    return tensor.to_dense() if tensor.is_sparse else tensor


def living(*kinds: type) -> list:
    """Return all living objects of these classes, wherever they are kept.

    An object refers to its class, so the garbage collector finds it among those that do. To go through all
    objects there are takes five times as long.
    """
    classes = {member for kind in kinds for member in family(kind)}
    return [thing for thing in gc.get_referrers(*classes) if issubclass(type(thing), kinds)]


def trainers(model: nn.Module, optimizers: list[Optimizer] | None = None) -> tuple[list[Optimizer], list]:
    """Return the optimizers that own parameters of the model, and their schedulers with every gradient scaler."""
    own = {id(parameter) for parameter in model.parameters()}
    found = living(Optimizer, LRScheduler, GradScaler)
    if optimizers is None:
        optimizers = [one for one in found if isinstance(one, Optimizer) and not own.isdisjoint(members(one))]
    known = {id(optimizer) for optimizer in optimizers}
    others = [one for one in found if isinstance(one, LRScheduler) and id(one.optimizer) in known]
    return optimizers, others + [one for one in found if isinstance(one, GradScaler)]


def listed(optimizer: Optimizer | Sequence[Optimizer] | None, call: str) -> list[Optimizer] | None:
    """Return one optimizer, or several, as a list; None for None. `call` is the call as it is meant."""
    if optimizer is None:
        return None
    several = list(optimizer) if isinstance(optimizer, Iterable) else [optimizer]
    for one in several:
        expect(one, Optimizer, "the optimizer", call)
    return several


def members(optimizer: Optimizer) -> dict[int, tuple[dict, torch.Tensor]]:
    """Return each parameter of an optimizer, by its id, with its group."""
    return {id(p): (group, p) for group in optimizer.param_groups for p in group["params"]}


def family(kind: type) -> Iterator[type]:
    """Yield a class and all that are derived from it."""
    yield kind
    for child in kind.__subclasses__():
        yield from family(child)
