"""Several heads on one backbone: what a model knows of them, and what they share."""

import copy
import reprlib

import torch
from torch import nn

from ftlab.exercises.behaviour import images
from ftlab.exercises.core import Mistake, Wrong, exercise
from ftlab.exercises.models import SmallResNet


def check_count_tensors(answer):
    """Your three numbers, against three models that are built as the task says."""
    value = answer()
    numbers = isinstance(value, tuple | list) and len(value) == 3 and all(type(n) is int for n in value)
    if not numbers:
        raise Wrong(
            f"Three whole numbers were asked for, you gave `{reprlib.repr(value)}`.",
            ask="Is it like `(1, 2, 3)`?",
        )
    ways = {
        "list": lambda: [nn.Linear(10, 10) for _ in range(10)],
        "ModuleList": lambda: nn.ModuleList([nn.Linear(10, 10) for _ in range(10)]),
        "repeated": lambda: nn.ModuleList([nn.Linear(10, 10)] * 10),
    }
    for given, (name, make) in zip(value, ways.items(), strict=True):
        model = nn.Module()
        model.stem, model.heads = nn.Linear(10, 10), make()
        if given != sum(1 for _ in model.parameters()):
            raise Wrong(f'You gave {given} for "{name}"; `model.parameters()` gives others.', ask=_ASK[name])


_ASK = {
    "list": "When does a module look into what is assigned to it, and what does it look for?",
    "ModuleList": "How many parameters has one `nn.Linear`? And the stem?",
    "repeated": "How many objects of `nn.Linear` are ever made?",
}


def _counted_as_a_list():
    return [2, 22, 4]


def _by_sums():
    stem = layer = 2
    return stem, stem + 10 * layer, stem + layer


def _list_counts():
    return 22, 22, 4


def _repeated_counts():
    return 2, 22, 22


def _without_the_stem():
    return 0, 20, 2


def _layers_not_tensors():
    return 1, 11, 2


def _one_number():
    return 22


@exercise(
    check=check_count_tensors,
    hints=[
        "`nn.Linear` has two parameters, weight and bias. Only what a module has registered is counted.",
        "`[layer] * 10` is a list with ten times the same object; `parameters()` gives each tensor once.",
    ],
    also_right=[_counted_as_a_list, _by_sums],
    mistakes=[
        Mistake(_list_counts, says='for "list"'),
        Mistake(_repeated_counts, says='for "repeated"'),
        Mistake(_without_the_stem, says='You gave 0 for "list"'),
        Mistake(_layers_not_tensors, says='You gave 1 for "list"'),
        Mistake(_one_number, says="Three whole numbers"),
    ],
    remember="A list in a module is invisible; `[layer] * n` is one layer with n names.",
)
def count_tensors() -> tuple[int, int, int]:
    """Predict: how many tensors does `model.parameters()` give in each of three cases?

    Every model has `self.stem = nn.Linear(10, 10)`, and besides it `self.heads`, which is

    - "list":       `[nn.Linear(10, 10) for _ in range(10)]`
    - "ModuleList": `nn.ModuleList([nn.Linear(10, 10) for _ in range(10)])`
    - "repeated":   `nn.ModuleList([nn.Linear(10, 10)] * 10)`

    Return the three numbers in this order.
    """
    return 2, 22, 4


def check_own_branches(answer):
    """Three branches of a small ResNet: are they registered, what they start with and give, what they share."""
    model = SmallResNet()
    start = {name: tensor.clone() for name, tensor in model.layer4.state_dict().items()}
    branches = answer(model, 3, 5)
    _expect_registered(branches)
    features = _trunk(model.eval())(images())
    for number, branch in enumerate(branches):
        shape = _shape(branch.eval(), features, number)
        if shape != (4, 5):
            raise Wrong(f"Branch {number} gives {shape} for 4 images and 5 classes.", ask="What does `fc` give?")
        _expect_start(branch, start, number)
    _expect_apart(branches, model)


def _shape(branch, features, number):
    try:
        return tuple(branch(features).shape)
    except RuntimeError as error:
        text = f"Branch {number} cannot work with what `model.layer3` gives: `{str(error)[:120]}`."
        raise Wrong(text, ask="What shape does each of its layers get, one after the other?") from None


def _expect_registered(branches):
    if isinstance(branches, nn.Module) and not isinstance(
        branches, nn.ModuleList | nn.ModuleDict | nn.Sequential
    ):
        kind = type(branches).__name__
        raise Wrong(
            f"You returned one `{kind}`, not several branches.", ask="What holds modules, and knows their number?"
        )
    if isinstance(branches, nn.ModuleDict | dict):
        kind = type(branches).__name__
        raise Wrong(f"You returned a `{kind}`, whose branches have names.", ask="Which container has numbers?")
    holder = nn.Module()
    holder.branches = branches
    if not any(True for _ in holder.parameters()):
        text = "A module that holds what you returned has no parameters: no optimizer will ever see the branches."
        raise Wrong(text, ask="Which container of `torch.nn` is a list that a module looks into?")
    if len(branches) != 3:
        raise Wrong(f"You returned {len(branches)} branches instead of 3.", ask="What does the loop count?")


def _expect_start(branch, start, number):
    known = [tensor for tensor in branch.state_dict().values() if tensor.ndim == 4]
    if not any(torch.equal(tensor, start["0.conv1.weight"]) for tensor in known):
        ask = "Where should its values come from?"
        raise Wrong(f"Branch {number} does not start with what `model.layer4` has learned.", ask=ask)


def _expect_apart(branches, model):
    own = [{id(p) for p in branch.parameters()} for branch in branches]
    if own[0] == own[1]:
        text = "All branches are one and the same: what one learns, the others learn too."
        raise Wrong(text, ask="How often is the right side of your list evaluated?")
    if own[0] & own[1]:
        text = f"Branches 0 and 1 have {len(own[0] & own[1])} parameters in common."
        raise Wrong(text, ask="How many `layer4` are there in memory?")
    if own[0] & {id(p) for p in model.layer4.parameters()} or own[2] & {id(p) for p in model.layer4.parameters()}:
        text = "One of the branches has the `layer4` of the model itself."
        raise Wrong(text, ask="What happens to `model` if that branch is trained?")


def _trunk(model):
    stem = [model.conv1, model.bn1, model.relu, model.maxpool]
    return nn.Sequential(*stem, model.layer1, model.layer2, model.layer3)


def _repeat(model, count, num_classes):
    head = nn.Linear(model.fc.in_features, num_classes)
    return [nn.Sequential(model.layer4, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)] * count


def _by_append(model, count, num_classes):
    branches = nn.ModuleList()
    for _ in range(count):
        layers = [copy.deepcopy(model.layer4), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten()]
        branches.append(nn.Sequential(*layers, nn.Linear(model.fc.in_features, num_classes)))
    return branches


def _copies_of_one(model, count, num_classes):
    one = nn.Sequential(model.layer4, model.avgpool, nn.Flatten(), nn.Linear(model.fc.in_features, num_classes))
    return nn.ModuleList([copy.deepcopy(one) for _ in range(count)])


def _registered_but_one(model, count, num_classes):
    return nn.ModuleList(_repeat(model, count, num_classes))


def _own_head_shared_layer(model, count, num_classes):
    return nn.ModuleList(_repeat(model, 1, num_classes)[0] for _ in range(count))


def _plain_list(model, count, num_classes):
    return list(_by_append(model, count, num_classes))


def _first_is_the_model(model, count, num_classes):
    branches = _by_append(model, count, num_classes)
    branches[0][0] = model.layer4
    return branches


def _fresh_layer(model, count, num_classes):
    return nn.ModuleList(
        nn.Sequential(SmallResNet().layer4, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes))
        for _ in range(count)
    )


@exercise(
    check=check_own_branches,
    hints=[
        "Two things are wrong: who knows the list, and how many objects are in it.",
        "`nn.ModuleList` is the list that a module looks into. `[branch] * 3` holds one branch three times.",
        "`copy.deepcopy(model.layer4)` is a layer4 of one's own, with the same values.",
    ],
    also_right=[_by_append, _copies_of_one],
    mistakes=[
        Mistake(_repeat, says="has no parameters"),
        Mistake(_plain_list, says="has no parameters"),
        Mistake(_registered_but_one, says="one and the same"),
        Mistake(_own_head_shared_layer, says="in common"),
        Mistake(_first_is_the_model, says="the `layer4` of the model itself"),
        Mistake(_fresh_layer, says="does not start with"),
    ],
    broken=_repeat,
    remember="A ModuleList, a comprehension, and a deepcopy of whatever already exists.",
)
def own_branches(model: nn.Module, count: int, num_classes: int) -> nn.ModuleList:
    """Repair: return `count` branches that continue after `model.layer3`, each of which learns on its own.

    A branch is a copy of `model.layer4`, a pool, and a new linear layer for `num_classes`. `model` is a ResNet
    and stays as it is.
    """
    import copy

    def branch():
        layer4 = copy.deepcopy(model.layer4)
        head = nn.Linear(model.fc.in_features, num_classes)
        return nn.Sequential(layer4, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)

    return nn.ModuleList([branch() for _ in range(count)])
