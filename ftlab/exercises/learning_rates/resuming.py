"""Going on with a training: at the rate where it stopped, or at a new one."""

import copy
import warnings

import torch
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import LinearLR, LRScheduler

from ftlab.exercises.core import Mistake, Wrong, exercise


def _run(optimizer, scheduler, epochs: int) -> list[float]:
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def check_go_on(answer):
    """The rates of ten epochs, straight, and stopped after four and resumed; the momentum of the optimizer."""
    weight = torch.ones(1, requires_grad=True)
    weight.grad = torch.ones(1)
    optimizer = SGD([weight], lr=0.5, momentum=0.9)
    scheduler = LinearLR(optimizer, 0.1, total_iters=8)
    _run(optimizer, scheduler, 4)
    state = copy.deepcopy({"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()})
    momentum = optimizer.state[weight]["momentum_buffer"].clone()
    wanted = _run(optimizer, scheduler, 6)
    weight.grad = torch.full_like(weight, 0.5)  # other data: four epochs made again give another momentum
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = answer([weight], state)
    if not isinstance(value, tuple | list) or len(value) != 2 or not isinstance(value[1], LRScheduler):
        given = ", ".join(type(one).__name__ for one in (value if isinstance(value, tuple | list) else [value]))
        raise Wrong(f"You gave `{given}`, no optimizer and scheduler.", ask="What is returned, and what first?")
    again, going_on = value
    if going_on.optimizer is not again:
        raise Wrong("The scheduler belongs to another optimizer.", ask="Which optimizer did it get?")
    if not torch.equal(again.state.get(weight, {}).get("momentum_buffer", torch.zeros(1)), momentum):
        raise Wrong("The momentum of the optimizer is not that of the state.", ask="Who reads `state`, and when?")
    found = _run(again, going_on, 6)
    for epoch, (one, other) in enumerate(zip(found, wanted, strict=True), 4):
        if not abs(one - other) <= 1e-9:
            text = f"Epoch {epoch} was trained at {one:.3g}, and without the interruption at {other:.3g}."
            raise Wrong(text, ask="What does making a scheduler do to the rate of its optimizer, and when?")


def _optimizer_loaded_first(parameters, state):
    optimizer = torch.optim.SGD(parameters, lr=0.5, momentum=0.9)
    optimizer.load_state_dict(state["optimizer"])
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=8)
    scheduler.load_state_dict(state["scheduler"])
    return optimizer, scheduler


def _scheduler_state_first(parameters, state):
    optimizer = SGD(parameters, lr=0.5, momentum=0.9)
    scheduler = LinearLR(optimizer, 0.1, total_iters=8)
    scheduler.load_state_dict(state["scheduler"])
    optimizer.load_state_dict(state["optimizer"])
    return optimizer, scheduler


def _no_scheduler_state(parameters, state):
    optimizer = SGD(parameters, lr=0.5, momentum=0.9)
    scheduler = LinearLR(optimizer, 0.1, total_iters=8)
    optimizer.load_state_dict(state["optimizer"])
    return optimizer, scheduler


def _no_optimizer_state(parameters, state):
    optimizer = SGD(parameters, lr=0.5, momentum=0.9)
    scheduler = LinearLR(optimizer, 0.1, total_iters=8)
    scheduler.load_state_dict(state["scheduler"])
    return optimizer, scheduler


def _four_epochs_again(parameters, state):
    optimizer = SGD(parameters, lr=0.5, momentum=0.9)
    scheduler = LinearLR(optimizer, 0.1, total_iters=8)
    for _ in range(state["scheduler"]["last_epoch"]):
        optimizer.step()
        scheduler.step()
    return optimizer, scheduler


def _two_optimizers(parameters, state):
    optimizer = SGD(parameters, lr=0.5, momentum=0.9)
    scheduler = LinearLR(optimizer, 0.1, total_iters=8)
    scheduler.load_state_dict(state["scheduler"])
    optimizer = SGD(parameters, lr=0.5, momentum=0.9)
    optimizer.load_state_dict(state["optimizer"])
    return optimizer, scheduler


@exercise(
    check=check_go_on,
    broken=_optimizer_loaded_first,
    hints=[
        'Print `optimizer.param_groups[0]["lr"]` after each line.',
        "Making a scheduler writes its first rate into the optimizer.",
        "Make both first, then load both.",
    ],
    also_right=[_scheduler_state_first],
    mistakes=[
        Mistake(_no_scheduler_state, says="Epoch 5 was trained at"),
        Mistake(_no_optimizer_state, says="The momentum of the optimizer is not that of the state"),
        Mistake(_four_epochs_again, says="The momentum of the optimizer is not that of the state"),
        Mistake(_two_optimizers, says="The scheduler belongs to another optimizer"),
    ],
    remember="Make the optimizer, make the scheduler, then load both: making a scheduler sets the rate.",
)
def go_on(parameters: list, state: dict) -> tuple:
    """Repair: return an optimizer and a scheduler that go on where a training stopped, as if it had not.

    It was made with `SGD(parameters, lr=0.5, momentum=0.9)` and `LinearLR(optimizer, 0.1, total_iters=8)`.
    `state` has the `state_dict()` of both, under "optimizer" and "scheduler".
    """
    optimizer = torch.optim.SGD(parameters, lr=0.5, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=8)
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    return optimizer, scheduler


def check_new_rate(answer):
    """The rate of each group and Adam's moments after the call, and that the saved state is as it was."""
    weights = [torch.ones(1, requires_grad=True) for _ in range(3)]
    old = Adam([{"params": [weight]} for weight in weights], lr=0.001)
    for weight in weights:
        weight.grad = torch.ones(1)
    old.step()
    state = old.state_dict()
    before = copy.deepcopy(state)
    optimizer = Adam([{"params": [weight]} for weight in weights], lr=0.9)
    answer(optimizer, state, 0.05)
    if not all(
        torch.equal(optimizer.state.get(w, {}).get("exp_avg", torch.zeros(1)), old.state[w]["exp_avg"])
        for w in weights
    ):
        raise Wrong("Adam's moments are not those of the saved state.", ask="Who reads `state`?")
    rates = [group["lr"] for group in optimizer.param_groups]
    if rates != [0.05] * 3:
        text = f"The old rate is 0.001, the new one 0.05; the rates of the groups are {rates}."
        raise Wrong(text, ask="What else than the moments does `load_state_dict` bring along?")
    if str(state) != str(before):
        raise Wrong("The saved state was changed.", ask="Whose dictionary did you write into?")


def _only_load(optimizer, state, lr):
    optimizer.load_state_dict(state)


def _load_a_copy(optimizer, state, lr):
    changed = copy.deepcopy(state)
    for group in changed["param_groups"]:
        group["lr"] = lr
    optimizer.load_state_dict(changed)


def _set_before(optimizer, state, lr):
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.load_state_dict(state)


def _only_set(optimizer, state, lr):
    for group in optimizer.param_groups:
        group["lr"] = lr


def _set_defaults(optimizer, state, lr):
    optimizer.load_state_dict(state)
    optimizer.defaults["lr"] = lr


def _first_group(optimizer, state, lr):
    optimizer.load_state_dict(state)
    optimizer.param_groups[0]["lr"] = lr


def _first_two_groups(optimizer, state, lr):
    optimizer.load_state_dict(state)
    optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = lr


def _write_into_the_state(optimizer, state, lr):
    for group in state["param_groups"]:
        group["lr"] = lr
    optimizer.load_state_dict(state)


@exercise(
    check=check_new_rate,
    broken=_only_load,
    hints=[
        "Print the rate before and after `load_state_dict`.",
        "The rate of a group lies in `optimizer.param_groups`, and there may be several groups.",
    ],
    also_right=[_load_a_copy],
    mistakes=[
        Mistake(_set_before, says="the rates of the groups are [0.001, 0.001, 0.001]"),
        Mistake(_only_set, says="Adam's moments are not those"),
        Mistake(_set_defaults, says="the rates of the groups are [0.001, 0.001, 0.001]"),
        Mistake(_first_group, says="the rates of the groups are [0.05, 0.001, 0.001]"),
        Mistake(_first_two_groups, says="the rates of the groups are [0.05, 0.05, 0.001]"),
        Mistake(_write_into_the_state, says="The saved state was changed"),
    ],
    remember="An optimizer's state has the old rates in it: set the new one after loading, in every group.",
)
def new_rate(optimizer: torch.optim.Optimizer, state: dict, lr: float) -> None:
    """Repair: load the saved `state` into `optimizer`, and go on at the rate `lr` in all groups."""
    optimizer.load_state_dict(state)
    for group in optimizer.param_groups:
        group["lr"] = lr
