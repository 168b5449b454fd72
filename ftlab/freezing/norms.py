"""Norms that hold their statistics: the policy for batch norm inside what is frozen.

`requires_grad` says nothing about the running mean and variance of a batch norm: they are buffers, and every
forward pass in train mode moves them. Eval mode stops that, but the next `model.train()` undoes it. So a held
norm gets a stand-in for its `train` method, as a plain attribute of that one module: `model.train()` calls it,
and it leaves the module in eval mode.

Four ways were compared by running them (`tests/test_freezing_norms.py` keeps the result): a forward pre-hook
that sets the mode is not seen by a model that `torch.compile` has compiled before; another class for the module
cannot be pickled, and the module is no longer found by its type; a bound method as attribute is lost in pickling
without a word. The stand-in below is an object of a class of this file, so that `copy.deepcopy` and `pickle`
carry it along.
"""

from torch import nn


class Held:
    """Stand in for the `train` method of one norm: stay in eval mode, and remember what was asked for."""

    def __init__(self, module: nn.Module, around: nn.Module | None) -> None:
        self.module = module
        self.asked = module.training
        # a mode that was set by hand, against the module around it, counts until train() or eval() is called
        self.on_its_own = around is None or module.training != around.training

    def __call__(self, mode: bool = True) -> nn.Module:
        """Take the place of `module.train(mode)`."""
        self.asked, self.on_its_own = mode, False
        return self.module


def is_held(module: nn.Module) -> bool:
    """Return whether this norm stays in eval mode whatever `train()` asks for."""
    return isinstance(module.__dict__.get("train"), Held)


def hold(module: nn.Module, around: nn.Module | None = None) -> None:
    """Put the norm in eval mode and keep it there; its class and its `state_dict` keys stay the same.

    Args:
        module: The norm.
        around: The module it lies in; None if it is the whole model.
    """
    if not is_held(module):
        module.train = Held(module, around)
    module.training = False


def release(module: nn.Module, around: nn.Module | None = None) -> None:
    """Give the norm its own `train` method back, and the mode of the module around it."""
    if is_held(module):
        follows = around is not None and not module.train.on_its_own
        module.training = around.training if follows else module.train.asked
        del module.train
