"""The learning rate range test: try rates from small to large, a few steps each, and leave no trace."""

import math
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset, Sampler

from ftlab.freezing.evidence import check_values
from ftlab.freezing.snapshot import Snapshot, members, trainers
from ftlab.given import expect
from ftlab.random_state import keep_random_state
from ftlab.table import Table, Tabled

from .xray import labelled

if TYPE_CHECKING:
    from ftlab.plots import Picture


@dataclass(frozen=True)
class Curve:
    """What one sweep over the rates found.

    Attributes:
        name: The group that was swept, or "all groups".
        rates: The rates tried, rising; those of the fastest group.
        losses: For each seed the smoothed loss at these rates, up to where it ran away.
        suggestion: A rate to begin with; None if the test does not tell.
        reason: Why this one, or why none.
    """

    name: str
    rates: list[float]
    losses: list[list[float]]
    suggestion: float | None
    reason: str


class RangeTest(Tabled):
    """The result of `range_test`; its repr is a table with the suggestion and its reason.

    Attributes:
        curves: One `Curve` for all groups together, or one per group.
    """

    def __init__(self, curves: list[Curve]) -> None:
        self.curves = curves

    @property
    def suggestion(self) -> float | None:
        """The rate to begin with, if all groups were swept together."""
        return self.curves[0].suggestion

    def table(self) -> Table:
        """Return a row per curve."""
        rows = [
            [c.name, f"{c.rates[0]:.2g} to {c.rates[-1]:.2g}", len(c.losses), c.suggestion, c.reason]
            for c in self.curves
        ]
        return Table(["swept", "rates", "seeds", "suggestion", "reason"], rows)

    def to_dict(self) -> list[dict[str, Any]]:
        """Return the curves as plain data."""
        return [asdict(curve) for curve in self.curves]

    def plot(self) -> "Picture":
        """Return a picture: the mean loss against the rate, the seeds as a band, the suggestion as a line."""
        from .picture import sweep

        return sweep(self)


def range_test(
    model: nn.Module,
    batches: Iterable,
    optimizer: Optimizer,
    *,
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 60,
    seeds: int = 3,
    loss: Callable[[Any, Any], Tensor] = F.cross_entropy,
    per_group: bool = False,
) -> RangeTest:
    """Train for `steps` steps at rates rising from `low` to `high`, and suggest a rate to begin with.

    Nothing is left behind: parameters, buffers (batch norm), gradients, modes, optimizer, schedulers, the random
    states and the generators of the loader, its samplers and its data set are as before, also after an error or
    Ctrl-C.

    The trap: the suggestion holds for this batch size, this optimizer and these frozen parts, and is a place to
    begin, not the best rate. One run of the test depends on its seed; look at the band.

    Args:
        model: Is trained in the modes in which it is.
        batches: A DataLoader that shuffles, or a list of batches: images and targets.
        optimizer: Its groups keep the ratio of their rates; the largest one is swept. A rate of 0 stays 0.
        low: The smallest rate.
        high: The largest one.
        steps: Optimizer steps per seed; a sweep ends when the loss has run away.
        seeds: How many sweeps, each with its own order of the data.
        loss: Takes what the model returns and the targets.
        per_group: Sweep each group alone, the others at their own rates.

    Returns:
        The curves. `suggestion` is where the mean loss falls steepest; None if it falls by less than twice
        what the seeds differ by.

    Raises:
        ValueError: If the limits are no rising rates, there are no batches, or the loss is not one number.
        TypeError: If `batches` is an iterator: its batches would be gone afterwards. If it is a data set.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Linear(4, 2)
        >>> x = torch.randn(64, 4)
        >>> batches = [(part, (part[:, 0] > 0).long()) for part in x.split(16)]
        >>> found = range_test(model, batches, torch.optim.SGD(model.parameters()), low=1e-3, high=100)
        >>> 0.01 < found.suggestion < 10
        True
    """
    _check(model, batches, optimizer)
    expect(loss, Callable, "the loss", "range_test(..., loss=F.cross_entropy)")
    if isinstance(loss, type):
        raise TypeError(f"the loss is the class {loss.__name__}: call it, {loss.__name__}(), to make a function")
    _check_numbers(low, high, steps, seeds)
    snapshot = Snapshot(model, *trainers(model, [optimizer]))
    rates = [low * (high / low) ** (step / (steps - 1)) for step in range(steps)]
    sweeps: list[tuple[str, list[int]]] = [("all groups", list(range(len(optimizer.param_groups))))]
    if per_group:
        sweeps = [(label, [number]) for number, (label, _, _) in enumerate(labelled([optimizer]))]
    curves = []
    with _keep_generators(batches):
        for name, swept in sweeps:
            losses = []
            for seed in range(seeds):
                try:
                    with keep_random_state(seed):
                        losses.append(_sweep(model, batches, optimizer, swept, rates, loss))
                finally:
                    snapshot.restore()
            curves.append(Curve(name, rates, losses, *_suggest(rates, losses)))
    return RangeTest(curves)


def _check(model: nn.Module, batches: Iterable, optimizer: Optimizer) -> None:
    call = "range_test(model, batches, optimizer)"
    expect(model, nn.Module, "the model", call)
    expect(optimizer, Optimizer, "the optimizer", call)
    if isinstance(batches, Dataset) and not isinstance(batches, Iterable):
        raise TypeError(
            "a data set gives one image at a time: hand over DataLoader(dataset, batch_size=32, shuffle=True)"
        )
    expect(batches, Iterable, "what holds the batches", call)
    if isinstance(batches, Iterator):
        raise TypeError("an iterator is used up by a test: hand over the DataLoader, or a list of batches")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise TypeError("LBFGS runs the loss several times in a step, with a closure: no test of a rate per step")
    check_values(model)
    own = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not own:
        raise ValueError("no parameter of the model is trainable: unfreeze what the rate is for")
    if not any(id(parameter) in members(optimizer) for parameter in own):
        raise ValueError(
            "the optimizer has none of the trainable parameters: build it after the last change to the model"
        )


def _check_numbers(low: float, high: float, steps: int, seeds: int) -> None:
    for name, value, kind in (
        ("low", low, (int, float)),
        ("high", high, (int, float)),
        ("steps", steps, int),
        ("seeds", seeds, int),
    ):
        expect(value, kind, name, "range_test(..., low=1e-6, high=1.0, steps=60, seeds=3)")
    if not 0 < low < high < math.inf:
        raise ValueError(f"the rates rise from low to high, both above 0; not from {low!r} to {high!r}")
    if steps < 10 or seeds < 1:
        raise ValueError(f"a test needs 10 steps and 1 seed or more, not {steps} and {seeds}")


def _sweep(model, batches, optimizer, swept, rates, loss) -> list[float]:
    """Train with rising rates, and return the smoothed losses up to where they run away."""
    base = [float(optimizer.param_groups[number]["lr"]) for number in swept]
    top = max(base) or 1.0
    device = next(model.parameters()).device
    losses: list[float] = []
    mean = 0.0
    for rate, (images, targets) in zip(rates, map(_pair, islice(_again(batches), len(rates))), strict=True):
        for number, own in zip(swept, base, strict=True):
            _set(optimizer.param_groups[number], rate * own / top)
        optimizer.zero_grad()
        value = loss(model(images.to(device)), targets.to(device))
        expect(value, Tensor, "what the loss returns", "range_test(..., loss=F.cross_entropy)")
        if value.numel() != 1:
            raise ValueError(f"a loss is one number for a batch, not a tensor of shape {tuple(value.shape)}")
        if not value.isfinite():
            break
        value.backward()
        optimizer.step()
        mean = 0.8 * mean + 0.2 * value.item()
        losses.append(mean / (1 - 0.8 ** (len(losses) + 1)))
        if losses[-1] > 3 * min(losses):
            break
    return losses


def _set(group: dict, rate: float) -> None:
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def _again(batches: Iterable) -> Iterator:
    """Yield batches without end; a list of them is shuffled each time, as a loader does by itself."""
    while True:
        empty = True
        listed = isinstance(batches, list | tuple)
        for batch in random.sample(batches, len(batches)) if listed else batches:
            empty = False
            yield batch
        if empty:
            raise ValueError(
                "there are no batches to test on, or they come only once: hand over a DataLoader, or a list"
            )


def _pair(batch: Any) -> tuple[Tensor, Tensor]:
    """Return the images and the targets of a batch."""
    if isinstance(batch, list | tuple) and len(batch) == 2:
        return batch
    found = f"a {type(batch).__name__}" + (
        f" of {', '.join(map(repr, batch))}" if isinstance(batch, dict) else ""
    )
    raise TypeError(
        f"a batch is a pair of images and targets, not {found}; make pairs: [(b[...], b[...]) for b in loader]"
    )


def _suggest(rates: list[float], losses: list[list[float]]) -> tuple[float | None, str]:
    """Return the rate at which the mean loss falls steepest, and why; no rate if it does not fall clearly."""
    shared = min(map(len, losses))
    if not shared:  # before any step, so no rate is to blame
        return None, "the loss is not finite before the first step: look at the images and at the loss"
    if shared < 5:
        return None, f"the loss ran away at {rates[shared]:.2g} already: begin lower"
    means = [fmean(seed[step] for seed in losses) for step in range(shared)]
    begin = 3  # the first values of a smoothed curve hang on single batches
    lowest = min(range(begin, shared), key=means.__getitem__)
    spread = fmean(max(values) - min(values) for values in zip(*losses, strict=False))
    fall = max(means[begin : lowest + 1]) - means[lowest]
    if fall <= 2 * spread or lowest < begin + 2:
        return None, f"the mean loss falls by {fall:.2g}, and the seeds differ by {spread:.2g}: it does not tell"
    steepest = min(range(begin + 1, lowest), key=lambda step: means[step + 1] - means[step - 1])
    reason = f"the loss falls steepest here, and is lowest at {rates[lowest]:.2g}"
    return rates[steepest], reason


@contextmanager
def _keep_generators(batches: Any) -> Iterator[None]:
    """Put the generators of a loader and its samplers back: they are no part of the global random state."""
    restores = [_restore_of(generator) for generator in _generators(batches)]
    try:
        yield
    finally:
        for restore in restores:
            restore()


_PARTS = (Dataset, Sampler, DataLoader)
_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


def _generators(loader: Any) -> list[Any]:
    """Return the generators that a loader has, and those of its samplers and data sets, one inside the other."""
    seen: dict[int, Any] = {id(loader): loader}
    for part in (parts := [loader]):
        inner = [one for one in getattr(part, "__dict__", {}).values() if isinstance(one, _PARTS + _GENERATORS)]
        fresh = {id(one): one for one in inner if id(one) not in seen}
        seen |= fresh
        parts += [one for one in fresh.values() if isinstance(one, _PARTS)]
    return [one for one in seen.values() if isinstance(one, _GENERATORS)]


def _restore_of(generator: Any) -> Callable[[], Any]:
    """Return a function that puts a generator back to where it is now."""
    if isinstance(generator, np.random.Generator):
        bits, state = generator.bit_generator, generator.bit_generator.state
        return lambda: setattr(bits, "state", state)
    if isinstance(generator, random.Random):
        return partial(generator.setstate, generator.getstate())
    return partial(generator.set_state, generator.get_state())
