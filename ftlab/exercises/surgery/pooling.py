"""A pool that keeps two numbers, the network around it, and the loss that fits."""

import torch
from torch import nn
from torch.nn import functional as F

from ftlab.exercises.behaviour import as_names, below, expect_moves, images
from ftlab.exercises.core import Mistake, Wrong, exercise
from ftlab.exercises.models import SmallResNet


def check_pool_both(answer):
    """Maps of 3 and of 5 channels: shape, averages and maxima."""
    for channels in (3, 5):
        maps = torch.randn(2, channels, 4, 6)
        pooled = answer(maps)
        if not isinstance(pooled, torch.Tensor):
            ask = "Which function makes one tensor of two?"
            raise Wrong(f"What came back is of type `{type(pooled).__name__}`, not a tensor.", ask=ask)
        if tuple(pooled.shape) != (2, 2 * channels, 1, 1):
            text = f"For maps of the shape {tuple(maps.shape)} you return {tuple(pooled.shape)}."
            raise Wrong(text, ask="Along which dimension do the channels lie?")
        average, maximum = maps.mean((2, 3)), maps.amax((2, 3))
        first, second = pooled[:, :channels, 0, 0], pooled[:, channels:, 0, 0]
        if torch.allclose(first, second):
            raise Wrong("Both halves are equal.", ask="What does each of the two pools keep of a map?")
        if not torch.allclose(first, average) or not torch.allclose(second, maximum):
            text = "The first half are not the averages, or the second half not the maxima."
            raise Wrong(text, ask="What comes first, and over what is it taken?")


def _two_averages(features):
    average = nn.AdaptiveAvgPool2d(1)
    also = nn.AdaptiveAvgPool2d(1)
    return torch.cat([average(features), also(features), 1])


def _bracket_only(features):
    average = nn.AdaptiveAvgPool2d(1)
    also = nn.AdaptiveAvgPool2d(1)
    return torch.cat([average(features), also(features)], 1)


def _along_the_batch(features):
    return torch.cat([F.adaptive_avg_pool2d(features, 1), F.adaptive_max_pool2d(features, 1)])


def _added(features):
    return F.adaptive_avg_pool2d(features, 1) + F.adaptive_max_pool2d(features, 1)


def _maximum_first(features):
    return torch.cat([F.adaptive_max_pool2d(features, 1), F.adaptive_avg_pool2d(features, 1)], 1)


def _by_function(features):
    return torch.cat([F.adaptive_avg_pool2d(features, 1), F.adaptive_max_pool2d(features, 1)], dim=1)


def _by_numbers(features):
    return torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1)[:, :, None, None]


@exercise(
    check=check_pool_both,
    hints=[
        "Two slips: a bracket, and one word. Run it: what does `torch.cat` say about element 2?",
        "`torch.cat(tensors, dim)`: the list ends before the dimension.",
        "The second pool has the same name as the first. Which other one is there?",
    ],
    also_right=[_by_function, _by_numbers],
    mistakes=[
        Mistake(_two_averages, says="expected Tensor as element 2"),
        Mistake(_bracket_only, says="Both halves are equal"),
        Mistake(_along_the_batch, says="you return (4, 3, 1, 1)"),
        Mistake(_added, says="you return (2, 3, 1, 1)"),
        Mistake(_maximum_first, says="The first half are not the averages"),
    ],
    broken=_two_averages,
    remember="Two pools give twice the channels: the next layer has to know.",
)
def pool_both(features: torch.Tensor) -> torch.Tensor:
    """Repair: return the averages and, after them, the maxima of every map: (N, 2 C, 1, 1) for (N, C, H, W)."""
    average = nn.AdaptiveAvgPool2d(1)
    maximum = nn.AdaptiveMaxPool2d(1)
    return torch.cat([average(features), maximum(features)], 1)


class _Both(nn.Module):
    def forward(self, features):
        return _by_function(features)


def check_rebuild(answer):
    """A small ResNet: what you return, the shape and kind of its output, and what training moves."""
    model = SmallResNet()
    new = answer(model, _Both(), 3)
    if not isinstance(new, nn.Module):
        raise Wrong(f"You returned a `{type(new).__name__}`.", ask="What should the caller get?")
    if not any(isinstance(module, _Both) for module in new.modules()):
        raise Wrong("`pool` is nowhere in the network.", ask="Which part of a ResNet pools?")
    try:
        scores = new.eval()(images())
    except RuntimeError as error:
        raise Wrong(f"The new network raises `{error}`.", ask="How many numbers does `pool` give?") from None
    if scores.shape != (4, 3):
        raise Wrong(f"For 4 images and 3 classes it gives {tuple(scores.shape)}.", ask="What is the last layer?")
    if torch.allclose(scores.sum(1), torch.ones(4), atol=1e-4):
        text = "The outputs of every image add up to 1: they are probabilities already."
        raise Wrong(text, ask="What does `cross_entropy` do first with what it is given?")
    expect_moves(new, below(new, "fc"))


def _slips(model, pool, num_classes):
    model.avgpool = pool
    model.fc = nn.Sequential(nn.Linear(model.fc.in_features, num_classes), nn.Softmax(dim=1))
    model.requires_grad_(False)


def _freeze_last(model, pool, num_classes):
    model.avgpool = pool
    model.fc = nn.Linear(2 * model.fc.in_features, num_classes)
    return model.requires_grad_(False)


def _not_doubled(model, pool, num_classes):
    model.requires_grad_(False)
    model.avgpool = pool
    model.fc = nn.Linear(model.fc.in_features, num_classes)
    return model


def _probabilities(model, pool, num_classes):
    model.requires_grad_(False)
    model.avgpool = pool
    model.fc = nn.Sequential(nn.Linear(2 * model.fc.in_features, num_classes), nn.Softmax(dim=1))
    return model


def _nothing_frozen(model, pool, num_classes):
    model.avgpool = pool
    model.fc = nn.Linear(2 * model.fc.in_features, num_classes)
    return model


def _without_pool(model, pool, num_classes):
    model.requires_grad_(False)
    model.fc = nn.Linear(model.fc.in_features, num_classes)
    return model


def _two_layers(model, pool, num_classes):
    for parameter in model.parameters():
        parameter.requires_grad = False
    inputs, model.avgpool = 2 * model.fc.in_features, pool
    model.fc = nn.Sequential(
        nn.BatchNorm1d(inputs), nn.Dropout(0.5), nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, num_classes)
    )
    nn.init.normal_(model.fc[2].bias, std=0.1)
    return model


def _with_log_softmax(model, pool, num_classes):
    model.requires_grad_(False)
    model.avgpool = pool
    head = nn.Linear(2 * model.fc.in_features, num_classes)
    model.fc = nn.Sequential(head, nn.LogSoftmax(dim=1))
    return model


@exercise(
    check=check_rebuild,
    hints=[
        "Four slips: one of order, one of size, one layer too many, and one missing line.",
        "A new layer is born trainable. What does freezing everything afterwards do to it?",
        "`pool` gives twice the channels, and `cross_entropy` wants logits.",
    ],
    also_right=[_two_layers, _with_log_softmax],
    mistakes=[
        Mistake(_slips, says="It gave back `None`"),
        Mistake(_freeze_last, says="moved nothing at all"),
        Mistake(_not_doubled, says="mat1 and mat2"),
        Mistake(_probabilities, says="probabilities already"),
        Mistake(_nothing_frozen, says="still move"),
        Mistake(_without_pool, says="`pool` is nowhere"),
    ],
    broken=_slips,
    remember="Freeze, then replace, size it from the old head, give logits, return the model.",
)
def rebuild(model: nn.Module, pool: nn.Module, num_classes: int) -> nn.Module:
    """Repair: return `model`, a ResNet, as a frozen backbone with another pool and a new head for `num_classes`.

    `pool` gives twice the channels that it gets, and takes the place of `model.avgpool`. Only the head `model.fc`
    is to learn, with `cross_entropy`.
    """
    model.requires_grad_(False)
    inputs = 2 * model.fc.in_features
    model.avgpool = pool
    model.fc = nn.Linear(inputs, num_classes)
    return model


_PAIRS = {
    "log_softmax, nll_loss": lambda x, y: F.nll_loss(F.log_softmax(x, 1), y),
    "log_softmax, cross_entropy": lambda x, y: F.cross_entropy(F.log_softmax(x, 1), y),
    "softmax, cross_entropy": lambda x, y: F.cross_entropy(F.softmax(x, 1), y),
    "logits, nll_loss": lambda x, y: F.nll_loss(x, y),
    "softmax, nll_loss": lambda x, y: F.nll_loss(F.softmax(x, 1), y),
}
_WHY = {
    "softmax, cross_entropy": "Its loss of a sure and right answer is not near 0.",
    "logits, nll_loss": "Its loss falls below 0.",
    "softmax, nll_loss": "Its loss is never above 0.",
    "log_softmax, nll_loss": "That is how `cross_entropy` is made.",
    "log_softmax, cross_entropy": "Logarithms of probabilities add up to 1 already, so nothing happens twice.",
}


def check_same_training(answer):
    """The gradient of each pair on random logits, against that of logits with cross_entropy."""
    names = as_names(answer(), _PAIRS)
    logits, targets = torch.randn(8, 3) * 2, torch.arange(8) % 3
    wanted = _gradient(F.cross_entropy, logits, targets)
    same = {name for name, loss in _PAIRS.items() if torch.allclose(_gradient(loss, logits, targets), wanted)}
    if extra := names - same:
        first = sorted(extra)[0]
        text = f"`{first}` gives another gradient. {_WHY[first]}"
        raise Wrong(
            text, ask="What does each loss do with the numbers before it takes the one of the right class?"
        )
    if missing := same - names:
        count = "one more pair trains" if len(missing) == 1 else f"{len(missing)} pairs train"
        text = (
            f"What you name is right, but {count} exactly the same."
            if names
            else f"But {count} exactly the same."
        )
        raise Wrong(text, ask="What is the softmax of a log-softmax?")


def _gradient(loss, logits, targets):
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(loss(logits, targets), logits)[0]


def _sorted_list():
    return ["log_softmax, cross_entropy", "log_softmax, nll_loss"]


def _all_log_softmax():
    losses = ["nll_loss", "cross_entropy"]
    return {f"log_softmax, {loss}" for loss in losses}


def _textbook_only():
    return {"log_softmax, nll_loss"}


def _softmax_is_fine():
    return {"log_softmax, nll_loss", "log_softmax, cross_entropy", "softmax, cross_entropy"}


def _nll_takes_anything():
    return {"log_softmax, nll_loss", "logits, nll_loss"}


def _probabilities_for_nll():
    return {"softmax, nll_loss"}


def _nothing():
    return set()


@exercise(
    check=check_same_training,
    hints=[
        "`cross_entropy(x, y)` is `nll_loss(log_softmax(x), y)`. Put each output in the place of `x`.",
        "The softmax of numbers whose exponentials add up to 1: what does it divide by?",
    ],
    also_right=[_sorted_list, _all_log_softmax],
    mistakes=[
        Mistake(_textbook_only, says="one more pair trains exactly the same"),
        Mistake(_softmax_is_fine, says="not near 0"),
        Mistake(_nll_takes_anything, says="falls below 0"),
        Mistake(_probabilities_for_nll, says="never above 0"),
        Mistake(_nothing, says="2 pairs train exactly the same"),
    ],
    remember="Return logits and use `cross_entropy`; a softmax before it is the bug that trains, badly.",
)
def same_training() -> set[str]:
    """Choose: which pairs of last layer and loss train exactly as logits with `cross_entropy` do?

    Name them from: "log_softmax, nll_loss", "log_softmax, cross_entropy", "softmax, cross_entropy",
    "logits, nll_loss", "softmax, nll_loss".
    """
    return {"log_softmax, nll_loss", "log_softmax, cross_entropy"}
