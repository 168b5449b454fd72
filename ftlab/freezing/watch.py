"""What happens in the graph while a step runs: who is used, and where the way back is cut."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .causes import Hindrance


class GraphWatch(TorchFunctionMode):
    """Notice which trainable tensors are used, and which lose their way back to the loss, and how.

    It sees every torch function that is called while it is active, with its inputs and its result, and changes
    none. A cut is an operation with an input that requires a gradient and a result that does not. Such a cut is
    no fault by itself (`loss.item()` comes from one): it matters only for a tensor that gets no gradient at all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.used: set[int] = set()
        self.cut: dict[int, Hindrance] = {}
        self.awake = True

    @contextmanager
    def asleep(self) -> Iterator[None]:
        """Look away while the audit itself looks at the tensors."""
        self.awake = False
        try:
            yield
        finally:
            self.awake = True

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run the function, then look at it."""
        result = function(*args, **(kwargs or {}))
        if self.awake and not _reads_gradient(function):
            self._look(function, list(_tensors([args, (kwargs or {}).values()])), list(_tensors([result])))
        return result

    def _look(self, function: Any, inputs: list[Tensor], results: list[Tensor]) -> None:
        results = [r for r in results if r.is_floating_point() and not any(r is given for given in inputs)]
        inputs = [given for given in inputs if given.requires_grad]
        if not results or not inputs:
            return
        if any(result.requires_grad for result in results):
            self.used.update(id(given) for given in inputs if given.is_leaf)
            return
        for leaf in {leaf for given in inputs for leaf in _leaves(given)}:
            self.cut.setdefault(leaf, _kind_of_cut(function))


def _reads_gradient(function: Any) -> bool:
    """Return whether the function is the getter behind `tensor.grad`."""
    return getattr(getattr(function, "__self__", None), "__name__", "") in ("grad", "_grad")


def _kind_of_cut(function: Any) -> Hindrance:
    if not torch.is_grad_enabled():
        return Hindrance.NO_GRAD
    getter = getattr(getattr(function, "__self__", None), "__name__", "")
    if getattr(function, "__name__", "") == "detach" or getter == "data":
        return Hindrance.DETACHED
    return Hindrance.NOT_DIFFERENTIABLE


def _tensors(things: Iterable[Any]) -> Iterator[Tensor]:
    for thing in things:
        if isinstance(thing, Tensor):
            yield thing
        elif isinstance(thing, list | tuple) or type(thing).__name__ == "dict_values":
            yield from _tensors(thing)


def _leaves(tensor: Tensor) -> Iterator[int]:
    """Yield the ids of the leaves of the graph behind a tensor."""
    if tensor.grad_fn is None:
        yield id(tensor)
        return
    seen, todo = set(), [tensor.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield id(node.variable)
        todo += [following for following, _ in node.next_functions]
