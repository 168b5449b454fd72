"""Channels last: the order of an image's numbers in memory that a processor's convolutions are quickest with."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from ftlab.modes import keep_modes
from ftlab.random_state import keep_random_state
from ftlab.training.caching.walk import close, keep_buffers


def in_format(images: Tensor) -> Tensor:
    """Return the same images with the channels last in memory; what is no image (N, C, H, W) stays as it is."""
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images


def takes_channels_last(model: nn.Module, run: Callable[..., Any], *images: Tensor) -> bool:
    """Return whether `run` has convolutions, and gives the same with the channels last in memory.

    The model is not changed, nor the random state. Measured on a processor, see benchmarks/memory_format.py: a
    training step then takes 0.6 to 1.0 of the time, in all families of torchvision that were tried.

    Args:
        model: Whose modules `run` uses.
        run: Takes the images to what is compared: the forward pass, or a part of it.
        images: A few of them, on the device where they will be; they are not changed.
    """
    if not any(isinstance(module, nn.Conv2d) for module in model.modules()):
        return False
    given = [each.clone() for each in images], [in_format(each.clone()) for each in images]
    try:  # a `view` in the forward may not take it
        plain, last = (_outputs(model, run, each) for each in given)
    except RuntimeError:
        return False
    return len(plain) == len(last) and all(map(close, last, plain))


def _outputs(model: nn.Module, run: Callable[..., Any], images: list[Tensor]) -> list[Tensor]:
    """Return what comes out, with batch norm held: over a few images it would enlarge what rounding changes."""
    with torch.no_grad(), keep_modes(model), keep_buffers(model), keep_random_state(seed=0):
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.training = False
        return [leaf for leaf in tree_leaves(run(*images)) if isinstance(leaf, Tensor)]
