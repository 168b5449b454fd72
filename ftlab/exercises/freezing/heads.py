"""A frozen model and its head: a new one that can learn, and the one of a model that one does not know."""

from torch import nn

from ftlab.exercises.behaviour import below, expect_moves, images, moved, some, train
from ftlab.exercises.core import Mistake, Wrong, exercise
from ftlab.exercises.models import SmallResNet, small_mobilenet, small_vit


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
