"""The evidence that an audit collects while the learner's step runs."""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from .causes import Cause, Hindrance
from .selection import is_norm
from .snapshot import dense, members, same
from .watch import GraphWatch


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return every parameter and buffer under each of its names, module by module."""
    found = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None:
                found[f"{prefix}.{name}" if prefix else name] = tensor
    return found


class Evidence:
    """Notice when each tensor changes: in a module's forward, in an optimizer's step, or in between.

    The values are compared at every such moment with those of the moment before. What changed between two
    moments was written directly, by no optimizer and no forward. `values` has a copy of each tensor, by its id.
    """

    def __init__(self, model: nn.Module, values: dict[int, Tensor]) -> None:
        self.model = model
        self.graph = GraphWatch()
        self.names = named_tensors(model)
        self.tensors = {id(tensor): tensor for tensor in self.names.values()}
        self.causes: dict[int, list[Cause]] = defaultdict(list)
        self.hindrances: dict[int, list[Hindrance]] = defaultdict(list)
        self.not_finite: set[int] = set()
        self.in_group: set[int] = set()  # in a group of an optimizer that stepped
        self.strangers: dict[int, Tensor] = {}  # in such a group, but not in the model
        self.pushed: set[int] = set()  # got a gradient that is not zero
        self.start = {key: values[key] for key in self.tensors}
        self._last = dict(self.start)
        self._received: set[int] = set()  # got a gradient since its optimizer last stepped
        self._waiting: set[int] = set()  # got one that is not zero
        self._loaded: dict[int, dict[int, Cause]] = {}  # state that an optimizer brought along
        self._moving: dict[int, list[Cause]] = {}

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Watch what happens inside the `with`; afterwards all hooks are gone."""
        with ExitStack() as stack:
            for handle in self._hooks():
                stack.callback(handle.remove)
            # a compiled model runs as written: what is compiled cannot be watched
            compiled = "torch._dynamo" in sys.modules
            stack.enter_context(torch.compiler.set_stance("force_eager") if compiled else nullcontext())
            stack.enter_context(self.graph)
            yield
        self._compare(self.tensors, lambda key: [Cause.WRITTEN])

    def _hooks(self) -> Iterator[Any]:
        yield register_optimizer_step_pre_hook(self._before_step)
        yield register_optimizer_step_post_hook(self._after_step)
        for module in self.model.modules():
            if any(buffer is not None for buffer in module._buffers.values()):
                yield module.register_forward_pre_hook(self._before_forward)
                yield module.register_forward_hook(self._after_forward)
        for tensor in self.tensors.values():
            if tensor.is_leaf and tensor.requires_grad:
                yield tensor.register_post_accumulate_grad_hook(self._note_gradient)

    def _compare(self, keys: Any, causes: Callable[[int], list[Cause]]) -> set[int]:
        """Note the causes for those tensors that changed since the last look, and return them."""
        with self.graph.asleep():
            changed = {k for k in keys if k in self.tensors and not same(self.tensors[k].detach(), self._last[k])}
            for key in changed:
                _extend(self.causes[key], causes(key))
                self._last[key] = self.tensors[key].detach().clone()
        return changed

    def _note_gradient(self, parameter: Tensor) -> None:
        self._received.add(id(parameter))
        if _pushes(parameter):
            self.pushed.add(id(parameter))
            self._waiting.add(id(parameter))
        if not dense(parameter.grad).isfinite().all():
            self.not_finite.add(id(parameter))

    def _before_forward(self, module: nn.Module, args: Any) -> None:
        self._compare([id(b) for b in module._buffers.values()], lambda key: [Cause.WRITTEN])

    def _after_forward(self, module: nn.Module, args: Any, result: Any) -> None:
        names = {id(buffer): name for name, buffer in module._buffers.items() if buffer is not None}

        def cause(key: int) -> list[Cause]:
            if is_norm(module) and names[key] in ("running_mean", "running_var"):
                return [Cause.STATISTICS]
            tensor = self.tensors[key]
            whole = not tensor.is_floating_point() and tensor.numel() == 1
            return [Cause.COUNTER if whole else Cause.FORWARD]

        self._compare(names, cause)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._compare(self.tensors, lambda key: [Cause.WRITTEN])
        owned = members(optimizer)
        loaded = {key: _loaded(group, optimizer.state.get(p, {})) for key, (group, p) in owned.items()}
        at_first = self._loaded.setdefault(id(optimizer), loaded)
        self._moving = {}
        for key, (group, parameter) in owned.items():
            # what weight decay put into the state during this audit was not there before
            state = loaded[key] if key in self.pushed or at_first.get(key) else []
            self._moving[key] = self._forces(group, parameter, state)

    def _forces(self, group: dict, parameter: Tensor, state: list[Cause]) -> list[Cause]:
        """Return what would move this parameter in the optimizer step that comes next."""
        forces = []
        if _pushes(parameter):
            self.pushed.add(id(parameter))
            if parameter.requires_grad:
                return [Cause.GRADIENT]
            forces.append(Cause.OLD_GRADIENT)
        forces += state
        if group.get("weight_decay") and parameter.any():
            forces.append(Cause.WEIGHT_DECAY)
        return forces

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        owned = members(optimizer)

        def causes(key: int) -> list[Cause]:
            tensor = self.tensors[key]
            closure = key in self.pushed and tensor.requires_grad  # LBFGS makes its gradients inside step
            forces = self._moving.get(key) or ([Cause.GRADIENT] if closure else [])
            others = (parameter for _, parameter in owned.values() if parameter is not tensor)
            if not forces and any(shares_memory(tensor, other) for other in others):
                return [Cause.TIE]
            return forces or [Cause.OPTIMIZER if key in owned else Cause.WRITTEN]

        changed = self._compare(self.tensors, causes)
        for key, (group, parameter) in owned.items():
            if key not in self.tensors:
                self.strangers[key] = parameter
            elif key not in changed and parameter.requires_grad:
                _extend(self.hindrances[key], self._hindrances(group, parameter))
        self.in_group.update(owned)
        self._waiting -= owned.keys()
        self._received -= owned.keys()

    def _hindrances(self, group: dict, parameter: Tensor) -> list[Hindrance]:
        found = self.without_gradient(parameter)
        if float(group.get("lr", 1)) == 0:
            found.append(Hindrance.ZERO_LR)
        if not found:
            found.append(Hindrance.NOT_FINITE if id(parameter) in self.not_finite else Hindrance.TOO_SMALL)
        return found

    def without_gradient(self, parameter: Tensor) -> list[Hindrance]:
        """Say why the parameter has no gradient, or one of zeros; an empty list if it has one."""
        key = id(parameter)
        if _pushes(parameter):
            return []
        if key in self._waiting:
            return [Hindrance.CLEARED]
        if key in self._received:
            return [Hindrance.ZERO_GRADIENT]
        if key in self.graph.cut:
            return [self.graph.cut[key]]
        return [Hindrance.UNREACHED if key in self.graph.used else Hindrance.UNUSED]


def check_values(model: nn.Module) -> None:
    """Raise an error if the model cannot be run and watched: it is scripted, or a tensor has no values yet."""
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError("a scripted model cannot be watched: audit the model that it was made from")
    check_lazy(model)
    for name, tensor in named_tensors(model).items():
        if tensor.is_meta:
            raise ValueError(f"{name!r} has no values yet: load the model first")


def check_lazy(model: nn.Module) -> None:
    """Raise an error if a tensor of the model has no shape yet."""
    for name, tensor in named_tensors(model).items():
        if nn.parameter.is_lazy(tensor):
            raise ValueError(f"{name!r} has no values yet, and no shape: run one batch through the model first")


def shares_memory(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors look at the same memory, whole or in part."""
    (storage, start, end), (other_storage, other_start, other_end) = _place(one), _place(other)
    return storage == other_storage and start < other_end and other_start < end


def _place(tensor: Tensor) -> tuple[tuple, int, int]:
    """Return a tensor's storage, and its first and last byte there: one storage may hold many tensors."""
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    count = 1 + sum((size - 1) * stride for size, stride in steps) if tensor.numel() else 0
    start = tensor.storage_offset() * tensor.element_size()
    return (
        (tensor.device, tensor.untyped_storage().data_ptr()),
        start,
        start + count * tensor.element_size(),
    )


def _loaded(group: dict, state: dict) -> list[Cause]:
    """Return which part of an optimizer's state can move a parameter that gets a gradient of zeros."""
    causes = []
    momentum = state.get("momentum_buffer")
    if group.get("momentum") and momentum is not None and momentum.any():
        causes.append(Cause.MOMENTUM)
    if group.get("betas", (1,))[0] and "exp_avg" in state and state["exp_avg"].any():
        causes.append(Cause.MOMENTS)
    return causes


def _pushes(parameter: Tensor) -> bool:
    """Return whether the parameter has a gradient, and not one of zeros."""
    return parameter.grad is not None and bool(dense(parameter.grad).any())


def _extend(known: list, more: list) -> None:
    known += [one for one in more if one not in known]
