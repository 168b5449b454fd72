"""What the panel runs and counts where the learner has handed over nothing: a batch, a loss, a copy."""

import copy
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


def random_batch(model: nn.Module) -> torch.Tensor:
    """Return random numbers that most models take: 4 images, or 4 rows of features; the same ones each time.

    Raises:
        ValueError: If the model has neither a convolution on images nor a linear layer.

    Example:
        >>> random_batch(nn.Sequential(nn.Conv2d(1, 8, 3))).shape
        torch.Size([4, 1, 96, 96])
    """
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)), None)
    if first is None:
        kind = type(model).__name__
        raise ValueError(f"what does a {kind} take? Hand over a batch: FreezePanel(model, example=batch)")
    side = getattr(model, "image_size", 96)  # a vision transformer takes one size only
    shape = (4, first.in_features) if isinstance(first, nn.Linear) else (4, first.in_channels, side, side)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(first.weight.device)


def inputs(example: torch.Tensor | tuple) -> tuple:
    """Return the arguments of the model: a batch, or several in a tuple."""
    return example if isinstance(example, tuple) else (example,)


def loss(output: Any) -> torch.Tensor:
    """Return a loss for what the model gave: its first class is right for row 0, its second for row 1, ..."""
    output = output if isinstance(output, torch.Tensor) else output[0]  # Inception has a second head
    if output.ndim != 2:
        return output.float().mean()
    return F.cross_entropy(output, torch.arange(len(output), device=output.device) % output.shape[1])


def share_memory(model: nn.Module) -> nn.Module:
    """Return a copy of the model with flags of its own over the same memory: it costs milliseconds.

    It may be run in another thread while the flags of the model itself change. Its forward hooks are gone: they
    would show the learner's own code tensors without values.
    """
    memo: dict[int, torch.Tensor] = {id(b): b.detach() for b in model.buffers()}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach(), parameter.requires_grad)
    copied = copy.deepcopy(model, memo)
    for module in copied.modules():
        module._forward_hooks.clear()
    return copied
