"""The two parts beside the whole model: the same logits, in the modes as they are and in eval mode."""

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ftlab.modes import evaluating
from ftlab.random_state import keep_random_state
from ftlab.training.caching.prefix import Rest, Split
from ftlab.training.caching.walk import NotExactError, close, keep_buffers


def prove(model: nn.Module, parts: Split, images: Tensor) -> tuple[Tensor, ...]:
    """Run the two parts beside the model, and refuse them if they give anything else.

    The model is not changed: its buffers are put back.

    Returns:
        The activations of these images.

    Raises:
        NotExactError: The logits differ.
    """
    with torch.no_grad(), keep_random_state():
        activations = parts.prefix(images)  # once: they have to be right in both modes
        if not _agree(model, parts.rest, images, activations):
            raise NotExactError("cut in two, the model gives other numbers in train mode")
        with evaluating(model), evaluating(parts.rest):
            if not _agree(model, parts.rest, images, activations):
                raise NotExactError("cut in two, the model gives other numbers in eval mode")
    return activations


def _agree(model: nn.Module, rest: Rest, images: Tensor, activations: tuple[Tensor, ...]) -> bool:
    with keep_buffers(model), keep_random_state(seed=0):
        whole = _tensors(model(images))
    with keep_buffers(model), keep_random_state(seed=0):
        # Copies, since a rest that begins in place writes into what it is given. Not packed: the
        # strides stay the same and so does each bit, which batch norm on two images would enlarge.
        cut = _tensors(rest.unpacked(*[each.clone() for each in activations]))
    return len(whole) == len(cut) and all(map(close, cut, whole))


def _tensors(output: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
