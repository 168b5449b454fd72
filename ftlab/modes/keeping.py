"""Change the mode for a while, and put it back as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ftlab.given import expect


@contextmanager
def keep_modes(model: nn.Module) -> Iterator[None]:
    """Put the mode of every module back as it was, whatever happens inside.

    The trap: `model.train()` after a validation puts *every* module in train mode, also the batch norm that was
    held in eval mode on purpose. This puts back what was there, module by module.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2).eval())
        >>> with keep_modes(model):
        ...     _ = model.eval()
        >>> [module.training for module in model.modules()]
        [True, True, False]
    """
    expect(model, nn.Module, "the model", "with keep_modes(model):")
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put `model` in eval mode and keep no graph; afterwards all is as before, after an error too.

    Eval mode decides the numbers, no_grad decides the memory: a validation wants both. What comes out may be
    used to train something else, a head on stored features, say.

    The trap: results of `torch.inference_mode` may not; autograd refuses them. That is why it is not used here.

    Args:
        model: Its parameters and buffers are not changed by a forward pass inside.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
        >>> with evaluating(model):
        ...     output = model(torch.ones(1, 2))
        >>> output.requires_grad, model.training, torch.is_grad_enabled()
        (False, True, True)
    """
    with keep_modes(model), torch.no_grad():
        model.eval()
        yield model
