"""The timeline: the rate that each group really gets, step by step, with the calls in the learner's order."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ftlab.given import expect

from .marks import judge
from .record import Mark, Timeline, written
from .rehearsal import When, declared, dry_run, put_back
from .xray import labelled


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
        TypeError: If the scheduler belongs to another optimizer, or `resume` does not give both.

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
    run = loop or (lambda: declared(optimizer, scheduler, epochs, batches, when, metric))
    start = [float(group["lr"]) for _, _, group in labelled([optimizer])]
    found = dry_run(optimizer, scheduler, run, batches if loop is None or batches > 1 else 0)
    if loop and not found.rates and not found.marks:
        raise ValueError("the loop never called optimizer.step() of this optimizer; is it another one's?")
    found.marks += judge(found, scheduler, start)
    if resume:
        _resume(found, optimizer, scheduler, epochs, batches, when, metric, resume)
    return found


def _check(optimizer, scheduler, epochs, batches, when, loop, resume) -> None:
    call = "timeline(optimizer, scheduler)"
    expect(optimizer, Optimizer, "the optimizer", call)
    expect(scheduler, (LRScheduler, type(None)), "the scheduler", call)
    expect(epochs, int, "epochs", f"{call[:-1]}, epochs=10)")
    expect(batches, int, "batches", f"{call[:-1]}, batches=1)")
    if scheduler is not None and scheduler.optimizer is not optimizer:
        raise TypeError("the scheduler belongs to another optimizer; was the optimizer built again after it?")
    if epochs < 1 or batches < 1:
        raise ValueError(f"epochs and batches are 1 or more, not {epochs} and {batches}")
    if when not in When.__args__:
        raise ValueError(f"when is one of {', '.join(map(repr, When.__args__))}, not {when!r}")
    if resume and loop:
        raise ValueError("resume needs epochs and batches, not a loop")
    if loop is not None and not callable(loop):
        raise TypeError(f"loop is a function without arguments, not a {type(loop).__name__}: hand over its name")
    if resume is not None and not _is_resume(resume):
        raise TypeError(f"resume is an epoch and a function, such as (5, go_on), not {resume!r}")
    if resume and not 0 < resume[0] < epochs:
        raise ValueError(f"resume is at an epoch from 1 to {epochs - 1}, not {resume[0]}")


def _is_resume(resume: Any) -> bool:
    return (
        isinstance(resume, tuple | list)
        and len(resume) == 2
        and isinstance(resume[0], int)
        and callable(resume[1])
    )


def _resume(found, optimizer, scheduler, epochs, batches, when, metric, resume) -> None:
    """Run up to the epoch, take the state dicts, go on with what the learner's code makes of them."""
    epoch, build = resume
    with put_back(optimizer, scheduler), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        declared(optimizer, scheduler, epoch, batches, when, metric)
        state = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict() if scheduler else None}
        again, going_on = _built(build(state))
        run = dry_run(again, going_on, lambda: declared(again, going_on, epochs, batches, when, metric, epoch), 0)
    found.resumed, found.resumed_at = run.rates, epoch * batches
    found.marks += [Mark("raised", found.resumed_at + m.step, f"after the resume: {m.text}") for m in run.marks]
    for step, (old, new) in enumerate(zip(found.rates[found.resumed_at :], run.rates, strict=False)):
        if not _alike(old, new):
            text = f"the resume at epoch {epoch} goes on at {written(new)}; without it the rate is {written(old)}"
            found.marks.append(Mark("jump", found.resumed_at + step, text))
            break


def _built(given: Any) -> tuple[Optimizer, LRScheduler | None]:
    """Return what the learner's code has built; raise if it is no optimizer and a scheduler of it."""
    pair = given if isinstance(given, tuple | list) else (given,)
    if len(pair) != 2 or not isinstance(pair[0], Optimizer) or not isinstance(pair[1], LRScheduler | None):
        found = ", ".join(type(one).__name__ for one in pair)
        raise TypeError(
            f"the code for the resume returns an optimizer and a scheduler, in this order; not {found}"
        )
    if pair[1] is not None and pair[1].optimizer is not pair[0]:
        raise TypeError("the scheduler of the resume belongs to another optimizer than the one returned with it")
    return pair[0], pair[1]


def _alike(one: Sequence[float], other: Sequence[float]) -> bool:
    same = len(one) == len(other)
    return same and all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-15) for a, b in zip(one, other, strict=True))
