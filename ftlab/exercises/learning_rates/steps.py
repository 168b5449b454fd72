"""How far a step really moves."""

import numpy as np
import torch
from torch import nn
from torch.optim import SGD, Adam

from ftlab.exercises.behaviour import as_number
from ftlab.exercises.core import Mistake, Wrong, exercise


def check_relative_update(answer):
    """The result for steps of SGD and Adam on parameters of different size, and that `step` was called once."""
    for kind, lr, size in ((SGD, 0.1, 1.0), (SGD, 0.001, 20.0), (Adam, 0.1, 1.0)):
        layer = nn.Linear(6, 4, bias=False)
        nn.init.normal_(layer.weight, std=size)
        optimizer, batch = kind(layer.parameters(), lr=lr), torch.randn(5, 6)
        before, calls = layer.weight.detach().clone(), []

        def step():
            calls.append(1)  # noqa: B023  (called at once)
            layer(batch).square().mean().backward()  # noqa: B023
            optimizer.step()  # noqa: B023

        value = answer(layer.weight, step)
        wanted = ((layer.weight.detach() - before).norm() / before.norm()).item()
        _judge(value, wanted, len(calls), f"{kind.__name__} at {lr:g}")


def _judge(value: object, wanted: float, calls: int, where: str) -> None:
    if calls != 1:
        raise Wrong(f"`step` was called {calls} times.", ask="How many steps are to be measured?")
    value = as_number(value, "relative size of the change")
    if value == 0:
        text = f"{where}: the step has moved the parameter, and you found a change of exactly 0."
        raise Wrong(text, ask="An optimizer writes into the tensor in place. What did you keep from before?")
    if not abs(value / wanted - 1) <= 1e-3:  # nan is not close to anything
        text = f"{where}: you found {value:.4g}. That is not the size of the change over the size before."
        raise Wrong(text, ask="Is it the norm of a difference, and what is it divided by?")


def _by_hand(parameter, step):
    before = parameter.detach().clone()
    step()
    with torch.no_grad():
        change = parameter - before
        return (change.square().sum() / before.square().sum()).sqrt().item()


def _by_numpy(parameter, step):
    before = parameter.detach().numpy().copy()
    step()
    return np.linalg.norm(parameter.detach().numpy() - before) / np.linalg.norm(before)


def _the_whole_tensor(parameter, step):
    before = parameter.detach().clone()
    step()
    return (parameter.detach() - before) / before


def _no_copy(parameter, step):
    before = parameter
    step()
    return ((parameter - before).norm() / before.norm()).item()


def _detach_only(parameter, step):
    before = parameter.detach()
    step()
    return ((parameter - before).norm() / before.norm()).item()


def _not_relative(parameter, step):
    before = parameter.detach().clone()
    step()
    return (parameter - before).norm().item()


def _difference_of_norms(parameter, step):
    before = parameter.detach().norm().item()
    step()
    return abs(parameter.detach().norm().item() - before) / before + 1e-12


def _gradient_instead(parameter, step):
    size = parameter.detach().norm().item()
    step()
    return parameter.grad.norm().item() / size


@exercise(
    check=check_relative_update,
    hints=[
        "Keep the values from before. Is what you keep a copy, or another look at the same memory?",
        "`tensor.detach().clone()` is a copy; `tensor.norm()` is the size.",
    ],
    also_right=[_by_hand, _by_numpy],
    mistakes=[
        Mistake(_the_whole_tensor, says="is one number; yours is of type `Tensor`"),
        Mistake(_no_copy, says="a change of exactly 0"),
        Mistake(_detach_only, says="a change of exactly 0"),
        Mistake(_not_relative, says="not the size of the change over the size before"),
        Mistake(_difference_of_norms, says="not the size of the change over the size before"),
        Mistake(_gradient_instead, says="not the size of the change over the size before"),
    ],
    remember="The rate is what you asked for; the relative update is what happened.",
)
def relative_update(parameter: nn.Parameter, step) -> float:
    """Write: call `step()` once, and return the size of the change of `parameter`, divided by its size before.

    `step` is a whole training step, without arguments. The size of a tensor is its norm.
    """
    before = parameter.detach().clone()
    step()
    return ((parameter.detach() - before).norm() / before.norm()).item()
