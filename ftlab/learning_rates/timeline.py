"""The timeline: the rate that each group really gets, step by step, with the calls in the learner's order."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from ftlab.freezing.snapshot import Snapshot
from ftlab.random_state import keep_random_state
from ftlab.table import Table

from .xray import labelled

if TYPE_CHECKING:
    from ftlab.plots import Picture

When = Literal["epoch", "batch", "epoch first"]


@dataclass(frozen=True)
class Mark:
    """Something to look at in a timeline."""

    kind: str  # skipped, per batch, per epoch, cut short, jump, uncovered, constant, woken, same, raised
    step: int
    text: str


@dataclass
class Timeline:
    """The rates that the steps get; its repr is a table of stretches with the same rates.

    Attributes:
        groups: What the groups are called.
        rates: For each optimizer step, the rate of each group.
        scheduled: For each call of `scheduler.step()`, how many optimizer steps there were before it.
        batches: Optimizer steps per epoch; 0 if that is not known.
        marks: What is worth a look.
        resumed: The rates from the resume on, if there was one.
        resumed_at: The optimizer step of the resume.
    """

    groups: list[str]
    rates: list[list[float]] = field(default_factory=list)
    scheduled: list[int] = field(default_factory=list)
    batches: int = 0
    marks: list[Mark] = field(default_factory=list)
    resumed: list[list[float]] | None = None
    resumed_at: int | None = None

    @property
    def kinds(self) -> list[str]:
        """The kinds of the marks."""
        return [mark.kind for mark in self.marks]

    def table(self) -> Table:
        """Return a row per stretch of steps with the same rates; long schedules are cut in the middle."""
        rows, start = [], 0
        for rates, same in groupby(self.rates):
            count = len(list(same))
            rows.append([_span(start, count), *rates])
            start += count
        if len(rows) > 12:
            rows = [*rows[:6], ["...", *[None] * len(self.groups)], *rows[-5:]]
        title = f"{len(self.rates)} optimizer steps, {len(self.scheduled)} scheduler steps"
        note = "\n".join(f"{mark.kind}: {mark.text}" for mark in self.marks)
        return Table(["steps", *self.groups], rows, title=title, note=note)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return asdict(self)

    def plot(self) -> "Picture":
        """Return a picture: a line per group, the marks where they are, a resume beside the run without one."""
        from .picture import line

        return line(self)

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def timeline(
    optimizer: Optimizer,
    scheduler: LRScheduler | None = None,
    *,
    epochs: int = 10,
    batches: int = 1,
    when: When = "epoch",
    loop: Callable[[], Any] | None = None,
    metric: Callable[[int], float] | None = None,
    resume: tuple[int, Callable[[dict], tuple[Optimizer, LRScheduler | None]]] | None = None,
) -> Timeline:
    """Run the calls of a training loop without training, and return the rate that each step gets, by group.

    Optimizer and scheduler are as before afterwards, and so are the parameters in the groups and the random
    state. A gradient that is there now is put aside, so that a dry step moves nothing.

    The trap that this shows: the rate at the end of an epoch may be right while the loop is wrong, because one
    value was skipped, or because `scheduler.step()` stands in the wrong loop.

    Args:
        optimizer: Any of torch.optim.
        scheduler: Any of torch.optim.lr_scheduler, also chained and sequential ones; None for constant rates.
        epochs: How many epochs to run.
        batches: Optimizer steps per epoch.
        when: Where the loop calls `scheduler.step()`: at the end of each "epoch", after each "batch", or as the
            first thing in an epoch ("epoch first", the mistake of many old tutorials).
        loop: Your own loop instead, a function without arguments that calls `optimizer.step()` and
            `scheduler.step()`; `epochs` is not read then, and `batches` says how many optimizer steps are an
            epoch, if there are such. What else it trains is not put back.
        metric: What `ReduceLROnPlateau` is given, by epoch; without it a loss that never gets better.
        resume: The number of an epoch, and your own code for going on there: a function that gets
            `{"optimizer": ..., "scheduler": ...}`, the state dicts of that moment, and returns a new optimizer
            and a new scheduler.

    Raises:
        ValueError: If there is nothing to run, or `resume` is asked for with a loop.
        TypeError: If the scheduler belongs to another optimizer.

    Example:
        >>> import torch
        >>> from torch.optim.lr_scheduler import StepLR
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        >>> scheduler = StepLR(optimizer, step_size=2, gamma=0.1)
        >>> timeline(optimizer, scheduler, epochs=5, when="epoch first")
        5 optimizer steps, 5 scheduler steps
        steps      group 0
        -------  ---------
        0            0.1
        1 to 2       0.01
        3 to 4       0.001
        skipped: scheduler.step() came before the first optimizer.step(): the schedule is one value early (0.1)
    """
    _check(optimizer, scheduler, epochs, batches, when, loop, resume)
    run = loop or (lambda: _declared(optimizer, scheduler, epochs, batches, when, metric))
    start = [float(group["lr"]) for _, _, group in labelled([optimizer])]
    found = _dry_run(optimizer, scheduler, run, batches if loop is None or batches > 1 else 0)
    found.marks += _judge(found, scheduler, start)
    if resume:
        _resume(found, optimizer, scheduler, epochs, batches, when, metric, resume)
    return found


def _check(optimizer, scheduler, epochs, batches, when, loop, resume) -> None:
    if scheduler is not None and scheduler.optimizer is not optimizer:
        raise TypeError("the scheduler belongs to another optimizer; was the optimizer built again after it?")
    if epochs < 1 or batches < 1:
        raise ValueError(f"epochs and batches are 1 or more, not {epochs} and {batches}")
    if when not in When.__args__:
        raise ValueError(f"when is one of {', '.join(map(repr, When.__args__))}, not {when!r}")
    if resume and loop:
        raise ValueError("resume needs epochs and batches, not a loop")
    if resume and not 0 < resume[0] < epochs:
        raise ValueError(f"resume is at an epoch from 1 to {epochs - 1}, not {resume[0]}")


def _declared(optimizer, scheduler, epochs, batches, when, metric, first: int = 0) -> None:
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


def _dry_run(optimizer: Optimizer, scheduler: LRScheduler | None, run: Callable, batches: int) -> Timeline:
    found = Timeline([label for label, _, _ in labelled([optimizer])], batches=batches)
    with _put_back(optimizer, scheduler), _recorded(found, optimizer, scheduler):
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
                Mark("raised", len(found.rates), f"after {len(found.rates)} steps it raised {text}")
            )


@contextmanager
def _put_back(*things: Any) -> Iterator[None]:
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


def _judge(found: Timeline, scheduler: LRScheduler | None, start: list[float]) -> Iterator[Mark]:
    if not found.rates or scheduler is None:
        return
    if found.scheduled and found.scheduled[0] == 0:
        skipped = ", ".join(f"{rate:g}" for rate in start)
        text = "scheduler.step() came before the first optimizer.step(): the schedule is one value early"
        yield Mark("skipped", 0, f"{text} ({skipped})")
    yield from _judge_frequency(found, scheduler)
    yield from _judge_cover(found, scheduler)
    yield from _judge_groups(found, start)
    if (
        isinstance(scheduler, OneCycleLR | CyclicLR)
        and len(set(map(_purpose, scheduler.optimizer.param_groups))) == 1
    ):
        text = (
            "the groups differ in nothing: a scheduler with one max_lr gives it to all; hand over a list of them"
        )
        if len(found.groups) > 1:
            yield Mark("same", 0, text)


def _purpose(group: dict) -> str:
    """Return what a group is for: its options, but for its name and what lies in it."""
    return str(
        {key: group[key] for key in sorted(group) if key not in ("name", "params", "param_names", "depth")}
    )


def _judge_frequency(found: Timeline, scheduler: LRScheduler) -> Iterator[Mark]:
    """Compare how often the scheduler is stepped with how long it is made for."""
    length, calls, steps = horizon(scheduler), len(found.scheduled), len(found.rates)
    if not length or not found.batches or found.batches == 1 or "raised" in found.kinds:
        return
    epochs = steps / found.batches
    if calls > epochs + 1 and length <= epochs:
        at = next((place for number, place in enumerate(found.scheduled, 1) if number == length), 0)
        text = (
            f"stepped {calls} times in {epochs:g} epochs, once per batch, but made for {length}, as if once per "
            f"epoch: what should take {length} epochs is over after {at / found.batches:.2g}"
        )
        yield Mark("per batch", at, text)
    elif calls <= epochs + 1 and length > epochs + 1:
        text = f"made for {length} steps and stepped {calls} times, once per epoch: {calls / length:.0%} is run"
        yield Mark("per epoch" if length >= steps - 1 else "cut short", steps - 1, text)


def horizon(scheduler: LRScheduler) -> int | None:
    """Return after how many scheduler steps the last thing happens that it is made for; None without an end."""
    inner = getattr(scheduler, "_schedulers", None)
    if inner and hasattr(scheduler, "_milestones"):
        last = horizon(inner[-1])
        return scheduler._milestones[-1] + last if last else None
    if inner:
        return max(filter(None, map(horizon, inner)), default=None)
    for name in ("total_steps", "T_max", "total_iters", "step_size", "T_0"):
        if isinstance(value := getattr(scheduler, name, None), int):
            return value
    milestones = getattr(scheduler, "milestones", None)
    return max(milestones) if milestones else None


def _judge_cover(found: Timeline, scheduler: LRScheduler) -> Iterator[Mark]:
    covered = _covered(scheduler)
    if covered < len(found.groups):
        late = ", ".join(map(repr, found.groups[covered:]))
        text = f"the scheduler knows {covered} of {len(found.groups)} groups, {late} came after it was made"
        yield Mark("uncovered", 0, f"{text}; give every group to the optimizer before the scheduler is made")


def _covered(scheduler: LRScheduler) -> int:
    """Return for how many groups a scheduler was made."""
    inner = getattr(scheduler, "_schedulers", None)
    if inner:
        return min(map(_covered, inner))
    known = getattr(scheduler, "base_lrs", None) or getattr(scheduler, "min_lrs", [])
    return len(known)


def _judge_groups(found: Timeline, start: list[float]) -> Iterator[Mark]:
    """Look for groups that a schedule leaves alone, wakes up, or makes equal to others."""
    columns = list(zip(*found.rates, strict=True))
    moving = [len(set(column)) > 1 for column in columns]
    for name, column, moves, first in zip(found.groups, columns, moving, start, strict=False):
        if not moves and any(moving) and first:
            yield Mark("constant", 0, f"{name!r} stays at {column[0]:g} while others change")
        if first == 0 and any(column):
            at = next(step for step, rate in enumerate(column) if rate)
            yield Mark("woken", at, f"{name!r} had rate 0, and the schedule gives it {column[at]:g}")


def _resume(found, optimizer, scheduler, epochs, batches, when, metric, resume) -> None:
    """Run up to the epoch, take the state dicts, go on with what the learner's code makes of them."""
    epoch, build = resume
    with _put_back(optimizer, scheduler), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _declared(optimizer, scheduler, epoch, batches, when, metric)
        state = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict() if scheduler else None}
        again, going_on = build(state)
        run = _dry_run(
            again, going_on, lambda: _declared(again, going_on, epochs, batches, when, metric, epoch), 0
        )
    found.resumed, found.resumed_at = run.rates, epoch * batches
    found.marks += [Mark("raised", found.resumed_at + m.step, f"after the resume: {m.text}") for m in run.marks]
    for step, (old, new) in enumerate(zip(found.rates[found.resumed_at :], run.rates, strict=False)):
        if not _alike(old, new):
            text = f"the resume at epoch {epoch} goes on at {_rates(new)}; without it the rate is {_rates(old)}"
            found.marks.append(Mark("jump", found.resumed_at + step, text))
            break


def _alike(one: Sequence[float], other: Sequence[float]) -> bool:
    same = len(one) == len(other)
    return same and all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-15) for a, b in zip(one, other, strict=True))


def _rates(rates: Sequence[float]) -> str:
    return ", ".join(f"{rate:.4g}" for rate in rates)


def _span(start: int, count: int) -> str:
    return str(start) if count == 1 else f"{start} to {start + count - 1}"
