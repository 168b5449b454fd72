"""What a forward pass costs in each mode: the memory counted tensor by tensor, the time measured."""

import copy
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ftlab.given import expect
from ftlab.random_state import keep_random_state
from ftlab.table import Table, Tabled

MIB = 2**20
Gradients = Callable[[], AbstractContextManager]
GRADIENTS: dict[str, Gradients] = {
    "grad": torch.enable_grad,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}


@dataclass(frozen=True)
class Pass:
    """One forward pass in one combination of modes.

    Attributes:
        mode: "train" or "eval".
        gradients: "grad", "no_grad" or "inference_mode".
        kept: Bytes that are still alive when it is over, because backward would need them.
        peak: Bytes of results that were alive at the same time.
        seconds: The median time of a pass; 0 if it was not measured.
    """

    mode: str
    gradients: str
    kept: int
    peak: int
    seconds: float


@dataclass(frozen=True, repr=False)
class ForwardCost(Tabled):
    """The forward passes in all combinations of modes; the repr is the table."""

    passes: list[Pass]

    def __getitem__(self, which: tuple[str, str]) -> Pass:
        return next(each for each in self.passes if (each.mode, each.gradients) == which)

    def table(self) -> Table:
        """Return a row per combination."""
        rows = [
            [
                p.mode,
                p.gradients,
                _mib(p.kept),
                _mib(p.peak),
                f"{1000 * p.seconds:.0f} ms",
            ]
            for p in self.passes
        ]
        headers = ["mode", "gradients", "kept for backward", "peak", "time"]
        timed = any(p.seconds for p in self.passes)
        return Table(headers if timed else headers[:-1], rows if timed else [row[:-1] for row in rows])

    def to_dict(self) -> list[dict[str, Any]]:
        """Return one dictionary per combination, in bytes and seconds."""
        return [asdict(each) for each in self.passes]


def forward_cost(model: nn.Module, images: Tensor, *, repeat: int = 3) -> ForwardCost:
    """Measure a forward pass in train and eval mode, with gradients, with no_grad and with inference_mode.

    The model is not changed: a copy of it runs. The random state is as before.

    The trap: `no_grad` does not make a forward pass faster worth mentioning; the same products are computed. It
    saves memory, and what is really saved in time is the backward pass that is not run.

    Memory is counted exactly, as the bytes of all tensors that operations make, each storage once; what a kernel
    uses inside of itself is not seen. Time is measured, so it differs from run to run.

    Args:
        model: Any module of one argument.
        images: What it takes, on the device where the model is.
        repeat: How many passes the time is the median of; 0 leaves it out.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> found = forward_cost(model, torch.ones(4, 8), repeat=0)
        >>> found["train", "grad"].kept, found["eval", "grad"].kept, found["eval", "no_grad"].kept
        (128, 128, 0)
    """
    expect(model, nn.Module, "the model", "forward_cost(model, images)")
    expect(images, Tensor, "what it takes", "forward_cost(model, images)")
    copied = copy.deepcopy(model)
    passes = []
    with keep_random_state(), torch.inference_mode(False):
        for mode in ("train", "eval"):
            copied.train(mode == "train")
            for name, gradients in GRADIENTS.items():
                kept, peak = memory_of(copied, images, gradients)
                seconds = _time(copied, images, gradients, repeat) if repeat else 0.0
                passes.append(Pass(mode, name, kept, peak, seconds))
    return ForwardCost(passes)


def memory_of(
    model: Callable[[Tensor], Any], images: Tensor, gradients: Gradients = torch.enable_grad
) -> tuple[int, int]:
    """Run `model` once, and return the bytes kept for backward and the bytes alive at the peak.

    The forward pass is a real one: batch norm in train mode moves.

    Args:
        model: Anything that takes the images: a model, or a function such as a whole validation.
        images: What it is given.
        gradients: What the pass is made in, such as `torch.no_grad`.

    Example:
        >>> layer = nn.Linear(8, 4)
        >>> memory_of(lambda rows: layer(rows).exp(), torch.ones(2, 8))
        (0, 64)
    """
    with gradients(), _Alive() as alive:
        output = model(images)
    own = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in _tensors(output)}
    return alive.now - sum(size for key, size in own.items() if key in alive.sizes), alive.peak


class _Alive(TorchDispatchMode):
    """Count the bytes of the tensors that operations make, for as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run the operation, then count what it made."""
        given = {t.untyped_storage()._cdata for t in _tensors([args, kwargs])}
        result = function(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if storage._cdata not in given and storage._cdata not in self.sizes:
                self._add(storage)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        self.sizes[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key).atexit = False

    def _drop(self, key: int) -> None:
        self.now -= self.sizes.pop(key)


def _mib(size: int) -> str:
    return f"{size / MIB:.1f} MiB"


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _time(model: nn.Module, images: Tensor, gradients: Gradients, repeat: int) -> float:
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        with gradients():
            model(images)
            if images.is_cuda:
                torch.cuda.synchronize(images.device)
        times.append(time.perf_counter() - start)
    return median(times)
