"""Which GPU is which, after CUDA_VISIBLE_DEVICES."""

import os

import torch

from ftlab.exercises.core import Mistake, Wrong, exercise

_SETTINGS = ("2,0", "0,x,1", "1,-1,0", "0,0", "")


def check_visible(answer):
    """What PyTorch itself reads from the variable, for each of the five values; no GPU is needed for that."""
    value = answer()
    if not isinstance(value, dict) or set(value) != set(_SETTINGS):
        keys = ", ".join(repr(setting) for setting in _SETTINGS)
        raise Wrong(f"A dictionary with the keys {keys} was asked for.", ask='Is it like `{"2,0": [], ...}`?')
    for setting in _SETTINGS:
        real, said = _read(setting), value[setting]
        if isinstance(said, str) or (isinstance(said, list | tuple) and any(isinstance(n, str) for n in said)):
            text = f"For `{setting!r}` you gave `{said!r}`: a list of numbers was asked for, and that is text."
            raise Wrong(text, ask="Is it like `[2, 0]`?")
        if isinstance(said, int):
            text = f"For `{setting!r}` you gave `{said!r}`: a list of numbers was asked for."
            raise Wrong(text, ask="Is it like `[2, 0]`, also where there is only one?")
        if not isinstance(said, list | tuple) or list(said) != real:
            text = f"With `{setting!r}` the visible GPUs are not `{said!r}`."
            raise Wrong(text, ask=_ASKS[setting])


_ASKS = {
    "2,0": "Does the order in the variable count, and which number does PyTorch give to the first?",
    "0,x,1": "What does the driver do with the rest of the list after an entry that it does not know?",
    "1,-1,0": "-1 is no GPU. What comes of the entries behind it?",
    "0,0": "One GPU under two numbers: is that a list that makes sense?",
    "": "Does an empty value name a GPU? No GPU at all is an empty list.",
}


def _read(setting: str) -> list[int]:
    """Return what PyTorch reads from this value of the variable; the environment is as before."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = setting
    try:
        return list(torch.cuda._parse_visible_devices())
    finally:
        del os.environ["CUDA_VISIBLE_DEVICES"]
        if before is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


def _visible_as_tuples():
    return {"2,0": (2, 0), "0,x,1": (0,), "1,-1,0": (1,), "0,0": (), "": ()}


def _as_text():
    return {"2,0": ["2", "0"], "0,x,1": ["0"], "1,-1,0": ["1"], "0,0": [], "": []}


def _sorted_by_number():
    return {"2,0": [0, 2], "0,x,1": [0], "1,-1,0": [1], "0,0": [], "": []}


def _skips_what_is_wrong():
    return {"2,0": [2, 0], "0,x,1": [0, 1], "1,-1,0": [1], "0,0": [], "": []}


def _minus_one_is_skipped():
    return {"2,0": [2, 0], "0,x,1": [0], "1,-1,0": [1, 0], "0,0": [], "": []}


def _once_is_enough():
    return {"2,0": [2, 0], "0,x,1": [0], "1,-1,0": [1], "0,0": [0], "": []}


def _empty_is_all():
    return {"2,0": [2, 0], "0,x,1": [0], "1,-1,0": [1], "0,0": [], "": [0, 1, 2]}


@exercise(
    check=check_visible,
    hints=[
        "The order counts: the first in the list is `cuda:0`. The list ends at the first entry that is wrong.",
        "A number that comes twice makes the whole list void. An empty value hides every GPU.",
    ],
    also_right=[_visible_as_tuples],
    mistakes=[
        Mistake(_as_text, says="a list of numbers was asked for"),
        Mistake(_sorted_by_number, says="With `'2,0'` the visible GPUs are not `[0, 2]`"),
        Mistake(_skips_what_is_wrong, says="With `'0,x,1'`"),
        Mistake(_minus_one_is_skipped, says="With `'1,-1,0'`"),
        Mistake(_once_is_enough, says="With `'0,0'`"),
        Mistake(_empty_is_all, says="With `''`"),
    ],
    remember='The list sets the numbering: with "2,0", cuda:0 is the third GPU of the machine.',
)
def visible() -> dict:
    """Predict: which GPUs are visible, in which order, for these values of CUDA_VISIBLE_DEVICES?

    The machine has the GPUs 0, 1 and 2. Give for each of "2,0", "0,x,1", "1,-1,0", "0,0" and "" the list of
    the machine's numbers; the first in the list is `cuda:0`. No GPU at all is `[]`.
    """
    return {"2,0": [2, 0], "0,x,1": [0], "1,-1,0": [1], "0,0": [], "": []}
