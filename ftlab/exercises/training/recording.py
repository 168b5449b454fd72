"""An optimizer that notes what it uses, and something small to train."""

import torch
from torch import nn
from torch.optim import SGD


class Recorded(SGD):
    """SGD that notes at each step the norm and the values of the gradients that it uses."""

    def __init__(self, parameters, **options):
        super().__init__(parameters, **options)
        self.used = []

    def step(self, closure=None):
        """Note the gradients, and make the step; those of a closure come first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        self.used.append(torch.cat([g.flatten() for g in grads]).clone() if grads else torch.zeros(1))
        super().step()
        return loss


def small_model() -> nn.Module:
    """Return a network with two layers."""
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def small_batches(count: int = 4, size: int = 5, scale: float = 1.0) -> list:
    """Return batches of inputs and targets for it."""
    return [(scale * torch.randn(size, 6), torch.randint(3, (size,))) for _ in range(count)]
