"""What may be in a file: plain values, and what the safe loader says to the rest."""

import io
from argparse import Namespace
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ftlab.exercises.behaviour import as_names, some
from ftlab.exercises.core import Mistake, Wrong, exercise


def check_pack(answer):
    """What the safe loader says about the file, and whether the values are the ones that were given."""
    options = Namespace(lr=0.1, folder=Path("runs/7"))
    packed = answer(np.float64(0.875), np.arange(4.0), options)
    file = io.BytesIO()
    torch.save(packed, file)
    file.seek(0)
    try:
        found = torch.load(file)
    except Exception as error:
        name = str(error).partition("GLOBAL ")[2].partition(" ")[0] or type(error).__name__
        text = f"The safe loader refuses the file: it asks for `{name}`."
        raise Wrong(text, ask="Which of the values is neither a number, nor a string, nor a tensor?") from None
    wanted = {"accuracy", "losses", "lr", "folder"}
    if not isinstance(found, dict) or found.keys() != wanted:
        keys = some(found) if isinstance(found, dict) else f"a `{type(found).__name__}`"
        raise Wrong(f"In the file there is {keys}.", ask="Which four keys does the task name?")
    if found["accuracy"] != 0.875 or found["lr"] != 0.1:
        text = f"The accuracy is {found['accuracy']!r}, the rate {found['lr']!r}."
        raise Wrong(text, ask="Could you go on computing with them?")
    losses = found["losses"]
    if not isinstance(losses, Tensor | list) or list(map(float, losses)) != [0.0, 1.0, 2.0, 3.0]:
        raise Wrong(f"The losses came back as {losses!r}.", ask="Could you draw a curve of them?")
    if Path(found["folder"]) != Path("runs/7"):
        raise Wrong(f"The folder came back as {found['folder']!r}.", ask="What does `str` make of a path?")


def _pack_as_is(accuracy, losses, options):
    return {"accuracy": accuracy, "losses": losses, "lr": options.lr, "folder": options.folder}


def _pack_namespace(accuracy, losses, options):
    return {"accuracy": float(accuracy), "losses": torch.tensor(losses), "options": options}


def _pack_vars(accuracy, losses, options):
    return {"accuracy": accuracy.item(), "losses": losses.tolist(), **vars(options)}


def _pack_strings(accuracy, losses, options):
    return {
        "accuracy": str(accuracy),
        "losses": str(losses),
        "lr": str(options.lr),
        "folder": str(options.folder),
    }


def _pack_only_lists(accuracy, losses, options):
    return {"accuracy": accuracy, "losses": losses.tolist(), "lr": options.lr, "folder": str(options.folder)}


def _pack_list_of_numpy(accuracy, losses, options):
    return {"accuracy": float(accuracy), "losses": list(losses), "lr": options.lr, "folder": str(options.folder)}


def _pack_tensors(accuracy, losses, options):
    return {
        "accuracy": torch.tensor(accuracy),
        "losses": torch.from_numpy(losses),
        "lr": options.lr,
        "folder": options.folder.as_posix(),
    }


@exercise(
    check=check_pack,
    broken=_pack_as_is,
    hints=[
        "Save the dictionary, load it with `torch.load`, and read the last line of the error.",
        "`.item()` makes a Python number of NumPy's, `torch.tensor` a tensor of an array.",
        "A `Path` is a class as well; `str` of it is none.",
    ],
    also_right=[_pack_tensors],
    mistakes=[
        Mistake(_pack_namespace, says="it asks for `argparse.Namespace`"),
        Mistake(
            _pack_vars, says="it asks for `pathlib.PosixPath`" if Path().__class__.__name__[0] == "P" else "asks"
        ),
        Mistake(_pack_only_lists, says="it asks for `numpy"),
        Mistake(_pack_list_of_numpy, says="it asks for `numpy"),
        Mistake(_pack_strings, says="The accuracy is '0.875'"),
    ],
    remember="In a checkpoint belong tensors, Python numbers, strings, and lists and dictionaries of them.",
)
def pack(accuracy, losses, options) -> dict:
    """Repair: return what is to be saved, so that `torch.load` reads it with its safe default.

    The keys are "accuracy" (a number of NumPy), "losses" (an array of NumPy), "lr" and "folder". The last two
    stand in `options`, an `argparse.Namespace`; `options.folder` is a `Path`.
    """
    return {
        "accuracy": float(accuracy),
        "losses": torch.tensor(losses),
        "lr": options.lr,
        "folder": str(options.folder),
    }


def _files() -> dict[str, object]:
    layer = nn.Linear(2, 1)
    return {
        "a": layer.state_dict(),
        "b": layer,
        "c": {"model": layer.state_dict(), "accuracy": np.float64(0.5)},
        "d": {"model": layer.state_dict(), "lr": 0.1, "milestones": Counter([2])},
        "e": {"model": OrderedDict(layer.state_dict()), "folder": Path("runs")},
        "f": {"optimizer": torch.optim.Adam(layer.parameters()).state_dict(), "done": None},
    }


def check_which_open(answer):
    """Your set of letters, against what `torch.load` does with each of the six files here and now."""
    opened = set()
    for letter, content in _files().items():
        file = io.BytesIO()
        torch.save(content, file)
        file.seek(0)
        try:
            torch.load(file)
        except Exception:
            continue
        opened.add(letter)
    given = _letters(answer(), _files())
    extra, missing = sorted(given - opened), sorted(opened - given)
    asks = {
        "b": "What has to be imported to make a layer again?",
        "c": "Is `np.float64(0.5)` a Python number?",
        "e": "Of which class is a path?",
        "d": "Which plain containers does the standard library have?",
        "f": "What is in the state of an optimizer but tensors and numbers?",
        "a": "What is a `state_dict`?",
    }
    if extra:
        raise Wrong(f"`torch.load` refuses `{extra[0]}`.", ask=asks[extra[0]])
    if missing:
        raise Wrong(f"`torch.load` opens `{missing[0]}` too.", ask=asks[missing[0]])


def _letters(value: object, known: dict) -> set[str]:
    if isinstance(value, str):
        raise Wrong("Not a set: what you gave is one string.", ask='Is it like `{"a", "b"}`?')
    return as_names(value, list(known))


@exercise(
    check=check_which_open,
    hints=[
        "The safe loader makes tensors, Python's own numbers and strings, and plain containers. Nothing else.",
        "A layer, a path and a number of NumPy are objects of classes that would have to be called.",
    ],
    also_right=[lambda: ["f", "d", "a"]],
    mistakes=[
        Mistake(lambda: {"a", "b", "d", "f"}, says="`torch.load` refuses `b`"),
        Mistake(lambda: {"a", "c", "d", "e", "f"}, says="`torch.load` refuses `c`"),
        Mistake(lambda: {"a", "d", "e", "f"}, says="`torch.load` refuses `e`"),
        Mistake(lambda: {"a"}, says="`torch.load` opens `d` too"),
        Mistake(lambda: {"a", "d"}, says="`torch.load` opens `f` too"),
    ],
    remember="A state_dict always opens. A whole model opens only where somebody trusts the file.",
)
def which_open() -> set:
    """Predict which files `torch.load(path)` opens with its default, as a set such as {"a", "b"}.

    `layer = nn.Linear(2, 1)`, and each file was written by `torch.save(content, path)`:

    - a: `layer.state_dict()`
    - b: `layer`
    - c: `{"model": layer.state_dict(), "accuracy": np.float64(0.5)}`
    - d: `{"model": layer.state_dict(), "lr": 0.1, "milestones": Counter([2])}`
    - e: `{"model": OrderedDict(layer.state_dict()), "folder": Path("runs")}`
    - f: `{"optimizer": torch.optim.Adam(layer.parameters()).state_dict(), "done": None}`
    """
    return {"a", "d", "f"}
