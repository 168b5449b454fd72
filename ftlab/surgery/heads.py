"""The head of a model: find it, whatever it is called, and replace it."""

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torchvision.models.segmentation import LRASPP

from ftlab.given import inside, refuse_no_model
from ftlab.nearest import nearest
from ftlab.surgery.dry import dry_run, watching

_DETECTION = "torchvision.models.detection."


def head_names(model: nn.Module, example: Tensor | None = None) -> list[str]:
    """Return the names of the layers that give a number per class; the model is not changed.

    These are the last layer and, before it, those of auxiliary classifiers: two in GoogLeNet, one in Inception.
    An auxiliary classifier is a part whose name begins with "aux".

    The trap: without `example` the *order in which the layers were made* decides, for a module knows no other.
    That is right for every classification and every segmentation model of torchvision. Give an example for a
    model of your own: then the way from the output back to the first layers decides. It is walked without
    computing anything.

    Args:
        model: A classifier, of images or of pixels. Its head is linear, or a convolution of 1 x 1 as in
            SqueezeNet.
        example: A batch that fits, of two images or more.

    Raises:
        TypeError: It is no model, or the example is no tensor.
        ValueError: The last layer is no head; it may have been taken away. Or it is a detector, whose head gives
            boxes too.

    Example:
        >>> from torchvision import models
        >>> head_names(models.squeezenet1_1())
        ['classifier.1']
        >>> head_names(models.mobilenet_v3_small())  # its squeeze-excite layers are called fc1 and fc2
        ['classifier.3']
    """
    refuse_no_model(model)
    _refuse_detector(model)
    names = _last_made(model) if example is None else _before_the_output(model, example)
    if not any(names):
        raise ValueError(_no_name(model))
    for name in names:
        if not is_head(model.get_submodule(name)):
            raise ValueError(
                f"the last layer of this {type(model).__name__} is {name!r}, {_what(model.get_submodule(name))}, "
                "and no head; has it been taken away, or quantised? A head is nn.Linear, or nn.Conv2d of 1 x 1"
            )
    return names


def replace_head(model: nn.Module, num_classes: int, names: str | Sequence[str] | None = None) -> list[str]:
    """Replace every head by a new, random one with `num_classes` outputs; return the names.

    The model is changed. A new head requires gradients even if all the rest is frozen, and is on the device, of
    the dtype and in the mode of the old one; a plain `nn.Linear(...)` would be on the CPU, float32 and in train
    mode.

    The trap: an optimizer that was built before does not know the new head, and never trains it. Replace first.

    Args:
        model: A classifier.
        num_classes: Number of outputs, at least 1.
        names: Which layers, or which one; None takes those of `head_names`.

    Raises:
        TypeError: It is no model, or `num_classes` no whole number. The model is as it was.
        ValueError: `num_classes` is below 1, there is no such layer, or it is neither linear nor a 1 x 1
            convolution. The model is as it was.

    Example:
        >>> from torchvision import models
        >>> model = models.googlenet(init_weights=False)
        >>> replace_head(model, 4)
        ['aux1.fc2', 'aux2.fc2', 'fc']
        >>> model.fc
        Linear(in_features=1024, out_features=4, bias=True)
    """
    refuse_no_model(model)
    num_classes = class_count(num_classes)
    names = [names] if isinstance(names, str) else head_names(model) if names is None else list(names)
    old = {name: _layer(model, name) for name in names}  # all of them are looked at before anything is made
    for name, layer in old.items():
        model.set_submodule(name, _like(layer, num_classes))
    return names


def class_count(given: Any) -> int:
    """Return the number of classes that was asked for; refuse what is none.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is below 1.

    Example:
        >>> class_count("4")
        Traceback (most recent call last):
        TypeError: num_classes must be a whole number, not '4'
    """
    if isinstance(given, bool) or not isinstance(given, Integral):
        raise TypeError(f"num_classes must be a whole number, not {given!r}")
    if given < 1:
        raise ValueError(f"num_classes must be at least 1, not {given}")
    return int(given)


def is_head(layer: nn.Module) -> bool:
    """Return whether a layer can give one number per class: linear, or a convolution of 1 x 1."""
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1))


def _layer(model: nn.Module, name: str) -> nn.Module:
    modules = dict(model.named_modules())
    if name not in modules:
        raise ValueError(f"the model has no layer {name!r}; {nearest(name, filter(None, modules))}")
    if not name or not is_head(modules[name]):
        raise ValueError(
            f"{name!r} is {_what(modules[name])}; only nn.Linear and nn.Conv2d of 1 x 1 can be replaced by "
            "one like it. Any other is replaced by hand: model.set_submodule(name, new_layer)"
        )
    if is_lazy(modules[name].weight):
        raise ValueError(
            f"{name!r} is a {type(modules[name]).__name__} that has seen no batch, so nobody knows its number of "
            "inputs: call the model once with real data, then replace it"
        )
    return modules[name]


def _refuse_detector(model: nn.Module) -> None:
    """Refuse torchvision's detectors: their last layer is one for boxes, and must stay."""
    found = [m for m in model.modules() if type(m).__module__.startswith(_DETECTION)]
    if found:
        raise ValueError(
            f"{type(found[0]).__name__} is a detector: it says classes *and* boxes, for a set of anchors, so no "
            "layer alone is its head. Build it with num_classes=..., or give a FasterRCNN another "
            "model.roi_heads.box_predictor = FastRCNNPredictor(in_features, num_classes)"
        )


def _no_name(model: nn.Module) -> str:
    kind = type(model).__name__
    if next(model.parameters(recurse=False), None) is None:
        return f"this {kind} has no layer with parameters, so it has no head by name"
    return f"this {kind} is one layer and has none inside that could be replaced; make a new {kind}"


def _like(old: nn.Module, num_classes: int) -> nn.Module:
    given: dict[str, Any] = {
        "bias": old.bias is not None,
        "device": old.weight.device,
        "dtype": old.weight.dtype,
    }
    if isinstance(old, nn.Conv2d):
        new: nn.Module = nn.Conv2d(old.in_channels, num_classes, 1, stride=old.stride, **given)
    else:
        new = nn.Linear(old.in_features, num_classes, **given)
    return new.train(old.training)


def _last_made(model: nn.Module) -> list[str]:
    """Return the last layer with parameters of each part called aux..., and of the rest, in that order."""
    layers = [name for name, module in model.named_modules() if module._parameters]
    auxiliary = [name for name, _ in model.named_modules() if _is_auxiliary(name)]
    last = [[name for name in layers if name.startswith(f"{part}.") or name == part] for part in auxiliary]
    rest = [name for name in layers if not any(name in part for part in last)]
    if isinstance(inside(model), LRASPP):
        return rest[-2:]  # what it says is the sum of two layers
    return list(dict.fromkeys(part[-1] for part in [*last, rest] if part))


def _is_auxiliary(name: str) -> bool:
    return name.rpartition(".")[2].lower().startswith("aux")


def _before_the_output(model: nn.Module, example: Tensor) -> list[str]:
    """Return the layers whose numbers reach the output with no other layer in between."""
    made: dict[Any, str] = {}  # which layer made the number that this step of autograd gives
    layers = {name: module for name, module in model.named_modules() if name and module._parameters}

    def see(name: str, inputs: tuple, output: Any) -> None:
        if isinstance(output, Tensor):
            made.setdefault(output.grad_fn, name)

    with watching(layers, see), torch.enable_grad():
        output = dry_run(model, example, training=True)
    todo, seen, found = [tensor.grad_fn for tensor in _tensors(output)], set(), set()
    while todo:
        step = todo.pop()
        if step in made:
            found.add(made[step])
        elif step is not None and step not in seen:
            seen.add(step)
            todo += [before for before, _ in step.next_functions]
    return sorted((name for name in layers if name in found), key=_is_main)


def _is_main(name: str) -> bool:
    return not any(map(_is_auxiliary, name.split(".")))


def _tensors(output: Any) -> Iterable[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    inside = output.values() if isinstance(output, dict) else output
    return [tensor for part in inside if part is not None for tensor in _tensors(part)]


def _what(layer: nn.Module) -> str:
    kernel = getattr(layer, "kernel_size", None)
    return f"a {type(layer).__name__}" + (f" of {' x '.join(map(str, kernel))}" if kernel else "")
