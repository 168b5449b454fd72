"""Counting parameters, and the work of a convolution."""

import copy
import reprlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ftlab.exercises.core import Mistake, Wrong, exercise
from ftlab.exercises.models import SmallResNet, small_vit


class _Tied(nn.Module):
    """Words in, words out, with one table for both."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.decode = nn.Embedding(10, 4), nn.Linear(4, 10)
        self.decode.weight = self.embed.weight


def _models() -> Iterator[tuple[str, nn.Module]]:
    for name, model, frozen in (
        ("A ResNet", SmallResNet(), "layer1"),
        ("A vision transformer", small_vit(), "encoder"),
        ("A model with a tied weight", _Tied(), "embed"),
    ):
        model.get_submodule(frozen).requires_grad_(False)
        yield name, model


def check_count_parameters(answer):
    """Both numbers for a ResNet, a vision transformer and a model with a tied weight, each partly frozen."""
    for name, model in _models():
        pair = answer(model)
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise Wrong(
                f"Two numbers were asked for, you gave `{reprlib.repr(pair)}`.",
                ask="Total first, then trainable?",
            )
        parameters = list(model.parameters())
        total = sum(p.numel() for p in parameters)
        trainable = sum(p.numel() for p in parameters if p.requires_grad)
        if tuple(pair) == (trainable, total) != (total, trainable):
            raise Wrong(f"{name}: these are the two numbers, in the other order.", ask="Which one comes first?")
        if pair[0] != total:
            ask = "Which method of the model gives every parameter, and each one once?"
            raise Wrong(
                f"{name}: you counted {pair[0]} values in all. {_reason(model, pair[0])}".strip(), ask=ask
            )
        if pair[1] != trainable:
            text = f"{name}: the total is right. Of it you call {pair[1]} trainable; a part of it is frozen."
            raise Wrong(text, ask="Where does a parameter say whether it is to have a gradient?")


def _reason(model: nn.Module, counted: object) -> str:
    parameters, buffers = list(model.parameters()), list(model.buffers())
    inside = {id(p) for child in model.children() for p in child.parameters()}
    loose = {name: p.numel() for name, p in model.named_parameters() if id(p) not in inside}
    total = sum(p.numel() for p in parameters)
    if counted == len(parameters):
        return "That is the number of tensors; each has many values."
    if buffers and counted == total + sum(b.numel() for b in buffers):
        return "With its statistics and counters: a `state_dict` has buffers too."
    if loose and counted == total - sum(loose.values()):
        return f"`{', '.join(loose)}` belongs to no child."
    return "A parameter with two names is one parameter." if isinstance(counted, int) and counted > total else ""


def _in_a_loop(model):
    total = trainable = 0
    for parameter in model.parameters():
        total += parameter.numel()
        if parameter.requires_grad:
            trainable += parameter.numel()
    return total, trainable


def _by_names(model):
    sizes = {name: (p.numel(), p.requires_grad) for name, p in model.named_parameters()}
    return sum(size for size, _ in sizes.values()), sum(size for size, trains in sizes.values() if trains)


def _by_identity(model):
    unique = {id(p): p for module in model.modules() for p in module.parameters()}.values()
    return sum(p.numel() for p in unique), sum(p.numel() for p in unique if p.requires_grad)


def _by_state_dict(model):
    total = sum(tensor.numel() for tensor in model.state_dict().values())
    return total, sum(p.numel() for p in model.parameters() if p.requires_grad)


def _by_children(model):
    inside = [p for child in model.children() for p in child.parameters()]
    return sum(p.numel() for p in inside), sum(p.numel() for p in inside if p.requires_grad)


def _by_modules(model):
    inside = [p for module in model.modules() for p in module.parameters(recurse=False)]
    return sum(p.numel() for p in inside), sum(p.numel() for p in inside if p.requires_grad)


def _tensors(model):
    tensors = list(model.parameters())
    return len(tensors), sum(p.requires_grad for p in tensors)


def _all_trainable(model):
    total = sum(p.numel() for p in model.parameters())
    return total, total


def _total_alone(model):
    return sum(p.numel() for p in model.parameters())


@exercise(
    check=check_count_parameters,
    hints=[
        "Which method of a module gives all parameters below it, and each tensor once?",
        "`p.numel()` is the number of values of a tensor, `p.requires_grad` tells whether it is trainable.",
        "`sum(p.numel() for p in model.parameters())` is the first number.",
    ],
    also_right=[_in_a_loop, _by_names, _by_identity],
    mistakes=[
        Mistake(_by_state_dict, says="has buffers too"),
        Mistake(_by_children, says="`class_token` belongs to no child"),
        Mistake(_by_modules, says="A parameter with two names is one parameter"),
        Mistake(_tensors, says="the number of tensors"),
        Mistake(_all_trainable, says="a part of it is frozen"),
        Mistake(_total_alone, says="Two numbers were asked for"),
    ],
    remember="`model.parameters()` gives each tensor once, tied and bare ones too; a `state_dict` has more.",
)
def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Return how many values the parameters of `model` have: all of them, and those that are trainable.

    A tensor that two layers share counts once; buffers, such as the statistics of batch norm, do not count.
    """
    parameters = list(model.parameters())
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    return sum(p.numel() for p in parameters), sum(p.numel() for p in trainable)


_LAYERS = (
    nn.Conv2d(3, 8, 3, padding=1, device="meta"),
    nn.Conv2d(3, 8, 3, padding=1, stride=2, device="meta"),
    nn.Conv2d(8, 8, 3, padding=1, groups=8, device="meta"),
    nn.Conv2d(4, 6, (5, 3), dilation=2, bias=False, device="meta"),
)


def check_multiply_adds(answer):
    """Four convolutions: a plain one, one with a stride, a grouped one, and one without padding."""
    for given in _LAYERS:
        layer = copy.deepcopy(given).to_empty(device="cpu")
        nn.init.normal_(layer.weight)
        found, wanted = answer(layer, 32, 24), _counted(given)
        if isinstance(found, torch.Tensor) or not isinstance(found, int | float):
            raise Wrong(f"You gave something of type `{type(found).__name__}`.", ask="How is it made a number?")
        if found != wanted:
            text = f"For {given} on 32×24 you counted {found:,}. {_slip(given, found, wanted)}"
            raise Wrong(text.strip(), ask="How many multiplications does one number of the output take?")


def _counted(layer: nn.Conv2d) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer(torch.empty(1, layer.in_channels, 32, 24, device="meta"))
    return counter.get_total_flops() // 2


def _slip(layer: nn.Conv2d, found: float, wanted: int) -> str:
    weight = layer.weight.numel()
    places = wanted // weight
    return {
        weight: "The same weights are used at every place of the output.",
        weight * 32 * 24: "The output has fewer places than the input.",
        wanted * layer.groups: "In a grouped convolution an output sees a part of the input channels.",
        2 * wanted: "A multiplication with its addition counts one here.",
        places * (weight + layer.out_channels): "Adding the bias multiplies nothing.",
    }.get(found, "")


def _by_formula(layer, height, width):
    sizes = []
    for axis, size in enumerate((height, width)):
        reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1) + 1
        sizes.append((size + 2 * layer.padding[axis] - reach) // layer.stride[axis] + 1)
    return sizes[0] * sizes[1] * layer.weight.numel()


def _by_counter(layer, height, width):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer(torch.zeros(1, layer.in_channels, height, width))
    return counter.get_total_flops() // 2


def _weights_alone(layer, height, width):
    return layer.weight.numel()


def _input_places(layer, height, width):
    return layer.weight.numel() * height * width


def _without_groups(layer, height, width):
    out = layer(torch.zeros(1, layer.in_channels, height, width))
    kernel = layer.kernel_size[0] * layer.kernel_size[1]
    return layer.in_channels * layer.out_channels * kernel * out.shape[2] * out.shape[3]


def _flops(layer, height, width):
    return 2 * _by_formula(layer, height, width)


def _with_bias(layer, height, width):
    values = sum(p.numel() for p in layer.parameters())
    out = layer(torch.zeros(1, layer.in_channels, height, width))
    return values * out.shape[2] * out.shape[3]


@exercise(
    check=check_multiply_adds,
    hints=[
        "One number of the output is a sum of products. With how many weights?",
        "Every weight is used once for each place (row and column) of the output.",
        "How large the output is, the layer tells: give it `torch.zeros(1, layer.in_channels, height, width)`.",
    ],
    also_right=[_by_formula, _by_counter],
    mistakes=[
        Mistake(_weights_alone, says="The same weights are used at every place"),
        Mistake(_input_places, says="The output has fewer places than the input"),
        Mistake(_without_groups, says="In a grouped convolution"),
        Mistake(_flops, says="A multiplication with its addition counts one"),
        Mistake(_with_bias, says="Adding the bias multiplies nothing"),
    ],
    remember="A convolution's work is its weights times the places of its output: few parameters, much work.",
)
def multiply_adds(layer: nn.Conv2d, height: int, width: int) -> int:
    """Return how many multiply-adds `layer` does for one image of `height` x `width`, without its bias.

    A multiplication together with its addition counts one.
    """
    with torch.no_grad():
        out = layer(torch.zeros(1, layer.in_channels, height, width))
    return layer.weight.numel() * out.shape[2] * out.shape[3]
