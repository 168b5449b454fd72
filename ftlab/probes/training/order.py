"""The order of the lines, and clipping."""

import math

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD

from ftlab.probes import probe
from ftlab.probes._outcomes import raises, warns


@probe("`backward` adds to the gradient that is there, `step` leaves it, `zero_grad` sets it to None.")
def backward_adds() -> bool:
    weight = nn.Parameter(torch.tensor(5.0))
    optimizer, found = SGD([weight], lr=0.1), []
    for act in ((3 * weight).backward, (3 * weight).backward, optimizer.step):
        act()
        found.append(weight.grad.item())
    optimizer.zero_grad()
    return found == [3, 6, 6] and weight.grad is None


@probe("A step without a gradient moves nothing and says nothing.")
def a_step_without_gradient_is_silent() -> bool:
    weight = nn.Parameter(torch.ones(2))
    return not warns(SGD([weight], lr=1.0, weight_decay=0.1).step) and bool((weight == 1).all())


@probe("`optimizer.zero_grad()` clears what the optimizer owns; the gradients of the rest of the model add up.")
def the_rest_adds_up() -> bool:
    body, head = nn.Linear(2, 2), nn.Linear(2, 1)
    optimizer, norms = SGD(head.parameters(), lr=0.0), []
    for _ in range(3):
        optimizer.zero_grad()
        head(body(torch.ones(1, 2))).sum().backward()
        norms.append(body.weight.grad.norm().item())
    return all(abs(norm / norms[0] - times) < 1e-4 for times, norm in enumerate(norms, 1))


@probe("The gradients of four batches add up to four times the gradient of the mean over all of them.")
def four_batches_add_up() -> bool:
    layer, x, y = nn.Linear(3, 2), torch.randn(8, 3), torch.randint(2, (8,))
    (one,) = torch.autograd.grad(F.cross_entropy(layer(x), y), [layer.weight])
    for rows, labels in zip(x.split(2), y.split(2), strict=True):
        F.cross_entropy(layer(rows), labels).backward()
    return torch.allclose(layer.weight.grad, 4 * one, atol=1e-5)


def _with_gradients(*values: float) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros(1)) for _ in values]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.grad = torch.tensor([value])
    return parameters


@probe(
    "`clip_grad_norm_` scales all gradients by one factor if their norm is too large; it returns the norm before."
)
def one_norm_over_all() -> bool:
    parameters = _with_gradients(3.0, 4.0)
    before = nn.utils.clip_grad_norm_(parameters, 1.0)
    after = torch.cat([p.grad for p in parameters])
    nn.utils.clip_grad_norm_(parameters, 2.0)  # below the limit: left alone
    same = all(p.grad == value for p, value in zip(parameters, after, strict=True))
    return before == 5 and torch.allclose(after, torch.tensor([0.6, 0.8]), atol=1e-5) and same


@probe("`clip_grad_value_` cuts off each number for itself: another direction.")
def values_change_the_direction() -> bool:
    parameters = _with_gradients(30.0, 0.4)
    nn.utils.clip_grad_value_(parameters, 1.0)
    return [round(p.grad.item(), 3) for p in parameters] == [1.0, 0.4]


@probe("One NaN makes every gradient NaN in `clip_grad_norm_`; `error_if_nonfinite=True` raises instead.")
def one_nan_spoils_all() -> bool:
    refused, spoilt = _with_gradients(1.0, math.nan), _with_gradients(1.0, math.nan)
    refuses = raises(RuntimeError, lambda: nn.utils.clip_grad_norm_(refused, 1.0, error_if_nonfinite=True))
    nn.utils.clip_grad_norm_(spoilt, 1.0)
    return refuses and all(p.grad.isnan().all() for p in spoilt)


@probe("Of an empty generator `clip_grad_norm_` warns, of an empty filter and of missing gradients it does not.")
def clipping_nothing() -> bool:
    def clip(parameters) -> bool:
        return warns(lambda: nn.utils.clip_grad_norm_(parameters, 1.0))

    return clip(p for p in ()) and not clip(filter(None, [])) and not clip([nn.Parameter(torch.ones(1))])
