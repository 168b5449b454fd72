"""Where the scheduler is stepped, and what it does to the rates of several groups."""

import warnings

import torch
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LRScheduler, OneCycleLR, StepLR

from ftlab.exercises.core import Mistake, Wrong, exercise


def _weights(count: int = 1) -> list[torch.Tensor]:
    return [torch.ones(1, requires_grad=True) for _ in range(count)]


def _recorded(optimizer: torch.optim.Optimizer) -> list[list[float]]:
    """Return a list that gets the rates of each step."""
    rates: list[list[float]] = []
    optimizer.register_step_pre_hook(lambda *_: rates.append([group["lr"] for group in optimizer.param_groups]))
    return rates


def _expect_rates(found: list[float], wanted: list[float], where: str) -> None:
    for step, (one, other) in enumerate(zip(found, wanted, strict=True)):
        if abs(one - other) > 1e-6 * max(other, 1e-9):
            ask = (
                "After how many calls of `optimizer.step()` is `scheduler.step()` called, here and in your loop?"
            )
            raise Wrong(f"{where}, step {step} was made at {one:.3g} instead of {other:.3g}.", ask=ask)


def check_train_epochs(answer):
    """The rate of every optimizer step, for a StepLR and an ExponentialLR, and that every batch is trained on."""
    for make, name in (
        (lambda o: StepLR(o, 2, gamma=0.1), "StepLR(2)"),
        (lambda o: ExponentialLR(o, 0.5), "ExponentialLR"),
    ):
        optimizer = SGD(_weights(), lr=1.0)
        scheduler, rates = make(optimizer), _recorded(optimizer)
        batches = [torch.ones(1)] * 3
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer(batches, lambda batch: optimizer.param_groups[0]["params"][0].sum(), optimizer, scheduler, 5)  # noqa: B023
        _expect_every_batch(len(rates))
        factor = {"StepLR(2)": lambda epoch: 0.1 ** (epoch // 2), "ExponentialLR": lambda epoch: 0.5**epoch}[name]
        wanted = [factor(epoch) for epoch in range(5) for _ in batches]
        _expect_rates([rate for (rate,) in rates], wanted, f"With {name}, 5 epochs of 3 batches")


def _expect_every_batch(count: int) -> None:
    if count != 15:
        ask = "Which lines stand in the inner loop?"
        raise Wrong(f"In 5 epochs of 3 batches the optimizer made {count} steps.", ask=ask)


def _scheduler_first(batches, loss, optimizer, scheduler, epochs):
    for _ in range(epochs):
        scheduler.step()
        for batch in batches:
            optimizer.zero_grad()
            loss(batch).backward()
            optimizer.step()


def _with_while(batches, loss, optimizer, scheduler, epochs):
    epoch = 0
    while epoch < epochs:
        for batch in batches:
            loss(batch).backward()
            optimizer.step()
            optimizer.zero_grad()
        epoch += 1
        scheduler.step()


def _before_all_but_the_first(batches, loss, optimizer, scheduler, epochs):
    for epoch in range(epochs):
        if epoch:
            scheduler.step()
        for batch in batches:
            optimizer.zero_grad()
            loss(batch).backward()
            optimizer.step()


def _per_batch(batches, loss, optimizer, scheduler, epochs):
    for _ in range(epochs):
        for batch in batches:
            optimizer.zero_grad()
            loss(batch).backward()
            optimizer.step()
            scheduler.step()


def _before_the_batch(batches, loss, optimizer, scheduler, epochs):
    for _ in range(epochs):
        for batch in batches:
            scheduler.step()
            optimizer.zero_grad()
            loss(batch).backward()
            optimizer.step()


def _after_all(batches, loss, optimizer, scheduler, epochs):
    for _ in range(epochs):
        for batch in batches:
            optimizer.zero_grad()
            loss(batch).backward()
            optimizer.step()
    scheduler.step()


def _both_per_epoch(batches, loss, optimizer, scheduler, epochs):
    for _ in range(epochs):
        for batch in batches:
            optimizer.zero_grad()
            loss(batch).backward()
        optimizer.step()
        scheduler.step()


@exercise(
    check=check_train_epochs,
    broken=_scheduler_first,
    hints=[
        "PyTorch warns when this runs. At which rate is the very first batch trained?",
        "A schedule is counted in epochs here: one `scheduler.step()` per epoch, after its batches.",
    ],
    also_right=[_with_while, _before_all_but_the_first],
    mistakes=[
        Mistake(_per_batch, says="step 2 was made at 0.1 instead of 1"),
        Mistake(_before_the_batch, says="step 1 was made at 0.1 instead of 1"),
        Mistake(_after_all, says="step 6 was made at 1 instead of 0.1"),
        Mistake(_both_per_epoch, says="the optimizer made 5 steps"),
    ],
    remember="Batch loop: optimizer.step(). After it, once per epoch: scheduler.step().",
)
def train_epochs(batches, loss, optimizer, scheduler, epochs: int) -> None:
    """Repair: train for `epochs` epochs on a schedule that is counted in epochs.

    `loss(batch)` gives the loss of a batch. The first epoch shall have the optimizer's own rate.
    """
    for _ in range(epochs):
        for batch in batches:
            optimizer.zero_grad()
            loss(batch).backward()
            optimizer.step()
        scheduler.step()


def check_rates_of_epochs(answer):
    """A real Adam with a real StepLR, run for 30 epochs of two batches."""
    value = answer()
    if not isinstance(value, tuple | list) or len(value) != 3:
        raise Wrong(f"Three rates were asked for, you gave `{value!r}`.", ask="Is it like `(0.1, 0.1, 0.1)`?")
    optimizer = Adam(_weights(), lr=0.001)
    scheduler, rates = StepLR(optimizer, 10, 0.1), []
    for _ in range(30):
        rates.append(optimizer.param_groups[0]["lr"])
        for _ in range(2):
            optimizer.step()
        scheduler.step()
    for epoch, said in zip((9, 10, 25), value, strict=True):
        if not isinstance(said, int | float) or abs(said - rates[epoch]) > 1e-9:
            raise Wrong(
                f"Epoch {epoch} is not trained at {said!r}.",
                ask="Epochs are counted from 0. How often has `scheduler.step()` been called before it?",
            )


def _rates_as_powers():
    return [10**-3, 10**-4, 10**-5]


def _one_early():
    return 1e-4, 1e-4, 1e-5


def _one_late():
    return 1e-3, 1e-3, 1e-4


def _subtracted():
    return 1e-3, 9e-4, 8e-4


def _every_batch():
    return 1e-4, 1e-5, 1e-8


@exercise(
    check=check_rates_of_epochs,
    hints=[
        "Epochs 0 to 9 are the first ten.",
        "After each ten calls the rate is multiplied with 0.1: not subtracted from, and not per batch.",
    ],
    also_right=[_rates_as_powers],
    mistakes=[
        Mistake(_one_early, says="Epoch 9 is not trained at 0.0001"),
        Mistake(_one_late, says="Epoch 10 is not trained at 0.001"),
        Mistake(_subtracted, says="Epoch 10 is not trained at 0.0009"),
        Mistake(_every_batch, says="Epoch 9 is not"),
    ],
    remember="StepLR(optimizer, 10, 0.1): ten epochs at the rate, then ten at a tenth of it, and so on.",
)
def rates_of_epochs() -> tuple[float, float, float]:
    """Predict: at which rates are epochs 9, 10 and 25 trained, counted from 0?

    The optimizer is `Adam(..., lr=0.001)`, the scheduler `StepLR(optimizer, 10, 0.1)`, an epoch has two batches,
    and `scheduler.step()` is called once, at the end of each epoch.
    """
    return 0.001, 0.0001, 0.00001


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
    value = answer()
    if (
        not isinstance(value, tuple | list)
        or len(value) != 2
        or value[0] not in _CHOICES
        or value[1] not in _REASONS
    ):
        raise Wrong(f"`{value!r}` is no choice and reason from the lists.", ask="Is the choice first?")
    choice, reason = value
    optimizer = SGD([{"params": [p], "lr": lr} for p, lr in zip(_weights(2), (0.01, 0.1), strict=True)])
    scheduler = _CHOICES[choice](optimizer)
    for step in range(6):
        slow, fast = (group["lr"] for group in optimizer.param_groups)
        if abs(fast / slow - 10) > 1e-6:
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
        [{"params": [p], "lr": lr} for p, lr in zip(_weights(2), (0.01, 0.1), strict=True)], momentum=0.9
    )
    scheduler = answer(optimizer, 4, 5)
    if not isinstance(scheduler, LRScheduler):
        raise Wrong(f"You gave a `{type(scheduler).__name__}`, no scheduler.", ask="Is it returned?")
    rates = _recorded(optimizer)
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
    for number, wanted in enumerate((0.01, 0.1)):
        highest = max(rate[number] for rate in rates)
        if abs(highest / wanted - 1) > 0.05:
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
