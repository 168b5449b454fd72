"""Choose what to freeze: by hand, by name, before a new head, and in a model one does not know."""

import copy

import torch
from torch import nn

from ftlab.exercises.behaviour import below, expect_moves, images, moved, some, train
from ftlab.exercises.core import Mistake, Wrong, exercise
from ftlab.exercises.models import SmallResNet, small_mobilenet, small_vit


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


def check_replace_head(answer):
    """The scores of two small ResNets of different width, and which parameters training moves in them."""
    for num_classes, thinner in ((2, 8), (5, 16)):
        model = SmallResNet(num_classes=7, thinner=thinner)
        answer(model, num_classes)
        _expect_scores(model, num_classes)
        moving = moved(model, lambda model=model: train(model)) & below(model, *dict(model.named_children()))
        outside = {name for name in moving if not name.startswith("fc.")}
        if outside:
            raise Wrong(f"{some(outside)} of the backbone moved in training.", ask="Which line freezes them?")
        if not moving:
            ask = "In which order were the model frozen and the head put in?"
            raise Wrong("The new head did not move in training, nor did anything else.", ask=ask)


def _expect_scores(model: nn.Module, num_classes: int) -> None:
    given = f"With `num_classes={num_classes}`"
    try:
        shape = tuple(model.eval()(images()).shape)
    except RuntimeError as error:
        ask = "How many numbers does the backbone hand to its head? `model.fc` knows."
        raise Wrong(f"{given} the model cannot run any more: `{error}`.", ask=ask) from None
    if shape != (4, num_classes):
        ask = "Which tensor has to have another shape: an attribute, or the weight?"
        raise Wrong(f"{given} four images gave scores of shape `{shape}`.", ask=ask)


def _freeze_after_the_new_head(model, num_classes):
    model.fc = nn.Linear(model.fc.in_features, num_classes)
    model.requires_grad_(False)


def _switch_on_afterwards(model, num_classes):
    model.fc = nn.Linear(model.fc.in_features, num_classes)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith("fc.")


def _a_layer_behind_the_old_head(model, num_classes):
    model.requires_grad_(False)
    model.fc = nn.Sequential(model.fc, nn.ReLU(), nn.Linear(model.fc.out_features, num_classes))


def _set_out_features(model, num_classes):
    model.requires_grad_(False)
    model.fc.out_features = num_classes
    model.fc.requires_grad_(True)


def _width_by_heart(model, num_classes):
    model.requires_grad_(False)
    model.fc = nn.Linear(512, num_classes)


def _new_head_only(model, num_classes):
    model.fc = nn.Linear(model.fc.in_features, num_classes)


def _head_beside_the_model(model, num_classes):
    model.requires_grad_(False)
    return nn.Linear(model.fc.in_features, num_classes)


def _head_under_another_name(model, num_classes):
    model.requires_grad_(False)
    model.classifier = nn.Linear(model.fc.in_features, num_classes)


@exercise(
    check=check_replace_head,
    broken=_freeze_after_the_new_head,
    hints=[
        "Print `[n for n, p in model.named_parameters() if p.requires_grad]` after each line.",
        "A new layer is born trainable. What happens to it in the line below?",
        "Change the order of the two lines.",
    ],
    also_right=[_switch_on_afterwards, _a_layer_behind_the_old_head],
    mistakes=[
        Mistake(_set_out_features, says="scores of shape `(4, 7)`"),
        Mistake(_width_by_heart, says="cannot run any more"),
        Mistake(_new_head_only, says="of the backbone moved"),
        Mistake(_head_beside_the_model, says="scores of shape `(4, 7)`"),
        Mistake(_head_under_another_name, says="scores of shape `(4, 7)`"),
    ],
    remember="Freeze first, then replace: a new layer is trainable by itself.",
)
def replace_head(model: nn.Module, num_classes: int) -> None:
    """Repair: freeze `model`, a ResNet, and give it a new head `model.fc` for `num_classes` that can learn."""
    model.requires_grad_(False)
    model.fc = nn.Linear(model.fc.in_features, num_classes)


def check_freeze_all_but_head(answer):
    """Which parameters training moves in a small ResNet, a MobileNetV3 and a ViT."""
    heads = {"ResNet": "fc", "MobileNetV3": "classifier.3", "ViT": "heads.head"}
    models = {"ResNet": SmallResNet(), "MobileNetV3": small_mobilenet(), "ViT": small_vit()}
    for kind, model in models.items():
        answer(model)
        expect_moves(model, below(model, heads[kind]), where=f"On a small {kind}: ")


def _head_is_the_last_linear_by_name(model):
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name in (f"{linear[-1]}.weight", f"{linear[-1]}.bias")


def _last_weight_and_bias(model):
    *backbone, weight, bias = model.parameters()
    for parameter in backbone:
        parameter.requires_grad_(False)
    weight.requires_grad_(True)
    bias.requires_grad_(True)


def _fc_in_name(model):
    for name, parameter in model.named_parameters():
        if "fc" not in name:
            parameter.requires_grad_(False)


def _count_children(model):
    for index, child in enumerate(model.children()):
        if index < 9:
            child.requires_grad_(False)


def _all_children_but_the_last(model):
    for child in list(model.children())[:-1]:
        child.requires_grad_(False)


def _a_list_of_known_heads(model):
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith(("fc.", "classifier."))


def _model_fc(model):
    model.requires_grad_(False)
    model.fc.requires_grad_(True)


def _all_linear_layers(model):
    model.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.requires_grad_(True)


@exercise(
    check=check_freeze_all_but_head,
    hints=[
        "Print the names of the parameters of `torchvision.models.mobilenet_v3_small()` and `vit_b_16()`. "
        "Where else does `fc` stand? What belongs to no child?",
        "`model.children()` are the outermost modules only: 10 in a ResNet, 3 in a MobileNetV3.",
        "`model.modules()` goes through all of them. Which are of the type `nn.Linear`, and which comes last?",
    ],
    also_right=[_head_is_the_last_linear_by_name, _last_weight_and_bias],
    mistakes=[
        Mistake(_fc_in_name, says="On a small MobileNetV3: `features.1.block.2.fc1.bias`"),
        Mistake(_count_children, says="On a small MobileNetV3: Three training steps moved nothing"),
        Mistake(_all_children_but_the_last, says="`classifier.0.bias`"),
        Mistake(_a_list_of_known_heads, says="`classifier.0.bias`"),
        Mistake(_model_fc, says="has no attribute 'fc'"),
        Mistake(_all_linear_layers, says="`classifier.0.bias`"),
    ],
    remember="A rule that fits one network is no rule: run it on another, and look at what moves.",
)
def freeze_all_but_head(model: nn.Module) -> None:
    """Transfer: freeze every parameter but those of the head, whichever network of torchvision `model` is.

    The head is the last layer `nn.Linear` among all modules. A ResNet calls it `fc`, a MobileNetV3
    `classifier.3`, a ViT `heads.head`, and a ViT has parameters that belong to no layer at all.
    """
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    model.requires_grad_(False)
    head.requires_grad_(True)
