"""The two parts beside the whole model: the same logits, in the modes as they are and in eval mode."""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from ftlab.modes import evaluating
from ftlab.random_state import keep_random_state
from ftlab.training.caching.prefix import NotExactError, Split, close, pack


def prove(model: nn.Module, parts: Split, images: Tensor) -> None:
    """Run the two parts beside the model, and refuse them if they give anything else.

    The model is not changed: batch norm counts in copies of its buffers.

    Raises:
        NotExactError: The logits differ.
    """
    for mode in ("the modes as they are", "eval mode"):
        with torch.no_grad(), keep_random_state():
            if mode == "eval mode":
                with evaluating(model):  # the modules of the rest are the model's
                    parts.rest.training, flag = False, parts.rest.training
                    try:
                        whole, cut = _both(model, parts, images)
                    finally:
                        parts.rest.training = flag
            else:
                whole, cut = _both(model, parts, images)
        if len(whole) != len(cut) or not all(map(close, cut, whole)):
            raise NotExactError(f"cut in two, the model gives other numbers in {mode}")


def _both(model: nn.Module, parts: Split, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    with keep_random_state(seed=0):
        whole = functional_call(model, _buffers(model), (images,))
    with keep_random_state(seed=0):
        activations = pack(parts.prefix(images))
        cut = functional_call(parts.rest, _buffers(parts.rest), (activations,))
    return _tensors(whole), _tensors(cut)


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    copies = {id(buffer): buffer.detach().clone() for buffer in module.buffers()}
    return {name: copies[id(buffer)] for name, buffer in module.named_buffers(remove_duplicate=False)}


def _tensors(output: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
