"""Watch a training loop while it runs: what happens, in which line, and what it does to the tensors."""

import gc
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode

from ftlab.freezing.snapshot import family

from .events import Event

CLIPS = ("clip_grad_norm_", "clip_grad_value_")


class Fact:
    """Something that was noticed in a line, with a sentence of what was seen."""

    def __init__(self, kind: str, line: int | None, says: str) -> None:
        self.kind, self.line, self.says = kind, line, says


class Watch(TorchFunctionMode):
    """Notice what a function does, in the thread in which this is entered.

    Attributes:
        events: What happened, in order.
        facts: What was noticed besides.
        moved: For each optimizer step, how many of its tensors changed.
        idle: For each optimizer that stepped, by id: its line, and of each step whether no tensor had a gradient.
        frozen: The parameters that were frozen when they were used first, by id.
        graded: The parameters that got gradients, by id.
        owned: The parameters of the optimizers that stepped, by id.
        clipped: For each clipping, its line and the ids of the tensors with gradients.
        used: The parameters of the models that were called, by id.
    """

    def __init__(self, function: Callable) -> None:
        super().__init__()
        self.codes = set(_codes(function.__code__))
        self.globals = function.__globals__
        self.events: list[Event] = []
        self.facts: list[Fact] = []
        self.moved: list[int] = []
        self.idle: dict[int, tuple[int | None, list[bool]]] = {}
        self.frozen: set[int] = set()
        self.graded: dict[int, Tensor] = {}
        self.owned: dict[int, Tensor] = {}
        self.used: dict[int, Tensor] = {}
        self.clipped: list[tuple[int | None, set[int]]] = []
        self.changed = False  # whether a parameter moved, whoever moved it
        self.stopped_in: int | None = None  # the line in which its time was up
        self._scaled: list[Tensor] = []
        self._spent: dict[int, tuple[Tensor, Tensor]] = {}  # parameters whose gradient a step has used
        self._before: list[dict[int, tuple[Tensor, Tensor]]] = []
        self._first: dict[int, Tensor] = {}  # what the parameters were at their first use
        self._graphs: dict[int | None, list[weakref.ref]] = {}
        self._calls: list[nn.Module] = []
        self._untrained: tuple = (None, None, None)  # the last output without a graph of a model in train mode
        self._by_scaler = self._quiet = 0
        self._thread = 0
        self._stack = ExitStack()

    def __enter__(self) -> "Watch":
        self._thread = threading.get_ident()
        self._stack.__enter__()
        for undo in self._hooks():
            self._stack.callback(undo)
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._stack.close()

    # where to look

    def _hooks(self) -> Iterator[Callable[[], None]]:
        """Put a watch on everything that belongs to a training loop, and yield how to take it off."""
        yield register_optimizer_step_pre_hook(self._mine(self._before_step)).remove
        yield register_optimizer_step_post_hook(self._mine(self._after_step)).remove
        yield register_module_forward_pre_hook(self._mine(self._before_forward)).remove
        yield register_module_forward_hook(self._mine(self._after_forward)).remove
        for owner, name, before in (
            (Optimizer, "zero_grad", self._zero_grad),
            (nn.Module, "zero_grad", self._zero_grad),
            (nn.Module, "train", self._train),
            (GradScaler, "unscale_", lambda scaler, optimizer, *_: self._say("unscale", id(optimizer))),
            (torch.autograd, "backward", self._backward),
        ):
            yield self._patch(owner, name, before)
        yield self._patch(GradScaler, "update", self._update)
        yield self._patch(GradScaler, "step", lambda *_, **__: None, around=self._scaler_steps)
        yield self._patch(GradScaler, "scale", lambda *_, **__: None, after=self._scaled.append)
        for kind in family(LRScheduler):
            if "step" in vars(kind):
                yield self._patch(kind, "step", self._schedule, around=self._hush)
        for place in (vars(torch.nn.utils), vars(torch.nn.utils.clip_grad), self.globals):
            for name in [name for name, thing in list(place.items()) if any(thing is one for one in _CLIPPERS)]:
                yield self._patch_clip(place, name)

    def _mine(self, hook: Callable) -> Callable:
        """Return the hook, for this thread only."""

        def only_here(*arguments: Any) -> None:
            if threading.get_ident() == self._thread:
                with torch._C.DisableTorchFunction():
                    hook(*arguments)

        return only_here

    def _patch(self, owner: Any, name: str, before: Callable, *, after: Callable | None = None,
               around: Callable | None = None) -> Callable[[], None]:  # fmt: skip
        original = getattr(owner, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            if threading.get_ident() != self._thread:
                return original(*arguments, **options)
            before(*arguments, **options)
            with around(*arguments) if around else _nothing():
                result = original(*arguments, **options)
            if after:
                after(result)
            return result

        watched.__name__, watched.__wrapped__ = name, original
        setattr(owner, name, watched)
        return lambda: setattr(owner, name, original)

    def _patch_clip(self, place: dict, name: str) -> Callable[[], None]:
        original = place[name]

        def watched(parameters: Any, *arguments: Any, **options: Any) -> Any:
            if threading.get_ident() != self._thread:
                return original(parameters, *arguments, **options)
            tensors = [parameters] if isinstance(parameters, Tensor) else list(parameters)
            self._clip(tensors)
            return original(tensors, *arguments, **options)

        place[name] = watched
        return lambda: place.__setitem__(name, original)

    # what is noticed

    def line(self) -> int | None:
        """Return the line of the function that runs now, counted in its file."""
        frame = sys._getframe()
        while frame is not None:
            if frame.f_code in self.codes:
                return frame.f_lineno
            frame = frame.f_back
        return None

    def count(self, kind: str) -> int:
        """Return how often something has happened."""
        return sum(event.kind == kind for event in self.events)

    def any_moved(self) -> bool:
        """Say whether a parameter that was used is another than at its first use."""
        return any(not torch.equal(self.used[key].detach(), first) for key, first in self._first.items())

    def _say(self, kind: str, of: Any, **facts: Any) -> None:
        if not self._quiet:
            self.events.append(Event(kind, self.line(), of, autocast=_autocast(), **facts))

    def _note(self, kind: str, says: str, line: int | None = None) -> None:
        self.facts.append(Fact(kind, line or self.line(), says))

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run the function; a loss is looked at first, and whether outputs are judged."""
        if function in _JUDGES and args and args[0] is self._untrained[0]:
            self._say("judged", self._untrained[2])
        if function in (F.cross_entropy, F.nll_loss) and args:
            self._loss(
                function, *args[:2], *[(kwargs or {})[k] for k in ("input", "target") if k in (kwargs or {})]
            )
        return function(*args, **(kwargs or {}))

    def _loss(self, function: Callable, logits: Tensor, target: Tensor | None = None) -> None:
        if not isinstance(logits, Tensor) or logits.dim() < 2 or not logits.is_floating_point():
            return
        values = logits.detach().float()
        total = values.logsumexp(1)
        logs = bool((total.abs() < 1e-3).all())
        if function is F.nll_loss:
            if not logs:
                self._note(
                    "nll_loss of logits", f"exp of its input adds up to {total.exp()[0].item():.3g}, not to 1"
                )
            return
        if logs:
            self._note("log_softmax before cross_entropy", "its input is log-probabilities already")
        elif bool((values >= 0).all()) and bool(((values.sum(1) - 1).abs() < 1e-3).all()):
            self._note("softmax before cross_entropy", "its input adds up to 1 for each image")
        if isinstance(target, Tensor) and target.shape == logits.shape and not target.is_floating_point():
            self._note("one_hot as integers", f"targets of shape {tuple(target.shape)} and type {target.dtype}")

    def _before_forward(self, module: nn.Module, *_: Any) -> None:
        self._calls.append(module)

    def _after_forward(self, module: nn.Module, _: Any, output: Any) -> None:
        while self._calls and self._calls.pop() is not module:
            pass
        if self._calls or next(module.parameters(), None) is None:
            return
        for parameter in module.parameters():
            if id(parameter) not in self.used:
                self.used[id(parameter)], self._first[id(parameter)] = parameter, parameter.detach().clone()
                if not parameter.requires_grad:
                    self.frozen.add(id(parameter))
        result = _first_tensor(output)
        recorded = result is not None and result.requires_grad
        self._say("forward", id(module), grad=recorded, name=type(module).__name__)
        if recorded and result.grad_fn is not None:
            self._follow(result)
        if result is not None and not recorded and _is_moody(module):
            self._untrained = result, self.line(), id(module)

    def _follow(self, result: Tensor) -> None:
        """Hang something on the graph that dies with it, and count the graphs of older batches."""
        line, mark = self.line(), _Mark()
        result.grad_fn.metadata["ftlab"] = mark
        older = self._graphs.setdefault(line, [])
        if sum(ref() is not None for ref in older[:-1]) >= 2:
            gc.collect(0)
            if (kept := sum(ref() is not None for ref in older[:-1])) >= 2:
                self._note("total keeps graphs", f"the graphs of {kept + 1} earlier batches are still there")
        older.append(weakref.ref(mark))

    def _zero_grad(self, owner: Any, *_: Any, **__: Any) -> None:
        self._say("zero_grad", id(owner), model=isinstance(owner, nn.Module))
        for parameter in list(_parameters(owner)):
            self._spent.pop(id(parameter), None)

    def _train(self, module: nn.Module, mode: bool = True) -> None:
        frame = sys._getframe(2)
        if frame.f_code.co_name == "eval" and frame.f_globals.get("__name__") == "torch.nn.modules.module":
            frame = frame.f_back
        if frame.f_globals.get("__name__") != "torch.nn.modules.module":  # not of a child, by its parent
            self._say("train" if mode else "eval", id(module))

    def _backward(self, tensors: Any, *_: Any, **__: Any) -> None:
        root = _first_tensor(tensors)
        kept = {key: (p, old) for key, (p, old) in self._spent.items() if p.grad is old and old.any()}
        if len(kept) < len(self._spent):
            self._say("zero_grad", None, model=True)  # by hand
        self._spent = kept
        scaled = any(root is one for one in self._scaled)
        self._scaled.clear()
        self._say("backward", None, scaled=scaled)

    def _schedule(self, scheduler: Any, *_: Any, **__: Any) -> None:
        if sys._getframe(2).f_code.co_name != "_initial_step":
            self._say("schedule", id(scheduler))

    def _update(self, scaler: GradScaler, *_: Any, **__: Any) -> None:
        self._say("update", id(scaler))

    @contextmanager
    def _hush(self, *_: Any) -> Iterator[None]:
        self._quiet += 1
        yield
        self._quiet -= 1

    @contextmanager
    def _scaler_steps(self, scaler: GradScaler, *_: Any) -> Iterator[None]:
        self._by_scaler = 1  # one that is switched off as well: its scale() and step() fit together
        try:
            yield
        finally:
            self._by_scaler = 0

    def _clip(self, tensors: list[Tensor]) -> None:
        self._say("clip", None)
        if not tensors:
            self._note("exhausted generator", "it was given no parameter at all")
        self.clipped.append((self.line(), {id(p) for p in tensors if p.grad is not None}))

    def _before_step(self, optimizer: Optimizer, *_: Any) -> None:
        owned = {id(p): p for p in _parameters(optimizer)}
        self.owned |= owned
        self._before.append({key: (p, p.detach().clone()) for key, p in owned.items()})

    def _after_step(self, optimizer: Optimizer, *_: Any) -> None:
        before = self._before.pop() if self._before else {}
        self._collect()
        old = [key for key, (p, gradient) in self._spent.items() if key in before and p.grad is gradient]
        if old:  # a closure clears its gradients during the step, so this is asked after it
            says = f"the gradients of {len(old)} tensors still contain those of the step before"
            self._note("no zero_grad", says, self.line_of_last("backward"))
        ungraded = all(p.grad is None for p, _ in before.values())
        self.idle.setdefault(id(optimizer), (self.line(), []))[1].append(ungraded)
        self.moved.append(sum(not torch.equal(p.detach(), old) for p, old in before.values()))
        self._spent |= {key: (p, p.grad) for key, (p, _) in before.items() if p.grad is not None}
        self._say("step", id(optimizer), scaled=bool(self._by_scaler))

    def _collect(self) -> None:
        self.graded.update((key, p) for key, p in self.used.items() if p.grad is not None)

    def line_of_last(self, kind: str) -> int | None:
        """Return the line in which something happened last."""
        return next((event.line for event in reversed(self.events) if event.kind == kind), None)


class _Mark:
    """Hangs on a graph, and dies with it."""


_CLIPPERS = [getattr(torch.nn.utils, name) for name in CLIPS]


_JUDGES = (F.cross_entropy, F.nll_loss, torch.argmax, Tensor.argmax)  # what compares outputs with targets


def _is_moody(model: nn.Module) -> bool:
    """Say whether something in a model does in train mode what it would not do in eval mode."""
    parts = [module for module in model.modules() if module.training]
    return any(isinstance(part, _BatchNorm | _DropoutNd) for part in parts)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield the code of a function, and of the functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _parameters(owner: Any) -> Iterator[Tensor]:
    if isinstance(owner, nn.Module):
        yield from owner.parameters()
    else:
        yield from (p for group in owner.param_groups for p in group["params"])


def _first_tensor(thing: Any) -> Tensor | None:
    if isinstance(thing, Tensor):
        return thing
    if isinstance(thing, dict):
        thing = list(thing.values())
    return next(filter(None.__ne__, map(_first_tensor, thing)), None) if isinstance(thing, list | tuple) else None


def _autocast() -> bool:
    return torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
