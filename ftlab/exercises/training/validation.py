"""A validation: its number, what it keeps in memory, and the model afterwards."""

import torch
from torch import nn
from torch.nn import functional as F

from ftlab.exercises.behaviour import as_number, images, same_model
from ftlab.exercises.core import Mistake, Wrong, exercise
from ftlab.exercises.models import SmallResNet
from ftlab.modes import evaluating, memory_of
from ftlab.training import memory_growth


def check_mean_loss(answer):
    """The loss over 10 images in batches of 4, 4 and 2; tensors and modes afterwards; the memory it takes."""
    model = SmallResNet()
    model.fc = nn.Sequential(nn.Dropout(0.5), model.fc)
    batches = [(images(count), torch.randint(3, (count,))) for count in (4, 4, 2)]
    before = _copy_of(model)
    wanted, per_batch = _losses(model, batches)
    value = answer(model, batches)
    if not torch.is_grad_enabled():
        text = (
            "Afterwards autograd is switched off everywhere: whoever trains next is told that there is no graph."
        )
        raise Wrong(text, ask="Who switches it on again? A `with` does that by itself.")
    value = as_number(value, "loss")
    if not abs(value - wanted) <= 1e-4:  # nan is not close to anything
        near = abs(value - sum(per_batch) / 3) < 1e-4
        what = "the mean of three means" if near else "not the mean over the ten images in eval mode"
        ask = "Do two images in the last batch count as much as four in the others?"
        raise Wrong(
            f"You found {value:.4f}: {what}.", ask=ask if near else "What is divided by what? Is dropout off?"
        )
    changed = same_model(model, before)
    if "model.training" in changed:
        raise Wrong("Afterwards the model is still in eval mode.", ask="In which mode was it before?")
    if changed:
        raise Wrong(f"Afterwards `{changed[0]}` is not as it was.", ask="Who has changed it, while only looking?")
    _expect_no_growth(answer, model)


def _copy_of(model: nn.Module) -> nn.Module:
    copied = SmallResNet()
    copied.fc = nn.Sequential(nn.Dropout(0.5), copied.fc)
    copied.load_state_dict(model.state_dict())
    return copied


def _losses(model: nn.Module, batches: list) -> tuple[float, list[float]]:
    with evaluating(model):
        losses = [F.cross_entropy(model(x), y).item() for x, y in batches]
    counts = [len(y) for _, y in batches]
    return sum(n * loss for n, loss in zip(counts, losses, strict=True)) / sum(counts), losses


def _expect_no_growth(answer, model: nn.Module) -> None:
    batches = [(images(), torch.randint(3, (4,))) for _ in range(4)]
    growth = memory_growth(lambda some: answer(model, some), batches)
    if growth.grows:
        text = f"Each further batch keeps {growth.per_batch:,.0f} bytes for as long as your result lives."
        raise Wrong(text, ask="What does a loss hold on to, and what does its number?")
    one, more = growth.peak[0], growth.peak[-1]
    if more > 1.5 * one:
        text = f"At its peak one batch takes {one:,} bytes, and four take {more:,}."
        ask = "What of a batch is still there when the last one goes through: its graph, or its images?"
        raise Wrong(text, ask=ask)
    with evaluating(model):
        enough = memory_of(model, batches[0][0], torch.no_grad)[1]
    if one > 1.1 * enough + 1000:
        text = f"A batch takes {one:,} bytes at its peak, and {enough:,} are enough without a graph or a copy."
        raise Wrong(text, ask="Who says that there will be no backward pass?")


def _sums_losses(model, batches):
    model.eval()
    total = 0
    for x, y in batches:
        total += nn.functional.cross_entropy(model(x), y)
    return total / len(batches)


def _with_evaluating(model, batches):
    with evaluating(model):
        losses = [F.cross_entropy(model(x), y, reduction="none") for x, y in batches]
    return torch.cat(losses).mean()


@torch.no_grad()
def _decorated(model, batches):
    model.eval()
    total = count = 0
    for x, y in batches:
        total += F.cross_entropy(model(x), y).item() * len(y)
        count += len(y)
    model.train()
    return total / count


def _keeps_the_graphs(model, batches):
    model.eval()
    total = sum(F.cross_entropy(model(x), y, reduction="sum") for x, y in batches)
    model.train()
    return total / sum(len(y) for _, y in batches)


def _number_but_graph(model, batches):
    model.eval()
    total = sum(F.cross_entropy(model(x), y, reduction="sum").item() for x, y in batches)
    model.train()
    return total / sum(len(y) for _, y in batches)


def _stays_in_eval(model, batches):
    model.eval()
    with torch.no_grad():
        total = sum(F.cross_entropy(model(x), y, reduction="sum").item() for x, y in batches)
    return total / sum(len(y) for _, y in batches)


def _mean_of_means(model, batches):
    model.eval()
    with torch.no_grad():
        total = sum(F.cross_entropy(model(x), y).item() for x, y in batches)
    model.train()
    return total / len(batches)


def _switched_off(model, batches):
    torch.set_grad_enabled(False)
    model.eval()
    total = sum(F.cross_entropy(model(x), y, reduction="sum").item() for x, y in batches)
    model.train()
    return total / sum(len(y) for _, y in batches)


def _never_in_eval(model, batches):
    with torch.no_grad():
        total = sum(F.cross_entropy(model(x), y, reduction="sum").item() for x, y in batches)
    return total / sum(len(y) for _, y in batches)


def _empties_the_cache(model, batches):
    model.eval()
    total = 0
    for x, y in batches:
        total += F.cross_entropy(model(x), y, reduction="sum")
        torch.cuda.empty_cache()
    model.train()
    return total / sum(len(y) for _, y in batches)


@exercise(
    check=check_mean_loss,
    broken=_sums_losses,
    hints=[
        "Four slips: what the sum keeps, what backward needs, how the last batch counts, how the model is left.",
        '`reduction="sum"` gives the sum over the images of a batch; divide by the number of images at the end.',
        "`torch.no_grad()` around the loop, `.item()` on each loss, and `model.train()` at the end.",
    ],
    also_right=[_with_evaluating, _decorated],
    mistakes=[
        Mistake(_keeps_the_graphs, says="Each further batch keeps"),
        Mistake(_number_but_graph, says="at its peak"),
        Mistake(_stays_in_eval, says="still in eval mode"),
        Mistake(_mean_of_means, says="the mean of three means"),
        Mistake(_switched_off, says="autograd is switched off everywhere"),
        Mistake(_never_in_eval, says="not the mean over the ten images in eval mode"),
        Mistake(_empties_the_cache, says="Each further batch keeps"),
    ],
    remember="eval for the numbers, no_grad for the memory, .item() for the sum, train() to go on.",
)
def mean_loss(model: nn.Module, batches: list) -> float:
    """Repair: return the mean cross entropy over all images of `batches`, with the model in eval mode.

    The model was in train mode, and is again afterwards. However many batches there are, no more memory is taken
    than for one. The last batch is smaller than the others.
    """
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for x, y in batches:
            total += nn.functional.cross_entropy(model(x), y, reduction="sum").item()
            count += len(y)
    model.train()
    return total / count
