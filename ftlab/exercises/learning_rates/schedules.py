"""Where the scheduler is stepped, and which epoch gets which rate."""

import warnings
from functools import partial

import numpy as np
import torch
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import ExponentialLR, StepLR

from ftlab.exercises.behaviour import as_number
from ftlab.exercises.core import Mistake, Wrong, exercise
from ftlab.exercises.learning_rates.recording import recorded, weights


def _expect_rates(found: list[float], wanted: list[float], where: str) -> None:
    for step, (one, other) in enumerate(zip(found, wanted, strict=True)):
        if not abs(one - other) <= 1e-6 * max(other, 1e-9):
            ask = (
                "After how many calls of `optimizer.step()` is `scheduler.step()` called, here and in your loop?"
            )
            raise Wrong(f"{where}, step {step} was made at {one:.3g} instead of {other:.3g}.", ask=ask)


def check_train_epochs(answer):
    """The rate of every optimizer step, for a StepLR and an ExponentialLR, each made for one batch."""
    for make, name in (
        (lambda o: StepLR(o, 2, gamma=0.1), "StepLR(2)"),
        (lambda o: ExponentialLR(o, 0.5), "ExponentialLR"),
    ):
        optimizer = SGD(weights(), lr=1.0)
        scheduler, rates, gradients = make(optimizer), recorded(optimizer), _gradients(optimizer)
        batches = [torch.ones(1)] * 3
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer(batches, lambda batch: optimizer.param_groups[0]["params"][0].sum(), optimizer, scheduler, 5)  # noqa: B023
        _expect_every_batch(len(rates))
        _expect_one_batch_each(gradients)
        factor = {"StepLR(2)": lambda epoch: 0.1 ** (epoch // 2), "ExponentialLR": lambda epoch: 0.5**epoch}[name]
        wanted = [factor(epoch) for epoch in range(5) for _ in batches]
        _expect_rates([rate for (rate,) in rates], wanted, f"With {name}, 5 epochs of 3 batches")


def _gradients(optimizer: torch.optim.Optimizer) -> list[float]:
    """Return a list that gets the gradient of each step; that of one batch is 1."""
    found: list[float] = []
    (weight,) = optimizer.param_groups[0]["params"]
    # after the step: where it is given a closure, the gradient comes within
    optimizer.register_step_post_hook(lambda *_: found.append(0.0 if weight.grad is None else weight.grad.item()))
    return found


def _expect_one_batch_each(gradients: list[float]) -> None:
    for step, gradient in enumerate(gradients):
        if gradient != 1:
            text = f"Step {step} was made with the gradients of {gradient:g} batches instead of one."
            raise Wrong(text, ask="Which line clears them, and where does `backward` stand?")


def _expect_every_batch(count: int) -> None:
    if count != 15:
        ask = "How often does each loop go round, and which lines stand in the inner one?"
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


def _with_closure(batches, loss, optimizer, scheduler, epochs):
    def closure(batch):
        optimizer.zero_grad()
        value = loss(batch)
        value.backward()
        return value

    for _ in range(epochs):
        for batch in batches:
            optimizer.step(partial(closure, batch))
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
    also_right=[_with_while, _before_all_but_the_first, _with_closure],
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
    if not isinstance(value, tuple | list | np.ndarray | torch.Tensor) or len(value) != 3:
        raise Wrong(f"Three rates were asked for, you gave `{value!r}`.", ask="Is it like `(0.1, 0.1, 0.1)`?")
    optimizer = Adam(weights(), lr=0.001)
    scheduler, rates = StepLR(optimizer, 10, 0.1), []
    for _ in range(30):
        rates.append(optimizer.param_groups[0]["lr"])
        for _ in range(2):
            optimizer.step()
        scheduler.step()
    for epoch, said in zip((9, 10, 25), value, strict=True):
        if isinstance(said, str):
            raise Wrong(f"{said!r} is a text, no number.", ask="Without the quotation marks?")
        if not abs(as_number(said, "rate of an epoch") - rates[epoch]) <= 1e-9:
            raise Wrong(
                f"Epoch {epoch} is not trained at {said!r}.",
                ask="Epochs are counted from 0. How often has `scheduler.step()` been called before it?",
            )


def _rates_as_powers():
    return [10**-3, 10**-4, 10**-5]


def _rates_as_array():
    return np.float32([1e-3, 1e-4, 1e-5])


def _rates_as_text():
    return "1e-3", "1e-4", "1e-5"


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
    also_right=[_rates_as_powers, _rates_as_array],
    mistakes=[
        Mistake(_rates_as_text, says="is a text, no number"),
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
