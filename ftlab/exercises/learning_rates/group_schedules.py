"""What a schedule does to the rates of several groups."""

import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR, StepLR

from ftlab.exercises.behaviour import choice_and_reason
from ftlab.exercises.core import Mistake, Wrong, exercise
from ftlab.exercises.learning_rates.recording import recorded, weights

_CHOICES = {
    "step": lambda o: StepLR(o, 2, gamma=0.1),
    "one cycle": lambda o: OneCycleLR(o, max_lr=0.1, total_steps=7),
    "cosine": lambda o: CosineAnnealingLR(o, 6, eta_min=0.01),
}
_REASONS = {
    "multiplies": "",
    "per group": "Every scheduler writes one rate into each group; the question is which one.",
    "small": "How small the rates become says nothing about their ratio.",
    "warns": "None of the three warns.",
}


def check_keep_ratio(answer):
    """Two groups at 0.01 and 0.1, six real steps of the chosen scheduler, the ratio at each; the reason."""
    choice, reason = choice_and_reason(answer(), _CHOICES, _REASONS)
    optimizer = SGD([{"params": [p], "lr": lr} for p, lr in zip(weights(2), (0.01, 0.1), strict=True)])
    scheduler = _CHOICES[choice](optimizer)
    for step in range(6):
        slow, fast = (group["lr"] for group in optimizer.param_groups)
        if not abs(fast / slow - 10) <= 1e-6:
            text = f"With {choice}, step {step} is made at {slow:.3g} and {fast:.3g}: no longer one to ten."
            raise Wrong(text, ask="Does this scheduler look at the rate that a group has?")
        optimizer.step()
        scheduler.step()
    if _REASONS[reason]:
        raise Wrong(
            f'The choice is right, "{reason}" is not why. {_REASONS[reason]}', ask="What does it compute?"
        )


def _ratio_as_list():
    return ["step", "multiplies"]


def _ratio_one_cycle():
    return "one cycle", "multiplies"


def _ratio_cosine():
    return "cosine", "multiplies"


def _ratio_as_class():
    return "StepLR", "multiplies"


def _ratio_reason_first():
    return "multiplies", "step"


def _ratio_wrong_reason():
    return "step", "small"


def _ratio_per_group():
    return "step", "per group"


@exercise(
    check=check_keep_ratio,
    hints=[
        "Build two groups, and print `scheduler.get_last_lr()` after each step; or use `timeline`.",
        "A number such as `max_lr` or `eta_min` is the same for all groups. A factor is not.",
    ],
    also_right=[_ratio_as_list],
    mistakes=[
        Mistake(_ratio_one_cycle, says="With one cycle, step 0"),
        Mistake(_ratio_cosine, says="With cosine, step 1"),
        Mistake(_ratio_as_class, says="`StepLR` is none of the choices"),
        Mistake(_ratio_reason_first, says="`multiplies` is none of the choices"),
        Mistake(_ratio_wrong_reason, says="is not why. How small"),
        Mistake(_ratio_per_group, says="is not why. Every scheduler"),
    ],
    remember="A factor keeps the ratio of the groups; a rate given as one number (max_lr, eta_min) does not.",
)
def keep_ratio() -> tuple[str, str]:
    """Choose and justify: the body learns at 0.01, the head at 0.1. Which schedule keeps them at one to ten?

    Choices: "step" (`StepLR(optimizer, 2, gamma=0.1)`), "one cycle" (`OneCycleLR(optimizer, max_lr=0.1, ...)`),
    "cosine" (`CosineAnnealingLR(optimizer, 6, eta_min=0.01)`).
    Reasons: "multiplies" (a factor on the rate that is there), "per group" (it has a rate for each group),
    "small" (its rates become smallest), "warns" (the others warn). Return both, the choice first.
    """
    return "step", "multiplies"


def check_one_cycle(answer):
    """The highest rates and the end of the cycle, with two groups and with three, stepped per batch."""
    for highest, epochs, batches in (((0.01, 0.1), 4, 5), ((0.02, 0.3, 0.05), 3, 7)):
        groups = [{"params": [p], "lr": lr} for p, lr in zip(weights(len(highest)), highest, strict=True)]
        optimizer = SGD(groups, momentum=0.9)
        _judge_cycle(answer(optimizer, epochs, batches), optimizer, highest, epochs * batches)


def _judge_cycle(scheduler: object, optimizer: SGD, wanted_rates: tuple[float, ...], steps: int) -> None:
    if not isinstance(scheduler, LRScheduler):
        raise Wrong(f"You gave a `{type(scheduler).__name__}`, no scheduler.", ask="Is it returned?")
    if scheduler.optimizer is not optimizer:
        raise Wrong("The scheduler belongs to another optimizer.", ask="Which optimizer did it get?")
    rates = _cycle_rates(scheduler, optimizer, steps)
    first, last, top = rates[0][1], rates[-1][1], max(rate[1] for rate in rates)
    if last > 0.02 * top:  # a cycle that is one step longer comes near enough to its end
        text = f"At the last of {steps} batches the rate is still {last:.2g}: the cycle has not come to its end."
        raise Wrong(text, ask="For how many steps was the cycle made?")
    if first >= top:
        text = "The very first batch has the highest rate of all: nothing rises before it falls."
        raise Wrong(text, ask="Which schedule was asked for, and how does it begin?")
    for wanted, highest in zip(wanted_rates, map(max, zip(*rates, strict=True)), strict=True):
        if not abs(highest / wanted - 1) <= 0.05:
            text = f"The group that came with a rate of {wanted:g} gets up to {highest:.2g}."
            raise Wrong(text, ask="Which `max_lr` has each group, and what is a single number for all of them?")


def _cycle_rates(scheduler: LRScheduler, optimizer: SGD, steps: int) -> list[list[float]]:
    rates = recorded(optimizer)
    for step in range(steps):
        optimizer.step()
        try:
            scheduler.step()
        except ValueError:
            text = f"After {step + 1} of {steps} batches the scheduler refused to go on: its cycle was over."
            raise Wrong(text, ask="How often is `scheduler.step()` called in all?") from None
    return rates


def _cycle_by_epochs(optimizer, epochs, batches):
    rates = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, rates, epochs=epochs, steps_per_epoch=batches + 0)


def _cycle_of_one_step_more(optimizer, epochs, batches):
    rates = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, rates, total_steps=epochs * batches + 1)


def _cycle_for_other_rates(optimizer, epochs, batches):
    rates = [0.01, 0.1, 0.1][: len(optimizer.param_groups)]
    return OneCycleLR(optimizer, max_lr=rates, total_steps=epochs * batches)


def _cycle_for_20_steps(optimizer, epochs, batches):
    return OneCycleLR(optimizer, max_lr=[g["lr"] for g in optimizer.param_groups], total_steps=20)


def _cycle_one_rate(optimizer, epochs, batches):
    return OneCycleLR(optimizer, max_lr=0.1, total_steps=epochs * batches)


def _cycle_counted_in_epochs(optimizer, epochs, batches):
    return OneCycleLR(optimizer, max_lr=[g["lr"] for g in optimizer.param_groups], total_steps=epochs)


def _cycle_too_long(optimizer, epochs, batches):
    return OneCycleLR(
        optimizer, max_lr=[g["lr"] for g in optimizer.param_groups], total_steps=epochs * batches * 10
    )


def _cosine_instead(optimizer, epochs, batches):
    return CosineAnnealingLR(optimizer, epochs)


def _cosine_over_all(optimizer, epochs, batches):
    return CosineAnnealingLR(optimizer, epochs * batches)


@exercise(
    check=check_one_cycle,
    hints=[
        "This schedule is stepped after every batch. How many steps is that in all?",
        "`max_lr` may be a list, with one rate per group.",
        'Read the rates that the groups have: `[group["lr"] for group in optimizer.param_groups]`.',
    ],
    also_right=[_cycle_by_epochs, _cycle_of_one_step_more],
    mistakes=[
        Mistake(_cycle_one_rate, says="The group that came with a rate of 0.01 gets up to 0.1"),
        Mistake(_cycle_for_other_rates, says="The group that came with a rate of 0.02 gets up to"),
        Mistake(_cycle_for_20_steps, says="After 21 of 21 batches the scheduler refused to go on"),
        Mistake(_cycle_counted_in_epochs, says="refused to go on"),
        Mistake(_cycle_too_long, says="the cycle has not come to its end"),
        Mistake(_cosine_instead, says="the cycle has not come to its end"),
        Mistake(_cosine_over_all, says="nothing rises before it falls"),
    ],
    remember="OneCycleLR replaces the rates: one max_lr per group, and as many steps as there are batches.",
)
def one_cycle(
    optimizer: torch.optim.Optimizer, epochs: int, batches: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Transfer: return a `OneCycleLR` that is stepped once per batch, `batches` times in each of `epochs` epochs.

    At its highest point each group shall have the rate that it has in `optimizer` now.
    """
    highest = [group["lr"] for group in optimizer.param_groups]
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, highest, total_steps=epochs * batches)
