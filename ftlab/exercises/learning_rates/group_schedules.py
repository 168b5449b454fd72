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
    """The highest rate of two groups and the end of the cycle: 4 epochs of 5 batches, stepped per batch."""
    optimizer = SGD(
        [{"params": [p], "lr": lr} for p, lr in zip(weights(2), (0.01, 0.1), strict=True)], momentum=0.9
    )
    scheduler = answer(optimizer, 4, 5)
    if not isinstance(scheduler, LRScheduler):
        raise Wrong(f"You gave a `{type(scheduler).__name__}`, no scheduler.", ask="Is it returned?")
    rates = recorded(optimizer)
    for step in range(20):
        optimizer.step()
        try:
            scheduler.step()
        except ValueError:
            text = f"After {step + 1} of 20 batches the scheduler refused to go on: its cycle was over."
            raise Wrong(text, ask="How often is `scheduler.step()` called in all?") from None
    if rates[-1][1] > 0.01 * max(rate for _, rate in rates):
        text = (
            f"At the last of 20 batches the rate is still {rates[-1][1]:.2g}: the cycle has not come to its end."
        )
        raise Wrong(text, ask="For how many steps was the cycle made?")
    if rates[0][1] >= max(rate for _, rate in rates):
        text = "The very first batch has the highest rate of all: nothing rises before it falls."
        raise Wrong(text, ask="Which schedule was asked for, and how does it begin?")
    for number, wanted in enumerate((0.01, 0.1)):
        highest = max(rate[number] for rate in rates)
        if not abs(highest / wanted - 1) <= 0.05:
            text = f"The group that came with a rate of {wanted:g} gets up to {highest:.2g}."
            raise Wrong(text, ask="What does a single number for `max_lr` mean for two groups?")


def _cycle_by_epochs(optimizer, epochs, batches):
    rates = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, rates, epochs=epochs, steps_per_epoch=batches + 0)


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
    also_right=[_cycle_by_epochs],
    mistakes=[
        Mistake(_cycle_one_rate, says="The group that came with a rate of 0.01 gets up to 0.1"),
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
