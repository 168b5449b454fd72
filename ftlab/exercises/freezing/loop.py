"""Freezing while the optimizer lives: telling it about new parameters, and stopping it in mid-training."""

import copy

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW

from ftlab.exercises.behaviour import below, moved, slip, some, train
from ftlab.exercises.core import Mistake, Raised, Wrong, exercise
from ftlab.exercises.models import SmallResNet


def check_thaw(answer):
    """A ResNet whose head has been trained: what moves after the call, at which rates, with which momentum."""
    model = SmallResNet().requires_grad_(False)
    model.fc.requires_grad_(True)
    optimizer = SGD(model.fc.parameters(), lr=0.1, momentum=0.9)
    train(model, optimizer)
    before = copy.deepcopy(optimizer.state_dict())
    _call_thaw(answer, model, optimizer)
    _expect_head_unchanged(model, optimizer, before)
    moving, part = moved(model, lambda: train(model, optimizer)), below(model, "layer4")
    if not part & moving:
        _say_why_asleep(model)
    if part - moving:
        raise Wrong(f"{some(part - moving)} did not move.", ask="Which parameters does `part` have?")
    if not below(model, "fc") <= moving:
        raise Wrong(
            "The head `fc`, which was learning, does not move any more.", ask="Is it still in the optimizer?"
        )
    _expect_rate(model, optimizer)


def _call_thaw(answer, model, optimizer) -> None:
    try:
        answer(model.layer4, optimizer, 0.01)
    except Raised as raised:
        if "more than one parameter group" in str(raised.error):
            ask = "Which of the parameters does the optimizer have already?"
            raise Wrong(f"{raised.message} It was given a parameter for the second time.", ask=ask) from None
        raise


def _expect_head_unchanged(model, optimizer, before) -> None:
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    rate = rates.get(id(model.fc.weight))
    if rate is not None and rate != 0.1:
        text = f"The head `fc` learned with a rate of 0.1, and has now {rate:g}."
        raise Wrong(text, ask="To which group does the new rate belong?")
    momentum = optimizer.state.get(model.fc.weight, {}).get("momentum_buffer")
    if momentum is None or not torch.equal(momentum, before["state"][0]["momentum_buffer"]):
        text = "The optimizer has lost the momentum that it had gathered for the head `fc`."
        raise Wrong(text, ask="Was the optimizer made anew, or added to?")


def _say_why_asleep(model) -> None:
    if not any(p.requires_grad for p in model.layer4.parameters()):
        ask = "Who decides whether a gradient is computed?"
        raise Wrong("`layer4` did not move: none of its parameters gets a gradient.", ask=ask)
    text = "`layer4` got gradients, and did not move: the optimizer that the loop goes on with does not know it."
    raise Wrong(text, ask="What did the optimizer get when it was made, and how is something added to it?")


def _expect_rate(model, optimizer) -> None:
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    rate = rates[id(model.layer4[0].conv1.weight)]
    if rate != 0.01:
        text = f"With `lr=0.01`, `layer4` learns with a rate of {rate:g}."
        raise Wrong(text, ask="Which rate has a new group, and which a parameter put into an old group?")


def _flag_only(part, optimizer, lr):
    part.requires_grad_(True)


def _thaw_by_group_of_its_own(part, optimizer, lr):
    for parameter in part.parameters():
        parameter.requires_grad = True
        optimizer.add_param_group({"params": [parameter], "lr": lr})


def _thaw_those_not_owned(part, optimizer, lr):
    owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
    part.requires_grad_(True)
    optimizer.add_param_group({"params": [p for p in part.parameters() if id(p) not in owned], "lr": lr})


def _group_without_flag(part, optimizer, lr):
    optimizer.add_param_group({"params": part.parameters(), "lr": lr})


def _group_without_rate(part, optimizer, lr):
    part.requires_grad_(True)
    optimizer.add_param_group({"params": part.parameters()})


def _new_optimizer(part, optimizer, lr):
    part.requires_grad_(True)
    optimizer = torch.optim.SGD(part.parameters(), lr=lr, momentum=0.9)
    optimizer.zero_grad()


def _made_anew_in_place(part, optimizer, lr):
    part.requires_grad_(True)
    head = optimizer.param_groups[0]["params"]
    optimizer.__init__([{"params": head, "lr": 0.1}, {"params": part.parameters(), "lr": lr}], momentum=0.9)


def _into_the_first_group(part, optimizer, lr):
    part.requires_grad_(True)
    optimizer.param_groups[0]["params"] += list(part.parameters())


def _first_group_with_new_rate(part, optimizer, lr):
    part.requires_grad_(True)
    optimizer.param_groups[0]["params"] += list(part.parameters())
    optimizer.param_groups[0]["lr"] = lr


def _with_the_old_ones_again(part, optimizer, lr):
    part.requires_grad_(True)
    old = optimizer.param_groups[0]["params"]
    optimizer.add_param_group({"params": [*old, *part.parameters()], "lr": lr})


@exercise(
    check=check_thaw,
    broken=_flag_only,
    hints=[
        "After the call, count the parameters in `optimizer.param_groups`. Which of them are missing?",
        "The flag decides whether a parameter gets a gradient. Who decides whether the gradient is used?",
        "`optimizer.add_param_group` takes a dictionary with the parameters and what is special about them.",
    ],
    also_right=[_thaw_by_group_of_its_own, _thaw_those_not_owned],
    mistakes=[
        Mistake(_group_without_flag, says="none of its parameters gets a gradient"),
        Mistake(_group_without_rate, says="learns with a rate of 0.1"),
        Mistake(_new_optimizer, says="the optimizer that the loop goes on with does not know it"),
        Mistake(_made_anew_in_place, says="lost the momentum"),
        Mistake(_into_the_first_group, says="learns with a rate of 0.1"),
        Mistake(_first_group_with_new_rate, says="has now 0.01"),
        Mistake(_with_the_old_ones_again, says="for the second time"),
    ],
    remember="Thawing takes two: the flag makes the gradient, the optimizer uses it.",
)
def thaw(part: nn.Module, optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Repair: let the frozen `part` learn from now on, with a learning rate `lr` of its own.

    `optimizer` trains the head of the model, and goes on doing so at its own rate and with its momentum.
    None of its parameters are in `part`.
    """
    part.requires_grad_(True)
    optimizer.add_param_group({"params": part.parameters(), "lr": lr})


def check_freeze_now(answer):
    """A ResNet in mid-training, with SGD, Adam and AdamW: which parameters three further steps move."""
    for kind, options in ((SGD, {"momentum": 0.9}), (SGD, {"weight_decay": 0.1}), (Adam, {}), (AdamW, {})):
        model = SmallResNet()
        optimizer = kind(model.parameters(), lr=0.01, **options)
        train(model, optimizer, set_to_none=False)
        answer(model.layer4, optimizer)
        moving = moved(model, lambda: train(model, optimizer, set_to_none=False))  # noqa: B023  (called at once)
        setting = ", ".join([kind.__name__, *(f"{name} {value}" for name, value in options.items())])
        _expect_stopped(model, moving, setting)


def _expect_stopped(model, moving: set[str], setting: str) -> None:
    still, others = moving & below(model, "layer4"), below(model, "conv1", "layer1", "layer2", "layer3", "fc")
    if still:
        parameters = [p for p in model.layer4.parameters() if p.grad is not None]
        zeros = (
            " Each has a gradient, of zeros." if parameters and not any(p.grad.any() for p in parameters) else ""
        )
        ask = "What makes an optimizer skip a parameter: a flag, a gradient of zeros, or no gradient?"
        raise Wrong(
            f"With {setting}, {some(still)} of the frozen part still moved.{zeros} {slip(model)}".rstrip(),
            ask=ask,
        )
    if not others & moving:
        ask = "What did you take from all parameters that was meant for those of `part`?"
        raise Wrong(f"With {setting}, the rest of the model does not learn any more either.", ask=ask)
    if others - moving:
        ask = "Which parameters belong to `part`?"
        raise Wrong(f"With {setting}, {some(others - moving)} should go on learning, and stands still.", ask=ask)


def _flag_in_mid_training(part, optimizer):
    part.requires_grad_(False)


def _flag_and_state(part, optimizer):
    for parameter in part.parameters():
        parameter.requires_grad = False
        parameter.grad = None
        optimizer.state.pop(parameter, None)


def _out_of_the_groups(part, optimizer):
    part.requires_grad_(False)
    ids = {id(parameter) for parameter in part.parameters()}
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if id(p) not in ids]


def _flag_and_zeros(part, optimizer):
    part.requires_grad_(False)
    for parameter in part.parameters():
        parameter.grad.zero_()


def _flag_and_zero_grad_of_the_optimizer(part, optimizer):
    part.requires_grad_(False)
    optimizer.zero_grad(set_to_none=False)


def _only_the_state(part, optimizer):
    part.requires_grad_(False)
    for parameter in part.parameters():
        optimizer.state.pop(parameter, None)


def _gradient_but_no_flag(part, optimizer):
    for parameter in part.parameters():
        parameter.grad = None


def _rate_zero(part, optimizer):
    part.requires_grad_(False)
    for group in optimizer.param_groups:
        group["lr"] = 0.0


def _eval_of_the_part(part, optimizer):
    part.eval()


def _clear_all_groups(part, optimizer):
    part.requires_grad_(False)
    for group in optimizer.param_groups:
        group["params"] = []


@exercise(
    check=check_freeze_now,
    broken=_flag_in_mid_training,
    hints=[
        "Set the flag, then print `next(part.parameters()).grad`; print it again after the loop's `zero_grad`.",
        "A gradient of zeros is a gradient: momentum, weight decay and Adam's moments go on with it.",
        "An optimizer skips a parameter whose `grad` is None. `part.zero_grad(set_to_none=True)` makes it so.",
    ],
    also_right=[_flag_and_state, _out_of_the_groups],
    mistakes=[
        Mistake(_flag_and_zeros, says="a gradient, of zeros"),
        Mistake(_flag_and_zero_grad_of_the_optimizer, says="a gradient, of zeros"),
        Mistake(_only_the_state, says="weight_decay"),
        Mistake(_gradient_but_no_flag, says="of the frozen part still moved"),
        Mistake(_rate_zero, says="the rest of the model does not learn any more"),
        Mistake(_eval_of_the_part, says="of the frozen part still moved"),
        Mistake(_clear_all_groups, says="the rest of the model does not learn any more"),
    ],
    remember="In mid-training the flag stops new gradients; `grad = None` ends the old one.",
)
def freeze_now(part: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Repair: freeze the parameters of `part` in mid-training, between two rounds of the loop.

    `part` was learning, and `optimizer` has it. The loop is not yours: it calls
    `optimizer.zero_grad(set_to_none=False)`, and the rest of the model goes on learning.
    """
    part.requires_grad_(False)
    part.zero_grad(set_to_none=True)
