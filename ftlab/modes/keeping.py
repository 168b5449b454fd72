"""Train and eval mode: a flag on every module, not one on the model."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


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
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
