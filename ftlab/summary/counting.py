"""Run a model on tensors without values, and count what each module does."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedFakeTensorException,
)
from torch.func import functional_call
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from ftlab.freezing.costs import named_state, saved_bytes
from ftlab.freezing.snapshot import Snapshot
from ftlab.given import inside, refuse_lazy, refuse_no_model
from ftlab.random_state import keep_random_state

from .report import ModelSummary
from .rows import Own, finish, join, own_rows

_ASKS = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedFakeTensorException)


def summarize(
    model: nn.Module,
    example: Any,
    *,
    keywords: dict[str, Any] | None = None,
    optimizer: Optimizer | None = None,
) -> ModelSummary:
    """Count parameters, work and memory of every block; the model is not changed, not even by running it.

    The model runs on tensors without values: neither its memory nor its time is needed, and no statistic, no
    random number and no gradient moves. A model on the meta device will do. Every module stays in its mode, and
    requires_grad as it is: what is counted is a training step as you would do it now.

    The trap: activations depend on the mode and on what is frozen. In a model that is to be trained, summarize
    it as it will be trained. The model's own forward hooks are not called. While it is counted, the model has
    tensors without values in its place: do not train it in another thread at the same time.

    Args:
        model: Any module; of one in `torch.compile` or `DataParallel`, what is inside is summarized.
        example: What `forward` takes: a batch; a size with the batch in front, such as `(1, 3, 224, 224)`; a
            tuple or list of arguments (tensors, sizes, or what else it takes); or a dictionary of keyword
            arguments. Of a tensor only shape, type and device matter. A size means the model's own floating
            type and device.
        keywords: Keyword arguments beside a tuple of others.
        optimizer: Show for each block the learning rate that this optimizer has for it, or that it has none.

    Raises:
        TypeError: If it is no model.
        ValueError: If the model has parameters without a shape yet (lazy modules).
        RuntimeError: If the example does not fit, or `forward` decides by values; notes say where and what next.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8).eval(), nn.Flatten(), nn.LazyLinear(2))
        >>> _ = model(torch.zeros(1, 3, 8, 8))
        >>> _ = model[0].requires_grad_(False)
        >>> found = summarize(model, (4, 3, 8, 8))
        >>> found.total_params, found.trainable_params, found.multiply_adds
        (818, 594, 33408)
        >>> found["3"].output, found["0"].state, found["1"].mode
        ('4×2', 'frozen', 'eval')
    """
    refuse_no_model(model)
    model = inside(model)
    refuse_lazy(model, "summarize it")
    found = own_rows(model)
    attributes = Snapshot(model, values=False)
    try:
        for module in model.modules():
            module._forward_hooks.clear()  # they would hand the learner's own code tensors without values
        shapes = _run(model, example, keywords or {}, found)
    finally:
        attributes.restore()
    return ModelSummary.of(type(model).__name__, finish(model, found, optimizer), model, shapes)


def _run(model: nn.Module, example: Any, keywords: dict[str, Any], found: dict[str, Own]) -> str:
    """Run forward on fake tensors, write what was counted into `found`; return the shapes that went in."""
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, keep_random_state(), _plain_attention():
        state = {name: _fake(fake, tensor) for name, tensor in named_state(model)}
        for name, parameter in model.named_parameters():
            state[name] = state[name].requires_grad_(parameter.requires_grad)
        arguments, keywords = _arguments(example, keywords, _like(model))
        arguments, keywords = tree_map_only(Tensor, lambda t: _fake(fake, t), (arguments, keywords))
        inputs = [leaf for leaf in tree_leaves((arguments, keywords)) if isinstance(leaf, Tensor)]
        counter = FlopCounterMode(display=False)
        with torch.enable_grad(), counter, saved_bytes([*state.values(), *inputs]) as saved:
            watch = _Watch(model, found, counter, saved)
            with watch.attached():
                try:
                    functional_call(model, state, arguments, keywords)
                except Exception as error:
                    _explain(error, watch, example)
                    raise
    return " and ".join("×".join(map(str, tensor.shape)) for tensor in inputs)


def _fake(fake: FakeTensorMode, tensor: Tensor) -> Tensor:
    """Return a tensor without values; one on the meta device as if on the CPU: attention keeps less there."""
    if hasattr(tensor, "fake_mode"):
        return tensor
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout != torch.strided:
        return fake.from_tensor(tensor.detach())
    device = (
        "cpu" if tensor.is_meta else tensor.device
    )  # made anew: a copy would count the writes on the original
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)


def _like(model: nn.Module) -> dict[str, Any]:
    """Return the type and the device that an input of the model has."""
    for _, tensor in named_state(model):
        if tensor.is_floating_point():
            return {"dtype": tensor.dtype, "device": "cpu" if tensor.is_meta else tensor.device}
    return {}


def _arguments(example: Any, keywords: dict[str, Any], like: dict[str, Any]) -> tuple[tuple, dict]:
    if isinstance(example, dict):
        example, keywords = (), {**example, **keywords}
    elif _is_size(example) or not isinstance(example, tuple | list):
        example = (example,)
    arguments = tuple(_tensor(value, like) for value in example)
    return arguments, {name: _tensor(value, like) for name, value in keywords.items()}


def _tensor(value: Any, like: dict[str, Any]) -> Any:
    return torch.empty(tuple(value), **like) if _is_size(value) else value


def _is_size(value: Any) -> bool:
    if not isinstance(value, tuple | list) or not value:
        return False
    return all(isinstance(n, Integral) and not isinstance(n, bool) for n in value)


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Keep attention from its fused way, which does the same work and which no counter looks into."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@dataclass
class _Call:
    """A module that is being run: what the counters said when it began, and what its children did."""

    path: str
    module: nn.Module
    given: str
    flops: int
    saved: int
    below_flops: int = 0
    below_bytes: int = 0


class _Watch:
    """Share out what the counters count among the modules that run; hooks are global, no module is touched."""

    def __init__(
        self, model: nn.Module, found: dict[str, Own], counter: FlopCounterMode, saved: dict[int, int]
    ) -> None:
        self.found, self.counter, self.saved = found, counter, saved
        self.thread = threading.get_ident()
        self.stack: list[_Call] = []
        self.paths: dict[int, list[str]] = {}
        for path, module in model.named_modules(remove_duplicate=False):
            self.paths.setdefault(id(module), []).append(path)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Watch every module that this thread calls."""
        handles = [register_module_forward_pre_hook(self._enter), register_module_forward_hook(self._leave)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _knows(self, module: nn.Module) -> bool:
        return id(module) in self.paths and threading.get_ident() == self.thread

    def _enter(self, module: nn.Module, arguments: tuple) -> None:
        if self._knows(module):
            now = self.counter.get_total_flops(), len(self.saved)
            self.stack.append(_Call(self._path(module), module, _shapes_text(arguments), *now))

    def _leave(self, module: nn.Module, _: tuple, output: Any) -> None:
        if not self._knows(module):
            return
        while self.stack[-1].module is not module:  # calls that ended in an error which the model caught
            self.stack.pop()
        call = self.stack.pop()
        flops = self.counter.get_total_flops() - call.flops
        kept = sum(list(self.saved.values())[call.saved :])
        own = self.found[call.path]
        own.calls += 1
        own.multiply_adds += (flops - call.below_flops) // 2
        own.activations += kept - call.below_bytes
        own.outputs = tuple(tuple(leaf.shape) for leaf in tree_leaves(output) if isinstance(leaf, Tensor))
        if self.stack:
            self.stack[-1].below_flops += flops
            self.stack[-1].below_bytes += kept

    def _path(self, module: nn.Module) -> str:
        """Return the name of a module; one with several names goes by that in the module that calls it."""
        paths = self.paths[id(module)]
        for caller in reversed(self.stack):
            inside = [path for path in paths if path.startswith(join(caller.path, ""))]
            if inside and len(paths) > 1:
                return inside[0]
        return paths[0]


def _shapes_text(values: Any) -> str:
    return " and ".join("×".join(map(str, v.shape)) for v in tree_leaves(values) if isinstance(v, Tensor))


def _explain(error: Exception, watch: _Watch, example: Any) -> None:
    """Add to an error where it happened and what to do."""
    if watch.stack:
        call = watch.stack[-1]
        where = f"{call.path!r} ({type(call.module).__name__})" if call.path else "the model itself"
        error.add_note(f"ftlab: it happened in {where}, which was given {call.given or 'no tensor'}")
    if isinstance(error, _ASKS):
        error.add_note(
            "ftlab: forward asks for a value, and here tensors have none. `torchinfo.summary` of a "
            "`copy.deepcopy(model)` runs it for real"
        )
    elif _is_size(example):
        size = tuple(map(int, example))
        text = f"ftlab: the size given was {size}; its first number is the batch"
        near = _near(size)
        error.add_note(text + (f". Did you mean {near}?" if near != size else ""))
    elif not isinstance(example, Tensor | tuple | list | dict):
        error.add_note(
            f"ftlab: the example was of class {type(example).__name__}; a batch is a tensor (N, C, H, W), and "
            "its size will do, such as (1, 3, 224, 224)"
        )


def _near(size: tuple[int, ...]) -> tuple[int, ...]:
    """Return the size that was probably meant: with a batch, and with the colours before the places."""
    if len(size) in (3, 4) and size[-1] in (1, 3) and min(size[-3:-1]) > 4:
        size = (*size[:-3], size[-1], *size[-3:-1])
    if len(size) == 2:
        return (1, 3, *size)
    return (1, *size) if len(size) < 4 else size
