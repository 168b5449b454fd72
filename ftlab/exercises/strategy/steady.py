"""What is the same in each epoch, so that it may be stored."""

import torch
from torch import Tensor, nn

from ftlab.exercises.behaviour import as_names
from ftlab.exercises.core import Mistake, Wrong, exercise

_SITUATIONS = {
    "resize and normalise": "they are the same in each epoch",
    "random crop": "the images themselves change",
    "dropout in the frozen part, train mode": "other numbers are dropped each time",
    "batch norm in the frozen part, train mode": "they depend on the other images of the batch",
    "batch norm in the frozen part, eval mode": "they are the same in each epoch",
    "the last block learns": "what comes before the last block stays the same",
}


def _features(situation: str, epoch: int) -> Tensor:
    """Return what the frozen part gives for three images in one epoch."""
    torch.manual_seed(0)
    images = torch.randn(6, 3, 8, 8)
    layer = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).requires_grad_(False).eval()
    torch.manual_seed(1 + epoch)
    if situation == "random crop":
        row = int(torch.randint(3, ())) if epoch else 1
        images = images[:, :, row : row + 6]
    if situation.startswith("dropout"):
        layer[2].train()
    if situation.startswith("batch norm") and "train" in situation:
        layer[1].train()
    order = torch.randperm(6)
    return torch.cat([layer(part) for part in images[order].split(3)])[order.argsort()]


def _is_steady(situation: str) -> bool:
    first = _features(situation, 0)
    return all(torch.allclose(_features(situation, epoch), first, atol=1e-5) for epoch in range(1, 8))


def check_may_be_stored(answer):
    """What a frozen convolution with batch norm and dropout gives in eight epochs, in each of the situations."""
    given = as_names(answer(), list(_SITUATIONS))
    steady = {situation for situation in _SITUATIONS if _is_steady(situation)}
    for situation in _SITUATIONS:  # in the order of the task
        if situation in given - steady:
            text = f"With `{situation}` the features differ from epoch to epoch: {_SITUATIONS[situation]}."
            raise Wrong(text, ask="What would training see that stored features do not show?")
        if situation in steady - given:
            text = f"With `{situation}` the features came out the same in all eight epochs."
            raise Wrong(
                text, ask="Is there anything random, or anything that learns, before the place of storing?"
            )


def _as_a_list():
    return ["the last block learns", "resize and normalise", "batch norm in the frozen part, eval mode"]


def _all_that_is_frozen():
    return set(_SITUATIONS) - {"random crop"}


def _no_batch_norm():
    return {"resize and normalise", "the last block learns"}


def _head_only():
    return {"resize and normalise", "batch norm in the frozen part, eval mode"}


def _everything():
    return set(_SITUATIONS)


@exercise(
    check=check_may_be_stored,
    hints=[
        "Ask of each: is what comes out for one image the same in epoch 1 and in epoch 2?",
        "A flag stops gradients. It stops neither dropout nor batch norm; those listen to the mode.",
        "Whatever learns may lie *behind* the place at which is stored.",
    ],
    also_right=[_as_a_list],
    mistakes=[
        Mistake(_all_that_is_frozen, says="other numbers are dropped each time"),
        Mistake(_no_batch_norm, says="`batch norm in the frozen part, eval mode` the features came out the same"),
        Mistake(_head_only, says="`the last block learns` the features came out the same"),
        Mistake(_everything, says="the images themselves change"),
    ],
    remember="Store what is the same in each epoch: frozen, in eval mode, from images that do not change.",
)
def may_be_stored() -> set[str]:
    """Predict: in which situations may the features of a frozen part be computed once, and stored for all epochs?

    In all of them `requires_grad` is False in the frozen part. Name them from: "resize and normalise",
    "random crop", "dropout in the frozen part, train mode", "batch norm in the frozen part, train mode",
    "batch norm in the frozen part, eval mode", "the last block learns" (stored is what comes before it).
    """
    return {"resize and normalise", "batch norm in the frozen part, eval mode", "the last block learns"}
