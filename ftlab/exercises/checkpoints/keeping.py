"""What to keep of a training, and how: copies, slices, plain values, the parts that matter."""

import copy
import io
from argparse import Namespace
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ftlab.checkpoints.resuming import ablate
from ftlab.checkpoints.runs import Run
from ftlab.exercises.behaviour import as_names, some
from ftlab.exercises.core import Mistake, Wrong, exercise


def check_keep_best(answer):
    """What came back after five epochs, of which the second is the best, tensor by tensor, and the model."""
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    states, scores = [], [0.2, 0.9, 0.4, 0.8, 0.1]

    def train_epoch():
        for tensor in model.state_dict().values():
            tensor.add_(1)
        states.append(copy.deepcopy(model.state_dict()))

    best = answer(model, train_epoch, lambda: scores[len(states) - 1], 5)
    _say_if_no_state(best, states[0])
    same = [all(torch.equal(tensor, best[name]) for name, tensor in state.items()) for state in states]
    if not any(same):
        raise Wrong("What came back is the state of no epoch at all.", ask="What was copied, and when?")
    epoch = same.index(True)
    if epoch == 4:
        text = "The second of five epochs was the best, and what came back is the state after the last one."
        raise Wrong(text, ask="Whose memory do the tensors use that `state_dict()` gives?")
    if epoch != 1:
        raise Wrong(f"What came back is the state after epoch {epoch}, not the best.", ask="When is it kept?")


def _say_if_no_state(best: object, like: dict) -> None:
    if not isinstance(best, dict):
        raise Wrong(f"A `{type(best).__name__}` came back.", ask="Which method gives the tensors by name?")
    if missing := like.keys() - best.keys():
        raise Wrong(f"{some(missing)} is missing.", ask="Are running statistics parameters?")


def _keep_the_view(model, train_epoch, evaluate, epochs):
    best, best_score = None, -1.0
    for _ in range(epochs):
        train_epoch()
        score = evaluate()
        if score > best_score:
            best, best_score = model.state_dict(), score
    return best


def _keep(model, train_epoch, evaluate, epochs, take):
    best, best_score = None, -1.0
    for _ in range(epochs):
        train_epoch()
        score = evaluate()
        if score > best_score:
            best, best_score = take(), score
    return best


def _keep_copy(model, train_epoch, evaluate, epochs):
    return _keep(model, train_epoch, evaluate, epochs, lambda: model.state_dict().copy())


def _keep_parameters(model, train_epoch, evaluate, epochs):
    return _keep(
        model, train_epoch, evaluate, epochs, lambda: {n: p.detach().clone() for n, p in model.named_parameters()}
    )


def _keep_detached(model, train_epoch, evaluate, epochs):
    return _keep(
        model, train_epoch, evaluate, epochs, lambda: {n: t.detach() for n, t in model.state_dict().items()}
    )


def _keep_any_better(model, train_epoch, evaluate, epochs):
    best, last = None, -1.0
    for _ in range(epochs):
        train_epoch()
        score = evaluate()
        if score > last:
            best = copy.deepcopy(model.state_dict())
        last = score
    return best


def _keep_model(model, train_epoch, evaluate, epochs):
    return _keep(model, train_epoch, evaluate, epochs, lambda: copy.deepcopy(model))


def _keep_clones(model, train_epoch, evaluate, epochs):
    return _keep(
        model, train_epoch, evaluate, epochs, lambda: {n: t.clone() for n, t in model.state_dict().items()}
    )


def _keep_bytes(model, train_epoch, evaluate, epochs):
    file = io.BytesIO()

    def take():
        file.seek(0)
        file.truncate()
        torch.save(model.state_dict(), file)

    _keep(model, train_epoch, evaluate, epochs, take)
    file.seek(0)
    return torch.load(file)


@exercise(
    check=check_keep_best,
    broken=_keep_the_view,
    hints=[
        "Keep the state of a small model, add 1 to a weight, and look at what you kept.",
        "The tensors in `state_dict()` are the model's own, under another name.",
        "`copy.deepcopy`, or `.clone()` of every tensor.",
    ],
    also_right=[_keep_clones, _keep_bytes],
    mistakes=[
        Mistake(_keep_copy, says="the state after the last one"),
        Mistake(_keep_detached, says="the state after the last one"),
        Mistake(_keep_parameters, says="is missing"),
        Mistake(_keep_any_better, says="after epoch 3"),
        Mistake(_keep_model, says="A `Sequential` came back"),
    ],
    remember="`state_dict()` is a view of the model that goes on changing. A copy has to be made.",
)
def keep_best(model: nn.Module, train_epoch, evaluate, epochs: int) -> dict:
    """Repair: train for some epochs and return the state of the model after the best one.

    `train_epoch()` trains `model` for one epoch, `evaluate()` returns its score, higher is better.
    """
    import copy

    best, best_score = None, -1.0
    for _ in range(epochs):
        train_epoch()
        score = evaluate()
        if score > best_score:
            best, best_score = copy.deepcopy(model.state_dict()), score
    return best


def _written(value: object) -> int:
    file = io.BytesIO()
    torch.save(value, file)
    return file.tell()


def check_first_rows(answer):
    """The rows that came back, and how many bytes `torch.save` writes for them."""
    features = torch.randn(1000, 100)
    rows = answer(features, 5)
    if not isinstance(rows, Tensor) or rows.shape != (5, 100):
        found = tuple(rows.shape) if isinstance(rows, Tensor) else f"a `{type(rows).__name__}`"
        raise Wrong(f"For 5 of 1000 rows of 100 numbers {found} came back.", ask="Which index takes rows?")
    if not torch.equal(rows, features[:5]):
        raise Wrong("These are not the first 5 rows.", ask="Where do they begin?")
    size = _written(rows)
    if size > 10_000:
        text = f"5 rows are 2,000 bytes of numbers, and `torch.save` writes {size:,} bytes for what came back."
        raise Wrong(text, ask="Where do the numbers of a slice lie, and what else lies there?")
    if rows.dtype != features.dtype:
        raise Wrong(f"The numbers are {rows.dtype} now.", ask="What was to become smaller?")


def _rows_view(features, count):
    return features[:count]


def _rows_contiguous(features, count):
    return features[:count].contiguous()


def _rows_detached(features, count):
    return features[:count].detach()


def _rows_cloned_first(features, count):
    return features.clone()[:count]


def _rows_half(features, count):
    return features[:count].half().clone().float().half()


def _rows_transposed(features, count):
    return features[:, :count].clone()


def _rows_copied(features, count):
    return copy.deepcopy(features[:count])


def _rows_selected(features, count):
    return features[torch.arange(count)]


def _rows_empty(features, count):
    return torch.empty(count, features.shape[1]).copy_(features[:count])


@exercise(
    check=check_first_rows,
    broken=_rows_view,
    hints=[
        "Compare `torch.save`'s file for `features` and for `features[:count]`.",
        "A slice has no numbers of its own: it looks into the memory of the whole.",
        "`.clone()` makes a tensor with memory of its own. Before or after the slice?",
    ],
    also_right=[_rows_selected, _rows_empty],
    mistakes=[
        Mistake(_rows_contiguous, says="`torch.save` writes 401"),
        Mistake(_rows_detached, says="`torch.save` writes 401"),
        Mistake(_rows_cloned_first, says="`torch.save` writes 401"),
        Mistake(_rows_copied, says="`torch.save` writes 401"),
        Mistake(_rows_half, says="not the first 5 rows"),
        Mistake(_rows_transposed, says="came back"),
    ],
    remember="`torch.save` writes the memory behind a tensor, whole. Clone a slice before you save it.",
)
def first_rows(features: torch.Tensor, count: int) -> torch.Tensor:
    """Repair: return the first `count` rows in such a way that saving them writes only them."""
    return features[:count].clone()


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


PARTS = ("parameters", "buffers", "optimizer", "scheduler", "random torch")


def _run() -> Run:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)

    def step(number):
        images = torch.randn(4, 3, generator=torch.Generator().manual_seed(number))
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()
        scheduler.step()

    return Run(step, model, optimizer, scheduler)


def check_needed(answer):
    """Your set, against the training resumed without each part: four steps, a restart, and four more."""
    results = ablate(_run, stop_at=4, steps=8, fresh=False).results
    needed = {part for part in PARTS if not results[part].exact}
    given = as_names(answer(), PARTS)
    extra, missing = sorted(given - needed), sorted(needed - given)
    if missing:
        gap = results[missing[0]].difference
        text = f"Resumed without `{missing[0]}` the model at the end is another: it differs by up to {gap:.2g}."
        raise Wrong(text, ask="What does it remember that starts anew without it?")
    if extra:
        text = f"Resumed without `{extra[0]}` every bit at the end is the same."
        raise Wrong(text, ask="Which line of this training draws a random number?")


@exercise(
    check=check_needed,
    hints=[
        "Go through the training line by line: what does the next step read that this one has written?",
        "The rate stands in the optimizer. But when to lower it, who counts that?",
        "Who draws a random number after the model was made? `generator=` is a generator of its own.",
    ],
    also_right=[lambda: ["buffers", "optimizer", "parameters", "scheduler"]],
    mistakes=[
        Mistake(lambda: {"parameters"}, says="Resumed without `buffers`"),
        Mistake(lambda: {"parameters", "buffers"}, says="Resumed without `optimizer`"),
        Mistake(lambda: {"parameters", "buffers", "optimizer"}, says="Resumed without `scheduler`"),
        Mistake(lambda: set(PARTS), says="Resumed without `random torch` every bit at the end is the same"),
    ],
    remember="Save what the next step reads: parameters, buffers, optimizer, scheduler, and random states.",
)
def needed() -> set:
    """Choose what has to be saved, so that this training goes on after a restart with the very same numbers.

    Out of "parameters", "buffers", "optimizer", "scheduler" and "random torch", as a set:

        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
        for number in range(8):
            images = torch.randn(4, 3, generator=torch.Generator().manual_seed(number))
            optimizer.zero_grad()
            model(images).square().mean().backward()
            optimizer.step()
            scheduler.step()

    It is stopped after four steps. All that you save is loaded, the rest is made anew. What matters is the model
    at the end, with its parameters and buffers.
    """
    return {"parameters", "buffers", "optimizer", "scheduler"}
