"""The random state: put aside, set, and put back; and one of its own for a thread."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_thread = threading.local()
_DRAW = (
    {"bernoulli_", "exponential_", "normal_", "random_", "trunc_normal_", "uniform_"}
    | {"kaiming_normal_", "kaiming_uniform_", "xavier_normal_", "xavier_uniform_"}
    | {"bernoulli", "multinomial", "rand", "randint", "randn", "randperm"}
)


@contextmanager
def keep_random_state(seed: int | None = None) -> Iterator[None]:
    """Put the random state of torch (every device), NumPy and Python back as it was, whatever happens inside.

    Inside of `own_random_state` it is the own one that is set and put back.

    Args:
        seed: Set all of them to this inside; None goes on from where they are.

    Example:
        >>> _ = torch.manual_seed(1)
        >>> with keep_random_state(seed=0):
        ...     inside = torch.rand(1)
        >>> first = torch.rand(1)
        >>> _ = torch.manual_seed(1)
        >>> bool(first == torch.rand(1)), bool(first == inside)
        (True, False)
    """
    if own := getattr(_thread, "own", None):
        with own.kept(seed):
            yield
        return
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - this is the state that augmentations draw from
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            if seed is not None:
                torch.manual_seed(seed)
                np.random.seed(seed % 2**32)  # noqa: NPY002
                random.seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


@contextmanager
def own_random_state(seed: int = 0) -> Iterator[None]:
    """Let what torch draws in this thread come from generators of its own; the random state stays as it is.

    For work in the background: the cells that run meanwhile draw as if it were not there, and it draws as if they
    were not. With the same seed the numbers are those of `torch.manual_seed`.

    The trap: a few layers draw where Python cannot reach them, and stay with the random state outside: attention
    with dropout, `nn.RReLU`, alpha dropout. NumPy's and Python's random numbers do so as well.

    Example:
        >>> _ = torch.manual_seed(1)
        >>> with own_random_state(seed=1):
        ...     inside = torch.rand(2)
        >>> torch.equal(inside, torch.rand(2))
        True
    """
    outer, _thread.own = getattr(_thread, "own", None), _OwnNumbers(seed)
    try:
        with _thread.own:
            yield
    finally:
        _thread.own = outer


@contextmanager
def outer_random_state() -> Iterator[None]:
    """Go back to the random state of all threads for a while, inside of `own_random_state`.

    For datasets: some make their images from `torch.manual_seed`, which sets that one.
    """
    own, _thread.own = getattr(_thread, "own", None), None
    try:
        yield
    finally:
        _thread.own = own


def torch_random_state() -> bytes:
    """Return torch's random state on the CPU, as this thread sees it."""
    own = getattr(_thread, "own", None)
    state = own.generator(torch.device("cpu")).get_state() if own else torch.get_rng_state()
    return state.numpy().tobytes()


class _OwnNumbers(TorchFunctionMode):
    """Hand a generator to every function that draws and was given none."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed, self.generators = seed, {}

    def generator(self, device: torch.device) -> torch.Generator:
        if device not in self.generators:
            self.generators[device] = torch.Generator(device).manual_seed(self.seed)
        return self.generators[device]

    @contextmanager
    def kept(self, seed: int | None) -> Iterator[None]:
        before, outer = {device: one.get_state() for device, one in self.generators.items()}, self.seed
        try:
            if seed is not None:
                self.seed, self.generators = seed, {}
            yield
        finally:
            self.seed, self.generators = outer, {}
            for device, state in before.items():
                self.generator(device).set_state(state)

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        traced = not all(issubclass(kind, Tensor) for kind in types)  # by torch.fx, which only notes the call
        if traced or getattr(_thread, "own", None) is not self:
            return func(*args, **kwargs)
        values = [*args, *kwargs.values()]
        if name in _DRAW and kwargs.get("generator") is None:
            tensor = next((value for value in values if isinstance(value, Tensor)), None)
            device = tensor.device if tensor is not None else torch.device(kwargs.get("device") or "cpu")
            kwargs["generator"] = self.generator(device)
        if func in _DROPOUTS:
            return self._dropout(_DROPOUTS[func], *args, **kwargs)
        return func(*args, **kwargs)

    def _dropout(
        self, spread: int, tensor: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        """Do what `F.dropout` does on a CPU, number for number; it takes no generator."""
        if not training or p == 0:
            return tensor
        if p == 1:
            return tensor.mul_(0) if inplace else tensor * 0
        shape = [*tensor.shape[:2], *[1] * (tensor.ndim - 2)] if spread else tensor.shape
        noise = tensor.new_empty(shape) if spread else torch.empty_like(tensor)
        noise.bernoulli_(1 - p, generator=self.generator(tensor.device)).div_(1 - p)
        return tensor.mul_(noise) if inplace else tensor * noise


_DROPOUTS = {F.dropout: 0, F.dropout1d: 1, F.dropout2d: 1, F.dropout3d: 1}  # 1: a whole channel at a time
