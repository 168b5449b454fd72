"""What in a forward pass gives the same in every epoch, found out by going through it and running it."""

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from ftlab.modes.mapping import HOLDS, PASSES, effect_of
from ftlab.random_state import keep_random_state, torch_random_state
from ftlab.surgery.cutting import leaves
from ftlab.training.caching.traces import attributes, hooks_of, keep_attributes


class NotExactError(ValueError):
    """The result would be another one; the text is the reason."""


def trace(model: nn.Module) -> tuple[fx.Graph, dict[fx.Node, str]]:
    """Return the graph of the forward pass in the modes as they are, and the name of each place."""
    tracers: list[NodePathTracer] = []

    def run() -> None:
        tracers.append(NodePathTracer(autowrap_modules=(math, torchvision.ops), **leaves(model)))
        tracers[-1].trace(model)

    buffers = list(model.buffers())
    versions = [0 if buffer.is_inference() else buffer._version for buffer in buffers]
    with keep_random_state(), keep_buffers(model) as written:
        try:
            drawn = draws(run)
        except Exception as error:
            raise NotExactError(
                f"torch.fx cannot trace the forward of this {type(model).__name__} "
                f"({type(error).__name__}: {error})"
            ) from error
        if drawn:
            raise NotExactError("the forward draws random numbers in Python: each batch takes another way")
        if versions != [0 if buffer.is_inference() else buffer._version for buffer in buffers]:
            raise NotExactError("the forward writes a buffer in each batch, and would do so only once")
        if attribute := written():
            made = "makes a tensor of its own" if "_tensor_constant" in attribute else f"writes {attribute!r}"
            raise NotExactError(f"the forward {made} in each batch, and would do so only once")
    tracer = tracers[-1]
    graph = tracer.graph
    if sum(node.op == "placeholder" for node in graph.nodes) != 1:
        raise NotExactError("the forward takes more than the images")
    return graph, {node: tracer.node_to_qualname.get(node, node.name) for node in graph.nodes}


def graph_input(graph: fx.Graph) -> fx.Node:
    """Return the node of the images."""
    return next(node for node in graph.nodes if node.op == "placeholder")


@dataclass
class Walk:
    """A walk through the graph that runs all that nothing can move, on some images and on half of them.

    Attributes:
        values: What came out at each fixed place.
        halves: The same, of the first half of the images.
        reasons: Why the first places that are not fixed are not, in words.
    """

    model: nn.Module
    graph: fx.Graph
    names: dict[fx.Node, str]
    images: Tensor
    values: dict[fx.Node, Any] = field(default_factory=dict)
    halves: dict[fx.Node, Any] = field(default_factory=dict)
    reasons: dict[fx.Node, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.modules = dict(self.model.named_modules())
        with keep_random_state(), keep_buffers(self.model), torch.no_grad():
            if draws(self._go, torch_too=False):  # torch's are looked at for each place
                raise NotExactError("a frozen layer draws random numbers of NumPy or of Python")

    @property
    def fixed(self) -> set[fx.Node]:
        """The places that nothing can move."""
        return self.values.keys() & self.halves.keys()

    def _go(self) -> None:
        for found in (self.values, self.halves, self.reasons):
            found.clear()
        self._run(self.images, self.values)
        self._run(self.images[: len(self.images) // 2], self.halves)

    def _run(self, images: Tensor, values: dict[fx.Node, Any]) -> None:
        interpreter = fx.Interpreter(fx.GraphModule(self.model, self.graph), garbage_collect_values=False)
        interpreter.env = values
        interpreter.args_iter = iter([images])
        for node in self.graph.nodes:
            if node.op == "output" or any(source not in values for source in node.all_input_nodes):
                continue
            reason = self._moves(node) or self._run_node(interpreter, node)
            if reason:
                self.reasons.setdefault(node, reason)

    def _run_node(self, interpreter: fx.Interpreter, node: fx.Node) -> str:
        before = _random_state(self.images.device)
        buffers = [(buffer, buffer.clone()) for buffer in self._buffers(node)]
        own = self._attributes(node)
        try:
            value = interpreter.run_node(node)
        except Exception as error:
            raise NotExactError(f"{self.names[node]!r} raised {type(error).__name__}: {error}") from error
        if before != _random_state(self.images.device):
            return f"{self.names[node]!r} draws random numbers"
        if not all(torch.equal(buffer, value) for buffer, value in buffers):
            return f"{self.names[node]!r} writes into its buffers"
        if self._attributes(node) != own:
            return f"{self.names[node]!r} writes into its attributes"
        interpreter.env[node] = value
        return ""

    def _buffers(self, node: fx.Node) -> list[Tensor]:
        return list(self.modules[node.target].buffers()) if node.op == "call_module" else []

    def _attributes(self, node: fx.Node) -> list[dict[str, Any]]:
        return [attributes(m) for m in self.modules[node.target].modules()] if node.op == "call_module" else []

    def _moves(self, node: fx.Node) -> str:
        """Say why a node does not give the same in every epoch, as far as its modules and tensors tell."""
        if node.op == "get_attr":
            tensor = attribute(self.model, node.target)
            trainable = isinstance(tensor, Tensor) and tensor.requires_grad
            return f"{node.target!r} is trainable" if trainable else ""
        if node.op != "call_module":
            return ""
        module, name = self.modules[node.target], node.target
        if any(parameter.requires_grad for parameter in module.parameters()):
            return f"{name!r} is trainable"
        if is_watched(module):
            return f"a hook on {name!r} is to be called"
        for inner in module.modules():
            effect = effect_of(inner)
            if effect and effect not in (HOLDS, PASSES, "computes as in eval mode"):
                return f"{name!r} is in train mode: {effect}"
        return ""

    def is_per_image(self, node: fx.Node) -> bool:
        """Return whether a value has a row per image that is the same whatever images stand beside it."""
        value, half = self.values[node], self.halves[node]
        if not isinstance(value, Tensor) or not value.ndim or len(value) != len(self.images):
            return False
        if len(half) != len(self.images) // 2 or half.shape[1:] != value.shape[1:]:
            return False
        return close(value[: len(half)], half)

    def first_reason(self) -> str:
        """Return why the first place that is not fixed is not."""
        return next(iter(self.reasons.values()), "the prefix is the whole model")


def close(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are equal up to what the order of adding up changes."""
    if not one.is_floating_point():
        return torch.equal(one, other)
    numbers = other[other.isfinite()]
    size = float(numbers.abs().max()) if numbers.numel() else 0.0
    room = min(2e3 * torch.finfo(one.dtype).eps, 0.05)  # half precision: 2e3 roundings would be anything
    return torch.allclose(one, other, rtol=room, atol=room * max(size, 1e-3), equal_nan=True)


@contextmanager
def keep_buffers(model: nn.Module) -> Iterator[Callable[[], str]]:
    """Put the buffers and attributes of every module back: a forward pass in train mode moves them.

    What is given says which attribute is another one now, as in `keep_attributes`.
    The values are compared, since batch norm writes without telling autograd: `_version` stays the same.
    """
    kept = [(module, dict(module._buffers)) for module in model.modules()]
    values = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        with keep_attributes(model) as written:
            yield written
    finally:
        for module, buffers in kept:
            module._buffers.update(buffers)
        with torch.no_grad():
            for buffer, value in values:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


def is_watched(module: nn.Module) -> bool:
    """Return whether somebody put a hook on the module."""
    return bool(hooks_of(module))


def attribute(model: nn.Module, target: str) -> Any:
    """Return the module or tensor of this name."""
    value: Any = model
    for name in target.split("."):
        value = getattr(value, name)
    return value


def draws(run: Callable[[], Any], *, torch_too: bool = True) -> bool:
    """Return whether this draws random numbers of torch, NumPy or Python; it is run twice if it seems so.

    Twice, since NumPy's and Python's belong to all threads: another one may have drawn them meanwhile.
    """
    skip = 0 if torch_too else 1
    for _ in range(2):
        before = all_random_states()[skip:]
        run()
        if all_random_states()[skip:] == before:
            return False
    return True


def all_random_states() -> tuple:
    """Return the random states of torch, of NumPy and of Python."""
    numpy = np.random.get_state()  # noqa: NPY002 - this is the state that augmentations draw from
    return torch_random_state(), numpy[1].tobytes(), numpy[2], random.getstate()


def _random_state(device: torch.device) -> bytes:
    state = torch_random_state()
    return state + torch.cuda.get_rng_state(device).numpy().tobytes() if device.type == "cuda" else state
