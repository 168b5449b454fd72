"""A rate for each part, with nothing forgotten, and finding what was."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import SGD

from ftlab.exercises.behaviour import below, some
from ftlab.exercises.core import Mistake, Wrong, exercise
from ftlab.exercises.models import SmallResNet, small_mobilenet, small_vit


def check_two_rates(answer):
    """The rate of every parameter of three networks, each with another part that counts as new."""
    cases = [(SmallResNet(), "fc"), (small_mobilenet(), "features.1"), (small_vit(), "heads")]
    for model, new in cases:
        rates = _rates(model, answer(model, new, 0.1))
        frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        if frozen:
            text = f"Your answer has frozen {some(frozen)}: at any rate it stays as it is."
            raise Wrong(text, ask="Which line changes the model? The groups alone were asked for.")
        fresh = below(model, new)
        _expect_rate({n: r for n, r in rates.items() if n in fresh}, 0.1, f"The part `{new}` should learn at 0.1")
        others = {n: r for n, r in rates.items() if n not in fresh}
        _expect_rate(others, 0.01, f"With `{new}` as the new part and lr 0.1, all else should learn at 0.01")


def _rates(model: nn.Module, groups: object) -> dict[str, float | None]:
    """Return the rate of each parameter, None for those in no group."""
    _expect_groups(groups)
    try:
        optimizer = SGD(groups, lr=0.123)
    except (ValueError, TypeError) as error:
        ask = "What is in each dictionary, and is anything in two of them?"
        raise Wrong(f"`SGD` refused the groups: {str(error).rstrip('.')}.", ask=ask) from None
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    return {name: rates.get(id(p)) for name, p in model.named_parameters()}


def _expect_groups(groups: object) -> None:
    """Raise if this is no list of dictionaries with parameters, and with numbers as rates."""
    listed = groups if isinstance(groups, list | tuple) else []
    others = [type(group).__name__ for group in listed if not isinstance(group, dict)]
    if others or listed is not groups:
        given = f"a `{type(groups).__name__}`" + (f" with a `{others[0]}` in it" if others else "")
        raise Wrong(f"You gave {given}, no list of dictionaries.", ask="What does an optimizer take as groups?")
    for group in listed:
        if "params" not in group:
            keys = ", ".join(f"`{key}`" for key in group) or "nothing"
            ask = "Under which key do the parameters stand?"
            raise Wrong(f'A dictionary has no "params"; it has {keys}.', ask=ask)
        if not isinstance(group.get("lr", 0), int | float | torch.Tensor):
            kind = type(group["lr"]).__name__
            raise Wrong(f"A rate is a number; yours is of type `{kind}`.", ask="What stands under `lr`?")


def _expect_rate(rates: dict[str, float | None], wanted: float, where: str) -> None:
    missing = [name for name, rate in rates.items() if rate is None]
    if missing:
        raise Wrong(
            f"{where}. In no group: {some(missing)}. What is in none is never trained, and nobody says so.",
            ask="Into which group does what is left over go?",
        )
    other = {name: rate for name, rate in rates.items() if not abs(rate - wanted) <= 1e-9}
    if other:
        rate = next(iter(other.values()))
        says = "the optimizer's own rate" if rate == 0.123 else f"{rate:g}"
        raise Wrong(f"{where}, but {some(other)} got {says}.", ask="By which rule did it get into that group?")


def _by_beginning(model, new, lr):
    inside = {name for name, _ in model.named_parameters() if name == new or name.startswith(f"{new}.")}
    parameters = dict(model.named_parameters())
    return [
        {"params": [parameters[name] for name in inside], "lr": lr},
        {"params": [p for name, p in parameters.items() if name not in inside], "lr": lr / 10},
    ]


def _a_group_each(model, new, lr):
    ids = {id(p) for p in model.get_submodule(new).parameters()}
    return [{"params": [p], "lr": lr if id(p) in ids else lr * 0.1} for p in model.parameters()]


def _by_substring(model, new, lr):
    return [
        {"params": [p for name, p in model.named_parameters() if new in name], "lr": lr},
        {"params": [p for name, p in model.named_parameters() if new not in name], "lr": lr / 10},
    ]


def _everything_slower(model, new, lr):
    return [{"params": list(model.parameters()), "lr": lr / 10}]


def _new_part_only(model, new, lr):
    return [{"params": list(model.get_submodule(new).parameters()), "lr": lr}]


def _freezes_the_rest(model, new, lr):
    model.requires_grad_(False)
    model.get_submodule(new).requires_grad_(True)
    return _a_group_each(model, new, lr)


def _all_in_the_second(model, new, lr):
    part = model.get_submodule(new)
    return [{"params": list(part.parameters()), "lr": lr}, {"params": list(model.parameters()), "lr": lr / 10}]


def _by_children(model, new, lr):
    part = list(model.get_submodule(new).parameters())
    ids = {id(p) for p in part}
    rest = [p for child in model.children() for p in child.parameters() if id(p) not in ids]
    return [{"params": part, "lr": lr}, {"params": rest, "lr": lr / 10}]


def _misspelt_rate(model, new, lr):
    ids = {id(p) for p in model.get_submodule(new).parameters()}
    rest = [p for p in model.parameters() if id(p) not in ids]
    part = list(model.get_submodule(new).parameters())
    return [{"params": part, "lr": lr}, {"params": rest, "learning_rate": lr / 10}]


@exercise(
    check=check_two_rates,
    hints=[
        "Which parameters are those of `model.get_submodule(new)`? And which are all others?",
        "Compare parameters by `id`, not with `in` on a list and not by a part of the name.",
        'Two dictionaries: `{"params": [...], "lr": lr}`, and one for the rest with `lr / 10`.',
    ],
    also_right=[_by_beginning, _a_group_each],
    mistakes=[
        Mistake(_by_substring, says="all else should learn at 0.01, but"),
        Mistake(_everything_slower, says="should learn at 0.1, but"),
        Mistake(_new_part_only, says="In no group: "),
        Mistake(_freezes_the_rest, says="Your answer has frozen"),
        Mistake(_all_in_the_second, says="some parameters appear in more than one parameter group"),
        Mistake(_by_children, says="In no group: `class_token`"),
        Mistake(_misspelt_rate, says="got the optimizer's own rate"),
    ],
    remember="A tenth is for what is pretrained, not for the new head; every parameter is in one group.",
)
def two_rates(model: nn.Module, new: str, lr: float) -> list[dict]:
    """Write: return groups in which the module named `new` learns at `lr`, and all else at a tenth of it.

    `model` is any network, `new` the name of any module in it, such as "fc" or "features.1". Nothing is frozen.
    """
    fresh = list(model.get_submodule(new).parameters())
    ids = {id(parameter) for parameter in fresh}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in ids]
    return [{"params": fresh, "lr": lr}, {"params": rest, "lr": lr / 10}]


def check_not_trained(answer):
    """A ResNet with a new head, two equal batch norms of which the optimizer has one, and a frozen layer."""
    model = SmallResNet()
    optimizer = SGD(model.parameters())
    _expect_names(answer(model, optimizer), set(), "The optimizer has all parameters")
    model.fc = nn.Linear(64, 5)
    wanted = {"fc.weight", "fc.bias"}
    _expect_names(answer(model, optimizer), wanted, "The head was replaced after the optimizer was made")
    model.layer1.requires_grad_(False)
    optimizer = SGD([p for p in model.parameters() if p.requires_grad])
    _expect_names(answer(model, optimizer), set(), "What the optimizer does not have is frozen")
    norms = nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    groups = [{"params": [norms[0].weight]}, {"params": [norms[0].bias]}]
    wanted = {"1.weight", "1.bias"}
    _expect_names(answer(norms, SGD(groups)), wanted, "Of two fresh batch norms the optimizer has the first")


def _expect_names(value: object, wanted: set[str], where: str) -> None:
    names = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [None]
    if not all(isinstance(name, str) for name in names):
        kind = type(value).__name__
        raise Wrong(f"You gave a `{kind}`, no set of names.", ask="Which method gives names with parameters?")
    found = set(names)
    if found - wanted:
        raise Wrong(
            f"{where}; you named {some(found - wanted)}.", ask="Is it trainable, and in no group, by identity?"
        )
    if wanted - found:
        ask = "How do you ask whether the optimizer has this very tensor?"
        raise Wrong(f"{where}. Missing in your answer: {some(wanted - found)}.", ask=ask)


def _by_loop(model, optimizer):
    found = set()
    for name, parameter in model.named_parameters():
        owned = any(parameter is other for group in optimizer.param_groups for other in group["params"])
        if parameter.requires_grad and not owned:
            found.add(name)
    return found


def _one_after_the_other(model, optimizer):
    owned = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    return (name for name, p in model.named_parameters() if p.requires_grad and p not in owned)


def _the_tensors(model, optimizer):
    owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return {p for p in model.parameters() if p.requires_grad and id(p) not in owned}


def _by_value(model, optimizer):
    owned = [p for group in optimizer.param_groups for p in group["params"]]
    return {
        name
        for name, p in model.named_parameters()
        if p.requires_grad and not any(p.shape == other.shape and torch.equal(p, other) for other in owned)
    }


def _frozen_ones_too(model, optimizer):
    owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return {name for name, p in model.named_parameters() if id(p) not in owned}


def _first_group_only(model, optimizer):
    owned = {id(p) for p in optimizer.param_groups[0]["params"]}
    return {name for name, p in model.named_parameters() if p.requires_grad and id(p) not in owned}


def _by_count(model, optimizer):
    count = sum(len(group["params"]) for group in optimizer.param_groups)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    return set(names[count:])


def _without_gradient(model, optimizer):
    return {name for name, p in model.named_parameters() if p.grad is None}


@exercise(
    check=check_not_trained,
    hints=[
        '`optimizer.param_groups` is a list of dictionaries, each with a list under `"params"`.',
        "Collect the `id` of everything that the optimizer has, of all groups.",
        "Go through `model.named_parameters()`: trainable, and its `id` is not among those.",
    ],
    also_right=[_by_loop, _one_after_the_other],
    mistakes=[
        Mistake(_by_value, says="Of two fresh batch norms"),
        Mistake(_frozen_ones_too, says="What the optimizer does not have is frozen"),
        Mistake(
            _first_group_only, says="Of two fresh batch norms the optimizer has the first; you named `0.bias`"
        ),
        Mistake(_by_count, says="The head was replaced"),
        Mistake(_the_tensors, says="You gave a `set`, no set of names"),
        Mistake(_without_gradient, says="The optimizer has all parameters"),
    ],
    remember="An optimizer keeps the tensors that it was given, not the model. Look by identity, or use `xray`.",
)
def not_trained(model: nn.Module, optimizer: torch.optim.Optimizer) -> set[str]:
    """Write: return the names of the trainable parameters of `model` that `optimizer` does not have."""
    owned = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return {name for name, p in model.named_parameters() if p.requires_grad and id(p) not in owned}
