"""The parts of a model that a table shows as rows: by name, none with more than half of all."""

from collections.abc import Mapping
from typing import TypeVar

from torch import nn

Item = TypeVar("Item")


def by_part(items: Mapping[str, Item]) -> dict[str, list[Item]]:
    """Return the items by part of the model; a part that has more than half of them is split up.

    Args:
        items: Anything by the name that it has in the model: tensors, modules.

    Example:
        >>> by_part({"stem.weight": 1, "body.0.weight": 2, "body.0.bias": 3, "body.1.bias": 4, "head.bias": 5})
        {'stem': [1], 'body.0': [2, 3], 'body.1': [4], 'head': [5]}
    """
    parts: dict[str, list[Item]] = {}
    for name, item in items.items():
        parts.setdefault(_part(name, list(items)), []).append(item)
    return parts


def part_names(model: nn.Module) -> list[str]:
    """Return the names of the parts that have parameters, from the image to the head; the model is not changed.

    The trap: a module knows only the order in which its parts were made. In every classification model of
    torchvision that is the way of the image, and the last part is the head or holds it.

    Example:
        >>> from torchvision import models
        >>> part_names(models.resnet18())
        ['conv1', 'bn1', 'layer1', 'layer2', 'layer3', 'layer4', 'fc']
        >>> part_names(models.squeezenet1_1())[-2:]
        ['features.12', 'classifier']
    """
    return list(by_part(dict(model.named_parameters())))


def _part(name: str, names: list[str]) -> str:
    """Return the shortest beginning of a name that at most half of all names share."""
    pieces = name.split(".")
    for depth in range(1, len(pieces)):
        part = ".".join(pieces[:depth])
        if 2 * sum(other.startswith(part + ".") for other in names) <= len(names):
            return part
    return name
