"""Ask for weights: what a call loads."""

import reprlib
import warnings
from collections.abc import Callable
from typing import Any

from torchvision import models

from ftlab.exercises.behaviour import some
from ftlab.exercises.core import Mistake, Wrong, exercise
from ftlab.pretrained import asked_weights

_CALLS: dict[str, Callable[[], Any]] = {
    "a": lambda: models.resnet50(),
    "b": lambda: models.resnet50(weights=None),
    "c": lambda: models.resnet50(weights="DEFAULT"),
    "d": lambda: models.resnet50(pretrained=True),
    "e": lambda: models.resnet50(weights=models.ResNet18_Weights.DEFAULT),
    "f": lambda: models.resnet50(weights="IMAGENET1K_V2", num_classes=4),
}
_WORDS = ("random", "V1", "V2", "error")


def check_what_is_loaded(answer):
    """The six calls themselves, each run until it asks for a file, fails or is done."""
    said = answer()
    if not isinstance(said, dict) or set(said) != set(_CALLS):
        raise Wrong(
            f"Not a dictionary with the keys a to f: `{reprlib.repr(said)}`.",
            ask="Does it have one entry per call?",
        )
    if unknown := {str(word) for word in said.values()} - set(_WORDS):
        raise Wrong(f"{some(unknown)} is none of the four words.", ask='Is it like `"random"` or `"V1"`?')
    for letter, call in _CALLS.items():
        if said[letter] != (happens := _outcome(call)):
            raise Wrong(
                f'You said "{said[letter]}" for {letter}, and that is not what it does.', ask=_ASK[happens]
            )


_ASK = {
    "random": "What does the builder take if nobody asks for weights, and does it say so?",
    "V1": "There were no versions yet when this argument was invented. Which weights can it mean?",
    "V2": "Which of the two entries is the better one? `pretrained.entries('resnet50')` lists them.",
    "error": "Do the weights fit what is asked for: the network, and the number of classes?",
}


def _outcome(call: Callable[[], Any]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            entry = asked_weights(call)
        except (TypeError, ValueError):
            return "error"
    return entry.name[-2:] if entry else "random"


def _as_pairs():
    return dict(zip("abcdef", ["random", "random", "V2", "V1", "error", "error"], strict=True))


def _in_another_order():
    return {"f": "error", "e": "error", "d": "V1", "c": "V2", "b": "random", "a": "random"}


def _pretrained_by_default():
    return {"a": "V2", "b": "random", "c": "V2", "d": "V1", "e": "error", "f": "error"}


def _pretrained_is_the_best():
    return {"a": "random", "b": "random", "c": "V2", "d": "V2", "e": "error", "f": "error"}


def _default_is_the_first():
    return {"a": "random", "b": "random", "c": "V1", "d": "V1", "e": "error", "f": "error"}


def _any_resnet_fits():
    return {"a": "random", "b": "random", "c": "V2", "d": "V1", "e": "V1", "f": "error"}


def _a_new_head_for_free():
    return {"a": "random", "b": "random", "c": "V2", "d": "V1", "e": "error", "f": "V2"}


def _one_word_for_all():
    return "random"


@exercise(
    check=check_what_is_loaded,
    hints=[
        "For a and b: look at `help(models.resnet50)`. What is the default of `weights`?",
        "`pretrained.asked_weights(lambda: models.resnet50(...))` runs a call without downloading anything.",
        "`pretrained=True` is from before there was a V2, and must go on meaning what it meant.",
    ],
    also_right=[_as_pairs, _in_another_order],
    mistakes=[
        Mistake(_pretrained_by_default, says='"V2" for a'),
        Mistake(_pretrained_is_the_best, says='"V2" for d'),
        Mistake(_default_is_the_first, says='"V1" for c'),
        Mistake(_any_resnet_fits, says='"V1" for e'),
        Mistake(_a_new_head_for_free, says='"V2" for f'),
        Mistake(_one_word_for_all, says="Not a dictionary"),
    ],
    remember="Silence means random. `weights=` with the name of an entry says what you mean, also next year.",
)
def what_is_loaded() -> dict[str, str]:
    """Predict: which parameters does each call give?

        a: models.resnet50()                       d: models.resnet50(pretrained=True)
        b: models.resnet50(weights=None)           e: models.resnet50(weights=models.ResNet18_Weights.DEFAULT)
        c: models.resnet50(weights="DEFAULT")      f: models.resnet50(weights="IMAGENET1K_V2", num_classes=4)

    Return a dictionary from letter to "random", "V1", "V2" or "error".
    """
    return {"a": "random", "b": "random", "c": "V2", "d": "V1", "e": "error", "f": "error"}
