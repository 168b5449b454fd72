"""What lesson 06 says about parameter groups, optimizers and schedulers."""

import warnings

import torch
from torch import nn
from torch.optim import SGD, Adam, lr_scheduler

from ftlab.probes import probe
from ftlab.probes._outcomes import raises


def _groups(*rates: float) -> list[dict]:
    return [{"params": [nn.Parameter(torch.ones(1))], "lr": rate} for rate in rates]


def _rates(optimizer: torch.optim.Optimizer) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


@probe("A group's own rate wins; options outside the list are for the groups that do not have them.")
def own_options_win() -> bool:
    optimizer = SGD([{"params": [nn.Parameter(torch.ones(1))]}, *_groups(0.5)], lr=0.1, weight_decay=0.01)
    return _rates(optimizer) == [0.1, 0.5] and {g["weight_decay"] for g in optimizer.param_groups} == {0.01}


@probe("A parameter in no group is not trained, and nothing is said.")
def orphans_are_silent() -> bool:
    model = nn.Linear(2, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = SGD([model.bias], lr=0.1)
        before = model.weight.detach().clone()
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    return torch.equal(before, model.weight)


@probe("A parameter in two groups is an error; twice in one group it is a warning.")
def duplicates_raise() -> bool:
    weight = nn.Parameter(torch.ones(1))
    two = raises(ValueError, lambda: SGD([{"params": [weight]}, {"params": [weight]}]))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        SGD([weight, weight])
    return two and len(said) == 1


@probe("A misspelt option, a negative rate and a used-up generator are accepted inside a group.")
def groups_are_not_checked() -> bool:
    first, second = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    groups = [{"params": [first], "lr": -1, "weight_dacay": 1}, {"params": [second]}, {"params": (p for p in ())}]
    return len(SGD(groups, lr=0.1).param_groups) == 3


@probe("A negative rate outside the groups is an error.")
def rates_outside_are_checked() -> bool:
    return raises(ValueError, lambda: SGD([nn.Parameter(torch.ones(1))], lr=-1))


@probe("SGD does not need a rate: without one it is 0.001.")
def sgd_has_a_rate() -> bool:
    return _rates(SGD([nn.Parameter(torch.ones(1))])) == [0.001]


@probe("Whatever else is in a group, such as a name, stays there and goes into the state_dict.")
def notes_are_kept() -> bool:
    groups = [{"params": [nn.Parameter(torch.ones(1))], "name": "head"}]
    return SGD(groups).state_dict()["param_groups"][0]["name"] == "head"


@probe("An optimizer keeps the tensors that it was given: a head that is replaced later is not in it.")
def optimizers_keep_tensors() -> bool:
    model = nn.Sequential(nn.Linear(2, 2))
    optimizer = SGD(model.parameters())
    model[0] = nn.Linear(2, 2)
    return not {id(p) for p in model.parameters()} & {id(p) for p in optimizer.param_groups[0]["params"]}


@probe("StepLR(optimizer, 10, 0.1) divides the rate by ten every ten calls.")
def step_divides() -> bool:
    optimizer = SGD(_groups(0.001))
    scheduler, rates = lr_scheduler.StepLR(optimizer, 10, 0.1), []
    for _ in range(21):
        rates += _rates(optimizer)
        optimizer.step()
        scheduler.step()
    return [round(rates[i], 9) for i in (0, 9, 10, 19, 20)] == [1e-3, 1e-3, 1e-4, 1e-4, 1e-5]


@probe("`scheduler.step()` before the first `optimizer.step()` warns, and skips the first value.")
def first_value_is_skipped() -> bool:
    optimizer = SGD(_groups(1.0))
    scheduler = lr_scheduler.StepLR(optimizer, 1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        scheduler.step()
    return len(said) == 1 and _rates(optimizer) == [0.1]


@probe("OneCycleLR with one max_lr gives it to every group, also to one at rate 0.")
def one_cycle_is_for_all() -> bool:
    optimizer = SGD(_groups(0.0, 0.1))
    lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=10)
    slow, fast = _rates(optimizer)
    return slow == fast > 0


@probe("StepLR keeps a rate of 0 at 0; a cosine with eta_min raises it.")
def zero_wakes_up() -> bool:
    step, cosine = SGD(_groups(0.0)), SGD(_groups(0.0))
    for optimizer, scheduler in (
        (step, lr_scheduler.StepLR(step, 1)),
        (cosine, lr_scheduler.CosineAnnealingLR(cosine, 5, eta_min=0.001)),
    ):
        optimizer.step()
        scheduler.step()
    return _rates(step) == [0.0] and _rates(cosine)[0] > 0


@probe("For a group that comes late, LambdaLR raises a ValueError and OneCycleLR a KeyError.")
def late_groups_break() -> bool:
    def late(make) -> torch.optim.lr_scheduler.LRScheduler:
        optimizer = SGD(_groups(0.1))
        scheduler = make(optimizer)
        optimizer.step()
        optimizer.add_param_group(_groups(0.01)[0])
        return scheduler

    one = late(lambda o: lr_scheduler.LambdaLR(o, lambda step: 1.0))
    other = late(lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=9))
    return raises(ValueError, one.step) and raises(KeyError, other.step)


@probe("LinearLR raises a late group above the rate that it was given.")
def linear_raises_late_groups() -> bool:
    optimizer = SGD(_groups(0.1))
    scheduler = lr_scheduler.LinearLR(optimizer, 0.3, total_iters=3)
    optimizer.step()
    optimizer.add_param_group(_groups(0.01)[0])
    for _ in range(3):
        scheduler.step()
    return _rates(optimizer)[1] > 0.015


@probe("Loading an optimizer's state brings back its old rate.")
def loading_brings_the_rate() -> bool:
    weight = nn.Parameter(torch.ones(1))
    optimizer = Adam([weight], lr=0.05)
    optimizer.load_state_dict(Adam([weight], lr=0.001).state_dict())
    return _rates(optimizer) == [0.001]


@probe("Making a LinearLR writes its first rate into the optimizer, also into one that was loaded.")
def making_a_scheduler_sets_the_rate() -> bool:
    optimizer = SGD(_groups(0.5))
    lr_scheduler.LinearLR(optimizer, 0.1, total_iters=8)
    return _rates(optimizer) == [0.05]


@probe("At rate 0 a parameter keeps its gradient, and its optimizer its momentum.")
def rate_zero_costs() -> bool:
    weight = nn.Parameter(torch.ones(1))
    optimizer = SGD([weight], lr=0.0, momentum=0.9)
    weight.sum().backward()
    optimizer.step()
    return weight.item() == 1 and weight.grad is not None and bool(optimizer.state[weight])


@probe("Adam's first step is the rate itself, whatever the size of the gradient.")
def adam_steps_by_the_rate() -> bool:
    found = []
    for scale in (1e-3, 1e3):
        weight = nn.Parameter(torch.ones(1))
        optimizer = Adam([weight], lr=0.01)
        (scale * weight).sum().backward()
        optimizer.step()
        found.append(1 - weight.item())
    return all(abs(change - 0.01) < 1e-5 for change in found)


@probe("ReduceLROnPlateau needs its metric.")
def plateau_needs_a_metric() -> bool:
    return raises(TypeError, lr_scheduler.ReduceLROnPlateau(SGD(_groups(0.1))).step)


@probe("A gradient scaler that skips a step after an overflow does not stop the scheduler.")
def scaler_does_not_stop_the_scheduler() -> bool:
    weight = nn.Parameter(torch.ones(1))
    optimizer = SGD([weight], lr=0.1)
    scheduler, scaler = lr_scheduler.StepLR(optimizer, 1), torch.amp.GradScaler("cpu", init_scale=2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scaler.scale((weight * float("inf")).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
    return weight.item() == 1 and abs(_rates(optimizer)[0] - 0.01) < 1e-9
