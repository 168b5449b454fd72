"""The two parts beside the whole model: the same logits, in the modes as they are and in eval mode."""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from ftlab.modes import evaluating
from ftlab.random_state import keep_random_state
from ftlab.training.caching.prefix import NotExactError, Split, close, pack


def prove(model: nn.Module, parts: Split, images: Tensor) -> tuple[Tensor, ...]:
    """Run the two parts beside the model, and refuse them if they give anything else.

    The model is not changed: batch norm counts in copies of its buffers.

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


def _agree(model: nn.Module, rest: nn.Module, images: Tensor, activations: tuple[Tensor, ...]) -> bool:
    with keep_random_state(seed=0):
        whole = functional_call(model, _buffers(model), (images,))
    with keep_random_state(seed=0):
        # copies, since a rest that begins with an operation in place writes into what it is given
        cut = functional_call(rest, _buffers(rest), (pack(tuple(each.clone() for each in activations)),))
    whole, cut = _tensors(whole), _tensors(cut)
    return len(whole) == len(cut) and all(map(close, cut, whole))


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    copies = {id(buffer): buffer.detach().clone() for buffer in module.buffers()}
    return {name: copies[id(buffer)] for name, buffer in module.named_buffers(remove_duplicate=False)}


def _tensors(output: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
