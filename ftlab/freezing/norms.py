"""Norms that hold their statistics: the policy for batch norm inside what is frozen.

`requires_grad` says nothing about the running mean and variance of a batch norm: they are buffers, and every
forward pass in train mode moves them. Eval mode stops that, but the next `model.train()` undoes it. So a held
norm gets a stand-in for its `train` method, as a plain attribute of that one module: `model.train()` calls it,
and it leaves the module in eval mode.

Four ways were compared by running them (`tests/freezing/test_norms.py` keeps the result): a forward pre-hook
that sets the mode is not seen by `torch.compile`; another class for the module cannot be pickled and is no
longer found by its type; a bound method as attribute is lost in pickling without a word. The stand-in below is
an object of a class of this file, so that `copy.deepcopy` and `pickle` carry it along with the module.
"""

from torch import nn


class Held:
    """Stand in for the `train` method of one norm: stay in eval mode, and remember what was asked for."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.asked = module.training

    def __call__(self, mode: bool = True) -> nn.Module:
        """Take the place of `module.train(mode)`."""
        self.asked = mode
        return self.module


def is_held(module: nn.Module) -> bool:
    """Return whether this norm stays in eval mode whatever `train()` asks for."""
    return isinstance(module.__dict__.get("train"), Held)


def hold(module: nn.Module) -> None:
    """Put the norm in eval mode and keep it there; its class and its `state_dict` keys stay the same."""
    if not is_held(module):
        module.train = Held(module)
    module.training = False


def release(module: nn.Module) -> None:
    """Give the norm its own `train` method back, and the mode that was last asked for."""
    if is_held(module):
        module.training = module.train.asked
        del module.train
