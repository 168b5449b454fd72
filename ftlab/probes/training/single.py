"""A batch of one image."""

import numpy as np
import torch
from torch import nn

from ftlab.probes import probe
from ftlab.probes._outcomes import raises


@probe("`unsqueeze(0)`, `[None]`, `view(1, ...)` and NumPy's `newaxis` give the same batch, and copy nothing.")
def four_ways_to_a_batch() -> bool:
    array = np.arange(24).reshape(4, 3, 2)
    tensor = torch.from_numpy(array)
    ways = tensor.unsqueeze(0), tensor[None], tensor.view(1, *tensor.shape), torch.from_numpy(array[np.newaxis])
    return all(torch.equal(way, ways[0]) and way.data_ptr() == tensor.data_ptr() for way in ways)


@probe("`view` keeps the order in memory, `permute` moves a dimension: only the shape is the same.")
def view_scrambles() -> bool:
    image = torch.arange(24).view(2, 4, 3)  # H, W, C
    moved = image.permute(2, 0, 1)
    scrambled = image.view(3, 2, 4)
    return moved.shape == scrambled.shape and moved[1, 0, 0] == image[0, 0, 1] != scrambled[1, 0, 0]


@probe("A convolution refuses an image with its channels last, but not one of height 3.")
def channels_last_are_refused() -> bool:
    layer = nn.Conv2d(3, 1, 3)
    refused = raises(RuntimeError, lambda: layer(torch.zeros(1, 48, 64, 3)))
    return refused and layer(torch.zeros(1, 3, 64, 3)).ndim == 4


@probe("torch refuses an array with negative strides, as `image[:, :, ::-1]` is one; a copy is taken.")
def negative_strides_are_refused() -> bool:
    flipped = np.zeros((2, 2, 3), np.uint8)[:, :, ::-1]
    return (
        raises(ValueError, lambda: torch.from_numpy(flipped)) and torch.from_numpy(flipped.copy()).numel() == 12
    )


@probe("`squeeze()` takes away every dimension of size 1, `squeeze(1)` that one only, and only if it is 1.")
def squeeze_eats_the_batch() -> bool:
    one, four = torch.zeros(1, 1), torch.zeros(4, 2)
    return one.squeeze().shape == () and one.squeeze(1).shape == (1,) and four.squeeze(1).shape == (4, 2)
