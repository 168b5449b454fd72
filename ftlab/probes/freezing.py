"""What lesson 05 says about freezing."""

import torch
from torch import nn

from ftlab.probes import probe


def _one_step(optimizer: torch.optim.Optimizer, model: nn.Module, *, set_to_none: bool = True) -> None:
    optimizer.zero_grad(set_to_none=set_to_none)
    model(torch.randn(4, 3)).square().mean().backward()
    optimizer.step()


@probe("The attribute `model.requires_grad = False` freezes nothing, and nothing is said.")
def attribute_freezes_nothing() -> bool:
    model = nn.Linear(2, 2)
    model.requires_grad = False
    return all(parameter.requires_grad for parameter in model.parameters())


@probe("In train mode the statistics of a frozen batch norm move.")
def frozen_statistics_move() -> bool:
    norm = nn.BatchNorm1d(3).requires_grad_(False)
    norm(torch.randn(4, 3) + 5)
    return bool(norm.running_mean.abs().max() > 0)


@probe("`model.train()` puts a batch norm back into train mode that was put into eval mode.")
def train_undoes_eval() -> bool:
    model = nn.Sequential(nn.BatchNorm1d(3).eval())
    return model.train()[0].training


@probe("`zero_grad` sets gradients to None unless it is told otherwise.")
def zero_grad_drops() -> bool:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters())
    _one_step(optimizer, model)
    optimizer.zero_grad()
    return model.weight.grad is None


@probe("With a gradient of zeros, Adam goes on moving a parameter that was frozen in mid-training.")
def adam_moves_with_zeros() -> bool:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    _one_step(optimizer, model, set_to_none=False)
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    _one_step(optimizer, model, set_to_none=False)
    return not torch.equal(before, model[0].weight)


@probe("`optimizer.zero_grad()` does not clear gradients of parameters that it does not own.")
def foreign_gradients_stay() -> bool:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    optimizer = torch.optim.SGD(model[1].parameters())
    _one_step(optimizer, model)
    optimizer.zero_grad()
    return model[0].weight.grad is not None


@probe("A batch norm takes a tenth of the new statistics per batch, unless it is told otherwise.")
def momentum_is_a_tenth() -> bool:
    return nn.BatchNorm2d(1).momentum == 0.1
