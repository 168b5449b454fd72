"""What is worth a look in a timeline: skipped values, the wrong loop, groups left out or woken."""

from collections.abc import Iterator

from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR

from .record import Mark, Timeline, written


def judge(found: Timeline, scheduler: LRScheduler | None, start: list[float]) -> Iterator[Mark]:
    """Yield the marks of a run; `start` has the rates that the groups had before it."""
    if not found.rates or scheduler is None:
        return
    if found.scheduled and found.scheduled[0] == 0:
        text = "scheduler.step() came before the first optimizer.step(): the schedule is one value early"
        yield Mark("skipped", 0, f"{text} ({written(start)})")
    yield from _judge_frequency(found, scheduler)
    yield from _judge_cover(found, scheduler)
    yield from _judge_groups(found, start)
    if (
        isinstance(scheduler, OneCycleLR | CyclicLR)
        and len(set(map(_purpose, scheduler.optimizer.param_groups))) == 1
    ):
        text = (
            "all groups have the same rates. One number for max_lr is for all of them, whatever they had; "
            "for a rate per group, hand over a list"
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
