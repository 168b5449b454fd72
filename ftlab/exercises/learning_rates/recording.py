"""What the exercises on schedules share: weights to step, and the rates of each step."""

import torch


def weights(count: int = 1) -> list[torch.Tensor]:
    """Return parameters of one value each."""
    return [torch.ones(1, requires_grad=True) for _ in range(count)]


def recorded(optimizer: torch.optim.Optimizer) -> list[list[float]]:
    """Return a list that gets the rates of each step."""
    rates: list[list[float]] = []
    optimizer.register_step_pre_hook(lambda *_: rates.append([group["lr"] for group in optimizer.param_groups]))
    return rates
