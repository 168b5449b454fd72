"""Where parameters, work and memory are, and what follows from it."""

import functools
import reprlib
import warnings

import torch
from torch import nn
from torchvision import models

from ftlab.exercises.behaviour import as_names
from ftlab.exercises.core import Mistake, Wrong, exercise
from ftlab.summary import ModelSummary, summarize

_QUESTIONS = ("parameters", "multiply_adds", "activations")


@functools.cache
def _summary(name: str, batch: int = 1, frozen: str = "") -> ModelSummary:
    with torch.device("meta"):
        model = models.get_model(name)
    if frozen:
        model.get_submodule(frozen).requires_grad_(False)
    return summarize(model, (batch, 3, 224, 224))


def check_where_is_what(answer):
    """What `summarize` counts in both parts of an AlexNet."""
    given = answer()
    if not isinstance(given, tuple | list) or len(given) != len(_QUESTIONS):
        raise Wrong(
            f"Three answers were asked for, you gave `{reprlib.repr(given)}`.", ask="Which three are asked?"
        )
    found = _summary("alexnet")
    for number, (part, question) in enumerate(zip(given, _QUESTIONS, strict=True), start=1):
        if part not in ("features", "classifier"):
            raise Wrong(
                f"AlexNet has no part `{reprlib.repr(part)}`.", ask="How are the two parts called in the task?"
            )
        share = getattr(found[part], question) / getattr(found.rows[0], question)
        if share < 0.5:
            text = f"Answer {number}: in the {part} are {share:.0%} of the {question.replace('_', '-')}."
            raise Wrong(text, ask="How often is one weight used there, and how large is what comes out?")


def _as_a_list():
    return ["classifier", "features", "features"]


def _by_variables():
    parameters, work, memory = "classifier", "features", "features"
    return parameters, work, memory


def _all_in_classifier():
    return "classifier", "classifier", "classifier"


def _all_in_features():
    return "features", "features", "features"


def _memory_with_parameters():
    return "classifier", "features", "classifier"


def _one_word():
    return "classifier"


@exercise(
    check=check_where_is_what,
    hints=[
        "A linear layer has one weight for each pair of input and output. How often is it used per image?",
        "A convolution has few weights and uses each of them at every place of the picture.",
        "What is kept for backward is what layers give: pictures with many channels, or a row of numbers?",
    ],
    also_right=[_as_a_list, _by_variables],
    mistakes=[
        Mistake(_all_in_classifier, says="Answer 2: in the classifier are"),
        Mistake(_all_in_features, says="Answer 1: in the features are"),
        Mistake(_memory_with_parameters, says="Answer 3: in the classifier are"),
        Mistake(_one_word, says="Three answers were asked for"),
    ],
    remember="Parameters sit in wide linear layers and late stages; work and memory in early, large ones.",
)
def where_is_what() -> tuple[str, str, str]:
    """Predict: in which part of an AlexNet are most parameters, most multiply-adds, most activations?

    Its parts are "features" (five convolutions) and "classifier" (three linear layers); the input is an image of
    224 pixels. Return three names: for parameters, for multiply-adds, for the memory kept for backward.
    """
    return "classifier", "features", "features"


_SIZES = ("resnet18", "vgg11", "alexnet", "vit_b_16", "flat")


@functools.cache
def _error_at_64(name: str) -> str:
    """Return what the network raises on images of 64 pixels; an empty text if it takes them."""
    with torch.device("cpu" if name == "flat" else "meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 112 * 112, 10)]
        network = nn.Sequential(*layers) if name == "flat" else models.get_model(name)
        try:
            network.eval()(torch.empty(2, 3, 64, 64))
        except (RuntimeError, AssertionError) as error:
            return f"{type(error).__name__}: {error}"
    return ""


def check_which_sizes(answer):
    """Each network, given images of 64 pixels."""
    given = as_names(answer(), _SIZES)
    for name in _SIZES:
        if name in given and (error := _error_at_64(name)):
            ask = "Which of its layers or parameters is made for one number of places?"
            raise Wrong(f"`{name}` does not take them. It raised `{error}`.", ask=ask)
    missing = {name for name in _SIZES if name not in given and not _error_at_64(name)}
    if missing:
        text = f"Those that you name take them, but you left out {len(missing)} that do so too."
        text = text if given else f"{len(missing)} of them do."
        raise Wrong(text, ask="What stands between the last convolution and the first linear layer of each?")


def _as_list():
    return ["alexnet", "vgg11", "resnet18"]


def _by_difference():
    return set(_SIZES) - {"vit_b_16", "flat"}


def _none():
    return set()


def _everything():
    return set(_SIZES)


def _only_resnet():
    return {"resnet18"}


def _flat_too():
    return {"resnet18", "vgg11", "alexnet", "flat"}


def _vit_too():
    return {"resnet18", "vgg11", "alexnet", "vit_b_16"}


@exercise(
    check=check_which_sizes,
    hints=[
        "A convolution takes pictures of any size. Which layers do not?",
        "`AdaptiveAvgPool2d` always gives the same number of places, whatever comes in. Who has one?",
        "A vision transformer has learned one vector for each of its 14 x 14 patches.",
    ],
    also_right=[_as_list, _by_difference],
    mistakes=[
        Mistake(_none, says="3 of them do"),
        Mistake(_only_resnet, says="left out 2 that do so too"),
        Mistake(_everything, says="Wrong image height"),
        Mistake(_vit_too, says="Wrong image height"),
        Mistake(_flat_too, says="cannot be multiplied"),
    ],
    remember="An adaptive pool before the linear layers makes a network take other sizes; a ViT takes one.",
)
def which_sizes() -> set[str]:
    """Predict: which of these networks, made for images of 224 pixels, take images of 64 pixels?

    "resnet18", "vgg11", "alexnet" and "vit_b_16" are torchvision's. "flat" is `nn.Sequential(nn.Conv2d(3, 8, 3,
    stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 112 * 112, 10))`.
    """
    return {"resnet18", "vgg11", "alexnet"}


_CHOICES = ("smaller batch", "SGD", "freeze layer4", "smaller head")
_REASONS = {
    "parameters": "The parameters take the same memory after it.",
    "gradients": "Gradients are as large as the parameters, whatever the batch.",
    "optimizer": "What the optimizer remembers is as large as the parameters, whatever the batch.",
    "activations": "",
}


def check_save_memory(answer):
    """What `summarize` counts for a ResNet-50 after each of the changes; the reason."""
    given = answer()
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise Wrong(
            f"A choice and a reason were asked for, you gave `{reprlib.repr(given)}`.", ask="Are there two texts?"
        )
    choice, reason = given
    if choice not in _CHOICES or reason not in _REASONS:
        text = f"`{choice!r}, {reason!r}` is not in the task's lists."
        raise Wrong(text, ask="Is the choice first, then the reason?")
    saved = _saved()
    if saved[choice] < max(saved.values()):
        text = f'"{choice}" saves {saved[choice] / 2**20:,.0f} MiB of {_needed(64) / 2**20:,.0f}.'
        raise Wrong(text, ask="What fills the memory, and what does it grow with?")
    if _REASONS[reason]:
        raise Wrong(
            f"The choice is right, the reason is not. {_REASONS[reason]}", ask="What grows with the batch?"
        )


@functools.cache
def _saved() -> dict[str, int]:
    full, found = _needed(64), _summary("resnet50", 64)
    return {
        "smaller batch": full - _needed(32),
        "SGD": found.optimizer_bytes["Adam, AdamW"],
        "freeze layer4": full - _needed(64, "layer4"),
        "smaller head": 4 * 4 * (found["fc"].parameters * 9 // 10),
    }


def _needed(batch: int, frozen: str = "") -> int:
    found = _summary("resnet50", batch, frozen)
    state = found.optimizer_bytes["Adam, AdamW"]
    return found.parameter_bytes + found.gradient_bytes + found.activations + state


def _pair_as_list():
    return ["smaller batch", "activations"]


def _named_pair():
    choice, reason = "smaller batch", "activations"
    return choice, reason


def _adam_is_large():
    return "SGD", "optimizer"


def _freeze_most_parameters():
    return "freeze layer4", "gradients"


def _smaller_head():
    return "smaller head", "parameters"


def _batch_for_gradients():
    return "smaller batch", "gradients"


def _choice_alone():
    return "smaller batch"


@exercise(
    check=check_save_memory,
    hints=[
        "`summarize(models.resnet50(), (64, 3, 224, 224)).memory()` shows what a step needs.",
        "Parameters, gradients and Adam's two moments: four times 98 MiB. And the rest?",
        "One part grows with the number of images, and it is by far the largest.",
    ],
    also_right=[_pair_as_list, _named_pair],
    mistakes=[
        Mistake(_adam_is_large, says='"SGD" saves 195 MiB'),
        Mistake(_freeze_most_parameters, says='"freeze layer4" saves'),
        Mistake(_smaller_head, says='"smaller head" saves'),
        Mistake(_batch_for_gradients, says="whatever the batch"),
        Mistake(_choice_alone, says="A choice and a reason were asked for"),
    ],
    remember="In convolutional networks the activations fill the memory, and they grow with the batch.",
    seconds=60,
)
def save_memory() -> tuple[str, str]:
    """Choose and justify: a ResNet-50 is trained on 64 images of 224 pixels with AdamW. What saves most memory?

    Choices: "smaller batch" (32 instead of 64), "SGD" (without momentum, instead of AdamW), "freeze layer4" (the
    last stage, 59 % of the parameters), "smaller head" (100 classes instead of 1000).
    Reasons: it makes fewer "parameters", fewer "gradients", less state of the "optimizer", fewer "activations".
    Return both, the choice first.
    """
    return "smaller batch", "activations"
