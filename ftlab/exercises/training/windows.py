"""Windows of several batches: what adds up in a gradient, and how many steps an epoch has."""

import copy
import math
from numbers import Real

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR

from ftlab.exercises.core import Mistake, Wrong, exercise
from ftlab.plural import plural

# --- accumulate


def check_accumulate(answer):
    """The parameters after an epoch, against those after large batches: of 8 batches 4 each, of 7 batches 3."""
    for count, every in ((8, 4), (7, 3)):
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
        batches = [(torch.randn(5, 6), torch.randint(3, (5,))) for _ in range(count)]
        wanted = _large_batches(model, batches, every)
        optimizer = _Counting(model.parameters(), lr=0.5)
        answer(model, batches, optimizer, every)
        where = f"With {count} batches, {every} to a step,"
        _expect_steps(optimizer.steps, math.ceil(count / every), where)
        _expect_like_large(model, wanted, batches, where)


class _Counting(SGD):
    """SGD that counts its steps."""

    steps = 0

    def step(self, closure=None):
        self.steps += 1
        return super().step(closure)


def _large_batches(model: nn.Module, batches: list, every: int) -> nn.Module:
    model = copy.deepcopy(model)
    optimizer = SGD(model.parameters(), lr=0.5)
    for start in range(0, len(batches), every):
        x, y = (torch.cat(parts) for parts in zip(*batches[start : start + every], strict=True))
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


def _expect_steps(steps: int, wanted: int, where: str) -> None:
    made = f"the optimizer made {plural(steps, 'step')}"
    if steps > wanted:
        raise Wrong(f"{where} {made}, and {wanted} are enough.", ask="How many images does one step see?")
    if steps < wanted:
        text = f"{where} {made}: the last images were gathered and never used."
        raise Wrong(text, ask="What is there to do after the loop, if the last window is not full?")


def _expect_like_large(model: nn.Module, wanted: nn.Module, batches: list, where: str) -> None:
    pairs = list(zip(model.parameters(), wanted.parameters(), strict=True))
    off = torch.stack([(own - other).abs().max() for own, other in pairs]).max().item()
    if not off <= 1e-5:  # nor is a parameter that is no number
        text = (
            f"{where} the parameters are not those of steps with large batches: they differ by up to {off:.2g}."
        )
        ask = "By what is a sum of means divided to be the mean of all, and how many are in the last window?"
        raise Wrong(text, ask=ask)


def _not_divided(model, batches, optimizer, every):
    for number, (x, y) in enumerate(batches, 1):
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        if number % every == 0:
            optimizer.step()
            optimizer.zero_grad()


def _divided_but_lost(model, batches, optimizer, every):
    optimizer.zero_grad()
    for number, (x, y) in enumerate(batches, 1):
        (F.cross_entropy(model(x), y) / every).backward()
        if number % every == 0:
            optimizer.step()
            optimizer.zero_grad()


def _last_window_divided_by_all(model, batches, optimizer, every):
    optimizer.zero_grad()
    for number, (x, y) in enumerate(batches, 1):
        (F.cross_entropy(model(x), y) / every).backward()
        if number % every == 0 or number == len(batches):
            optimizer.step()
            optimizer.zero_grad()


def _zero_every_time(model, batches, optimizer, every):
    for start in range(0, len(batches), every):
        window = batches[start : start + every]
        for x, y in window:
            optimizer.zero_grad()
            (F.cross_entropy(model(x), y) / len(window)).backward()
        optimizer.step()


def _never_zeroed(model, batches, optimizer, every):
    for start in range(0, len(batches), every):
        window = batches[start : start + every]
        for x, y in window:
            (F.cross_entropy(model(x), y) / len(window)).backward()
        optimizer.step()


def _step_every_time(model, batches, optimizer, every):
    for x, y in batches:
        optimizer.zero_grad()
        (F.cross_entropy(model(x), y) / every).backward()
        optimizer.step()


def _counted_from_zero(model, batches, optimizer, every):
    for number, (x, y) in enumerate(batches):
        (F.cross_entropy(model(x), y) / every).backward()
        if number % every == 0 or number == len(batches) - 1:
            optimizer.step()
            optimizer.zero_grad()


def _divide_the_gradients(model, batches, optimizer, every):
    for start in range(0, len(batches), every):
        optimizer.zero_grad()
        window = batches[start : start + every]
        for x, y in window:
            F.cross_entropy(model(x), y).backward()
        for parameter in model.parameters():
            parameter.grad /= len(window)
        optimizer.step()


def _one_loss_of_all(model, batches, optimizer, every):
    for start in range(0, len(batches), every):
        optimizer.zero_grad()
        window = batches[start : start + every]
        torch.stack([F.cross_entropy(model(x), y) for x, y in window]).mean().backward()
        optimizer.step()


@exercise(
    check=check_accumulate,
    broken=_not_divided,
    hints=[
        "Two slips. What is the sum of four means, and what should it be? And where is the last batch of seven?",
        "The last window may be shorter than the others. Divide each loss by the size of its own window.",
        "`batches[start : start + every]` is a window: let `start` go through `range(0, len(batches), every)`.",
    ],
    also_right=[_divide_the_gradients, _one_loss_of_all],
    mistakes=[
        Mistake(_divided_but_lost, says="the last images were gathered and never used"),
        Mistake(_last_window_divided_by_all, says="With 7 batches, 3 to a step, the parameters are not those"),
        Mistake(_zero_every_time, says="the parameters are not those of steps with large batches"),
        Mistake(_never_zeroed, says="the parameters are not those of steps with large batches"),
        Mistake(_step_every_time, says="the optimizer made 8 steps"),
        Mistake(_counted_from_zero, says="the optimizer made 3 steps"),
    ],
    remember="Gradients add up: divide by the size of the window, and make the last step too.",
)
def accumulate(model: nn.Module, batches: list, optimizer: torch.optim.Optimizer, every: int) -> None:
    """Repair: make one step for `every` batches, as if they were one large batch. The last step may have fewer.

    All batches have the same number of images. No gradient is there when it begins.
    """
    for start in range(0, len(batches), every):
        window = batches[start : start + every]
        optimizer.zero_grad()
        for x, y in window:
            loss = nn.functional.cross_entropy(model(x), y) / len(window)
            loss.backward()
        optimizer.step()


# --- gradients


def check_gradients(answer):
    """The gradient of a real parameter, after each of the four lines."""
    value = answer()
    if not isinstance(value, tuple | list) or len(value) != 4:
        raise Wrong(
            f"Four values were asked for, you gave `{value!r}`.", ask="Is it like `(0.0, 0.0, 0.0, None)`?"
        )
    weight = nn.Parameter(torch.tensor(5.0))
    optimizer, found = SGD([weight], lr=0.1), []
    (3 * weight).backward()
    found.append(weight.grad.item())
    (3 * weight).backward()
    found.append(weight.grad.item())
    optimizer.step()
    found.append(weight.grad.item())
    optimizer.zero_grad()
    found.append(weight.grad)
    asks = (
        "What is the derivative of `3 * weight`?",
        "Does `backward` replace a gradient that is there, or add to it?",
        "Does a step use up the gradient?",
        "`zero_grad` has a parameter `set_to_none`. What is its default?",
    )
    for line, (said, real, ask) in enumerate(zip(value, found, asks, strict=True), 1):
        if isinstance(said, str):
            text = f"For line {line} you gave the text `{said!r}`; a number or `None` was asked for."
            raise Wrong(text, ask="Does it say the same without quotes?")
        same = said is None if real is None else _is_number(said) and abs(said - real) < 1e-6
        if not same:
            raise Wrong(f"After line {line}, `weight.grad` is not {said!r}.", ask=ask)


def _is_number(value: object) -> bool:
    return isinstance(value, Real | torch.Tensor) and not isinstance(value, bool)


def _gradients_as_list():
    return [3, 6, 6, None]


def _backward_replaces():
    return 3.0, 3.0, 3.0, None


def _step_clears():
    return 3.0, 6.0, None, None


def _zeros_at_the_end():
    return 3.0, 6.0, 6.0, 0.0


def _values_of_the_loss():
    return 15.0, 30.0, 30.0, None


@exercise(
    check=check_gradients,
    hints=[
        "`backward` adds to what is there. Who takes it away?",
        "`optimizer.zero_grad()` sets each gradient to None, so that the optimizer skips the parameter.",
    ],
    also_right=[_gradients_as_list],
    mistakes=[
        Mistake(_backward_replaces, says="After line 2, `weight.grad` is not 3.0"),
        Mistake(_step_clears, says="After line 3, `weight.grad` is not None"),
        Mistake(_zeros_at_the_end, says="After line 4, `weight.grad` is not 0.0"),
        Mistake(_values_of_the_loss, says="After line 1, `weight.grad` is not 15.0"),
    ],
    remember="backward adds, step only reads, zero_grad sets to None.",
)
def gradients() -> tuple:
    """Predict: what is `weight.grad` after each of these lines? Numbers, or `None`.

    weight = nn.Parameter(torch.tensor(5.0)); optimizer = SGD([weight], lr=0.1)
    (3 * weight).backward()  # line 1
    (3 * weight).backward()  # line 2
    optimizer.step()         # line 3
    optimizer.zero_grad()    # line 4
    """
    return 3.0, 6.0, 6.0, None


# --- cycle_length


def check_cycle_length(answer):
    """The steps of four loops, counted, and a real OneCycleLR that is stepped with them."""
    for epochs, batches, every in ((3, 50, 4), (2, 48, 4), (5, 50, 1), (4, 3, 8)):
        weight = nn.Parameter(torch.zeros(1))
        optimizer = _Counting([weight], lr=0.1, momentum=0.9)
        for _ in range(epochs):
            for number in range(1, batches + 1):
                if number % every == 0 or number == batches:
                    optimizer.step()
        value = answer(epochs, batches, every)
        where = f"With {epochs} epochs of {batches} batches, {every} to a step, there are {optimizer.steps} steps"
        _judge_length(value, optimizer, where)


def _judge_length(value: object, optimizer: _Counting, where: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        kind = type(value).__name__
        text = f"`total_steps` has to be an `int`, and `{value!r}` is a `{kind}`: `OneCycleLR` refuses it."
        raise Wrong(text, ask="Which division, or which conversion, gives an `int`?")
    if value < optimizer.steps:
        text = f"{where}: a cycle of {value} refuses to go on before the end."
        raise Wrong(text, ask="How many steps has one epoch, the last one of it too?")
    if value > optimizer.steps:
        steps, scheduler = optimizer.steps, OneCycleLR(optimizer, 0.1, total_steps=max(value, 1))
        for _ in range(steps - 1):
            optimizer.step()
            scheduler.step()
        ends = scheduler.get_last_lr()[0]
        text = f"{where}: with a cycle of {value} the rate ends at {ends:.2g}, and a whole cycle at 4e-07."
        raise Wrong(
            text, ask="What did you count besides: batches that make no step, or a window that is not there?"
        )


def _length_by_ceil(epochs, batches, every):
    return epochs * math.ceil(batches / every)


def _length_in_batches(epochs, batches, every):
    return epochs * batches


def _length_rounded_down(epochs, batches, every):
    return epochs * (batches // every)


def _length_over_all(epochs, batches, every):
    return math.ceil(epochs * batches / every)


def _length_as_fraction(epochs, batches, every):
    return epochs * batches / every


def _length_in_epochs(epochs, batches, every):
    return epochs


@exercise(
    check=check_cycle_length,
    hints=[
        "Ten batches, four to a step, and the last step is made: how many steps in one epoch?",
        "A window does not go on into the next epoch. Round up within the epoch, then multiply.",
    ],
    also_right=[_length_by_ceil],
    mistakes=[
        Mistake(_length_in_batches, says="the rate ends at"),
        Mistake(_length_rounded_down, says="refuses to go on"),
        Mistake(_length_over_all, says="a cycle of 38 refuses"),
        Mistake(_length_as_fraction, says="is a `float`: `OneCycleLR` refuses it"),
        Mistake(_length_in_epochs, says="a cycle of 3 refuses"),
    ],
    remember="A schedule per step counts optimizer steps, not batches.",
)
def cycle_length(epochs: int, batches: int, every: int) -> int:
    """Transfer: return `total_steps` for a `OneCycleLR` that is stepped after each optimizer step.

    Each of the `epochs` epochs has so many `batches`, `every` of them make one step, and a last window that is
    not full makes a step, too.
    """
    return epochs * ((batches + every - 1) // every)
