"""The network of the museum: small, and with no two dimensions alike, so that every mistake shows."""

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import nn


def small(num_classes: int = 4, width: int = 6, depth: int = 2) -> nn.Sequential:
    """Build the museum's network: a stem, blocks, a neck and a head.

    Example:
        >>> [name for name, _ in small().named_children()]
        ['stem', 'body', 'pool', 'neck', 'head']
        >>> small()(torch.zeros(2, 3, 16, 16)).shape
        torch.Size([2, 4])
    """
    widths = [width + 2 * step for step in range(depth + 1)]
    blocks = [_block(old, new) for old, new in pairwise(widths)]
    return nn.Sequential(
        OrderedDict(
            stem=_block(3, width),
            body=nn.Sequential(*blocks),
            pool=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            neck=nn.Linear(widths[-1], 12),
            head=nn.Linear(12, num_classes),
        )
    )


def wrapped() -> nn.Module:
    """Build the network inside of another module, as DataParallel has it."""
    return nn.ModuleDict({"module": small()})


def trained() -> nn.Sequential:
    """Return the network with the parameters that are in the files; they are always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = small()
        for _ in range(2):
            model(torch.randn(8, 3, 16, 16))  # the batch norms see something
    return model


def _block(old: int, new: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(conv=nn.Conv2d(old, new, 3, padding=1, bias=False), norm=nn.BatchNorm2d(new), act=nn.ReLU())
    )
