"""Choose what to freeze: everything but the head, and exactly the parts that are named."""

import copy

import torch
from torch import nn

from ftlab.exercises.behaviour import below, expect_moves
from ftlab.exercises.core import Mistake, Wrong, exercise
from ftlab.exercises.models import SmallResNet, small_mobilenet


def check_freeze_backbone(answer):
    """Which parameters three training steps move in a small ResNet. Buffers are looked at in later exercises."""
    model = SmallResNet()
    answer(model)
    expect_moves(model, below(model, "fc"))


def _freeze_by_name(model):
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith("fc.")


def _freeze_every_child_but_the_last(model):
    *backbone, _ = model.children()
    for child in backbone:
        child.requires_grad_(False)


def _freeze_everything(model):
    for parameter in model.parameters():
        parameter.requires_grad = False


def _only_eval(model):
    model.eval()


def _set_an_attribute_of_the_modules(model):
    for name, child in model.named_children():
        child.requires_grad = name == "fc"


def _misspell_the_flag(model):
    for name, parameter in model.named_parameters():
        if not name.startswith("fc."):
            parameter.require_grad = False


def _freeze_a_copy(model):
    model = copy.deepcopy(model)
    model.requires_grad_(False)
    model.fc.requires_grad_(True)
    return model


def _freeze_convolutions_only(model):
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.requires_grad_(False)


def _freeze_the_head_instead(model):
    model.fc.requires_grad_(False)


def _freeze_inside_no_grad(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.detach()


@exercise(
    check=check_freeze_backbone,
    hints=[
        "A parameter is left alone if it gets no gradient. Which attribute of a parameter decides that?",
        "Compare `model.requires_grad_(False)`, with the last underscore, with `model.requires_grad = False`.",
        "Freeze the whole model in one call, then switch `model.fc` on again with the same call.",
    ],
    also_right=[_freeze_by_name, _freeze_every_child_but_the_last],
    mistakes=[
        Mistake(_freeze_everything, says="`fc.weight` neither"),
        Mistake(_only_eval, says="eval mode"),
        Mistake(_set_an_attribute_of_the_modules, says="attribute of `conv1` itself"),
        Mistake(_misspell_the_flag, says="`require_grad`, which PyTorch does not know"),
        Mistake(_freeze_a_copy, says="Nothing was switched off in the model that was handed over"),
        Mistake(_freeze_convolutions_only, says="`bn1.bias`, `bn1.weight`"),
        Mistake(_freeze_the_head_instead, says="`bn1.bias`, `bn1.weight`"),
        Mistake(_freeze_inside_no_grad, says="still move"),
    ],
    remember="`requires_grad_(False)` with the underscore works on a parameter, a module, a whole model.",
)
def freeze_backbone(model: nn.Module) -> None:
    """Freeze the parameters of `model`, a ResNet, so that training moves only those of its head `model.fc`."""
    model.requires_grad_(False)
    model.fc.requires_grad_(True)


def check_train_only(answer):
    """Which parameters training moves in a small MobileNetV3, for one name, for two, and after a second call."""
    for names in (["classifier"], ["features.10.block.0", "features.12"], ["features.1", "classifier"]):
        model = small_mobilenet()
        answer(model, names)
        _expect_not_the_last_alone(model, names)
        expect_moves(model, below(model, *names), where=f"With `names={names}`: ")
    answer(model, ["features.2"])
    expect_moves(model, below(model, "features.2"), where='In a second call, with `names=["features.2"]`: ')


def _expect_not_the_last_alone(model, names):
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if len(names) > 1 and trainable == below(model, names[-1]):
        ask = "What does the second round of the inner loop do with what the first one set?"
        raise Wrong(f"With `names={names}`, the last name, `{names[-1]}`, is the only one that counts.", ask=ask)


def _nested_loop(model, names):
    for name, parameter in model.named_parameters():
        for wanted in names:
            if name.split(".")[0] != wanted:
                parameter.requires_grad = False


def _train_by_prefix(model, names):
    prefixes = tuple(f"{name}." for name in names)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith(prefixes)


def _train_by_path(model, names):
    for name, parameter in model.named_parameters():
        path = name.split(".")
        ancestors = {".".join(path[:depth]) for depth in range(len(path) + 1)}
        parameter.requires_grad_(not ancestors.isdisjoint(names))


def _last_name_wins(model, names):
    for name, parameter in model.named_parameters():
        for wanted in names:
            parameter.requires_grad = name.startswith(wanted + ".")


def _freeze_if_any_differs(model, names):
    for name, parameter in model.named_parameters():
        parameter.requires_grad = not any(name.split(".")[0] != wanted for wanted in names)


def _train_by_substring(model, names):
    for name, parameter in model.named_parameters():
        parameter.requires_grad = any(wanted in name for wanted in names)


def _train_by_prefix_without_dot(model, names):
    for name, parameter in model.named_parameters():
        parameter.requires_grad = any(name.startswith(wanted) for wanted in names)


def _train_by_first_part(model, names):
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.split(".")[0] in names


def _never_switch_on(model, names):
    for name, parameter in model.named_parameters():
        if not any(name.startswith(wanted + ".") for wanted in names):
            parameter.requires_grad = False


def _train_by_attribute(model, names):
    model.requires_grad_(False)
    for name in names:
        getattr(model, name).requires_grad_(True)


@exercise(
    check=check_train_only,
    broken=_nested_loop,
    hints=[
        "Take `names` of two entries and follow one parameter through the inner loop. Can it escape both times?",
        "The question is about any of the names, and its answer is True or False: set the flag to it.",
        '`"features.1"` is the beginning of `"features.10.block"` too. `model.get_submodule(name)` is exact.',
    ],
    also_right=[_train_by_prefix, _train_by_path],
    mistakes=[
        Mistake(_last_name_wins, says="the last name, `features.12`, is the only one that counts"),
        Mistake(_freeze_if_any_differs, says="moved nothing at all"),
        Mistake(_train_by_substring, says="`features.10."),
        Mistake(_train_by_prefix_without_dot, says="`features.10."),
        Mistake(_train_by_first_part, says="moved nothing at all, `features.10."),
        Mistake(_never_switch_on, says="In a second call"),
        Mistake(_train_by_attribute, says="AttributeError"),
    ],
    remember="Compare whole names, part by part; a piece of text fits in places that you do not think of.",
)
def train_only(model: nn.Module, names: list[str]) -> None:
    """Repair: leave exactly the parameters of the modules `names` trainable, whatever was trainable before.

    A name is that of a module such as "classifier" or "features.1", and stands for everything below it.
    """
    model.requires_grad_(False)
    for name in names:
        model.get_submodule(name).requires_grad_(True)
