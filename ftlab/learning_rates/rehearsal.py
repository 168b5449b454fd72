"""The calls of a training loop without the training: every step is noted, and everything is put back."""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ftlab.freezing.snapshot import Snapshot
from ftlab.plural import plural
from ftlab.random_state import keep_random_state

from .record import Mark, Timeline
from .xray import labelled

When = Literal["epoch", "batch", "epoch first"]


def declared(optimizer, scheduler, epochs, batches, when, metric, first: int = 0) -> None:
    """Call the steps as a loop does."""
    closure = [lambda: 0.0] if isinstance(optimizer, LBFGS) else []
    for epoch in range(first, epochs):
        if when == "epoch first":
            _schedule(scheduler, epoch, metric)
        for _ in range(batches):
            optimizer.step(*closure)
            if when == "batch":
                _schedule(scheduler, epoch, metric)
        if when == "epoch":
            _schedule(scheduler, epoch, metric)


def _schedule(scheduler: LRScheduler | None, epoch: int, metric: Callable[[int], float] | None) -> None:
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(metric(epoch) if metric else 1.0)
    elif scheduler is not None:
        scheduler.step()


def dry_run(optimizer: Optimizer, scheduler: LRScheduler | None, run: Callable, batches: int) -> Timeline:
    """Run the calls and note each step; optimizer and scheduler are as before."""
    found = Timeline([label for label, _, _ in labelled([optimizer])], batches=batches)
    with put_back(optimizer, scheduler), _recorded(found, optimizer, scheduler):
        _attempt(found, run)
    return found


def _attempt(found: Timeline, run: Callable) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what PyTorch warns of here is said as a mark
        try:
            run()
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            found.marks.append(
                Mark("raised", len(found.rates), f"after {plural(len(found.rates), 'step')} it raised {text}")
            )


@contextmanager
def put_back(*things: Any) -> Iterator[None]:
    """Remember optimizer and scheduler, set the gradients aside, and put everything back."""
    snapshot = Snapshot(*things)
    try:
        with keep_random_state():
            for group in things[0].param_groups:
                for parameter in group["params"]:
                    parameter.grad = None
            yield
    finally:
        snapshot.restore()


@contextmanager
def _recorded(found: Timeline, optimizer: Optimizer, scheduler: LRScheduler | None) -> Iterator[None]:
    """Note the rates before each optimizer step, and the place of each scheduler step."""

    def note(*_: Any) -> None:
        found.rates.append([float(group["lr"]) for group in optimizer.param_groups])

    handle = optimizer.register_step_pre_hook(note)
    step = scheduler.step if scheduler else None

    def scheduled(*args: Any, **kwargs: Any) -> Any:
        found.scheduled.append(len(found.rates))
        return step(*args, **kwargs)

    if scheduler:
        scheduler.step = scheduled
    try:
        yield
    finally:
        handle.remove()
        if scheduler:
            del scheduler.step
        groups = len(optimizer.param_groups)
        found.groups = [label for label, _, _ in labelled([optimizer])]
        for rates in found.rates:  # a group that came late has no rate before
            rates += [math.nan] * (groups - len(rates))
