"""Loading: safely, on any machine, all or nothing, without losing a tie."""

import copy
import io
import tempfile
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from ftlab.exercises.behaviour import as_names, same_model, some
from ftlab.exercises.core import Mistake, Raised, Wrong, exercise


class _Trap:
    """Makes a file when it is loaded by a loader that runs what the file says."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def _of_another_device(state: dict, path: Path) -> None:
    """Write a checkpoint as a machine with another accelerator writes it."""
    file = io.BytesIO()
    torch.save(state, file)
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("data.pkl"):
                content = content.replace(b"X\x03\x00\x00\x00cpu", b"X\x03\x00\x00\x00hpu")
            target.writestr(name, content)


def check_load_anywhere(answer):
    """The parameters after loading a file of another machine's accelerator, and a file with a booby trap."""
    with tempfile.TemporaryDirectory() as folder:
        path, evil, sprung = Path(folder, "best.pt"), Path(folder, "evil.pt"), Path(folder, "sprung")
        model, saved = nn.Linear(3, 2), nn.Linear(3, 2)
        _of_another_device(saved.state_dict(), path)
        try:
            answer(str(path), model)
        except Raised as raised:
            if "hpu" in str(raised.error).lower() or "device" in str(raised.error).lower():
                text = "The file was saved on an accelerator of type `hpu`, and this machine has none."
                raise Wrong(text, ask="Which argument of `torch.load` says where the tensors shall be?") from None
            raise
        if not torch.equal(model.weight, saved.weight) or not torch.equal(model.bias, saved.bias):
            raise Wrong("The model still has its random parameters.", ask="Who puts the tensors into the model?")
        torch.save({**saved.state_dict(), "weight": _Trap(sprung)}, evil)
        with suppress(Raised):
            answer(str(evil), nn.Linear(3, 2))
        if sprung.exists():
            text = "Another file held a command instead of a tensor, and your loading has run it."
            raise Wrong(text, ask="Which default of `torch.load` did you switch off?")


def _load_plain(path, model):
    model.load_state_dict(torch.load(path))


def _load_unsafe(path, model):
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=False))


def _only_read(path, model):
    torch.load(path, map_location="cpu")


def _load_other(path, model):
    model = nn.Linear(model.in_features, model.out_features)
    model.load_state_dict(torch.load(path, map_location="cpu"))


def _load_with_ftlab(path, model):
    from ftlab import checkpoints

    model.load_state_dict(checkpoints.load(path))


def _load_device(path, model):
    model.load_state_dict(torch.load(path, map_location=torch.device("cpu"), weights_only=True))


@exercise(
    check=check_load_anywhere,
    hints=[
        "Two things: read the file, then put the tensors into the model.",
        "A tensor goes back to the device that it was saved on, unless `map_location` says otherwise.",
        "`torch.load` is safe by default; leave it so.",
    ],
    also_right=[_load_with_ftlab, _load_device],
    mistakes=[
        Mistake(_load_plain, says="an accelerator of type `hpu`"),
        Mistake(_load_unsafe, says="your loading has run it"),
        Mistake(_only_read, says="still has its random parameters"),
        Mistake(_load_other, says="still has its random parameters"),
    ],
    remember='`torch.load(path, map_location="cpu")`: works on every machine, and runs nothing of the file.',
)
def load_anywhere(path: str, model: nn.Module) -> None:
    """Load the `state_dict` in the file `path` into `model`, on any machine, whoever made the file.

    It was saved on a machine with an accelerator that this one does not have.
    """
    model.load_state_dict(torch.load(path, map_location="cpu"))


TENSORS = ("body.weight", "body.bias", "head.weight", "head.bias")


def check_half_loaded(answer):
    """Your set, against the tensors that differ before and after that call here and now."""
    model = nn.Sequential(OrderedDict(body=nn.Linear(2, 2), head=nn.Linear(2, 3)))
    other = nn.Sequential(OrderedDict(body=nn.Linear(2, 2), head=nn.Linear(2, 5)))
    before = copy.deepcopy(model.state_dict())
    try:
        model.load_state_dict(other.state_dict())
    except RuntimeError:
        changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    given = as_names(answer(), TENSORS)
    extra, missing = given - changed, changed - given
    if missing:
        text = f"{some(missing)} had changed when the error came."
        raise Wrong(text, ask="Does it look at all shapes first, or at one tensor after the other?")
    if extra:
        raise Wrong(f"{some(extra)} had not changed.", ask="Can 5 rows be copied into 3?")


@exercise(
    check=check_half_loaded,
    hints=[
        "`load_state_dict` goes through the layers, copies what fits, and notes what does not.",
        "The error is raised at the end, for all at once.",
    ],
    also_right=[lambda: ["body.weight", "body.bias"]],
    mistakes=[
        Mistake(set, says="had changed when the error came"),
        Mistake(lambda: {"body.weight"}, says="`body.bias` had changed"),
        Mistake(lambda: set(TENSORS), says="`head.bias`, `head.weight` had not changed"),
        Mistake(lambda: {"body.weight", "body.bias", "head.bias"}, says="`head.bias` had not changed"),
    ],
    remember="After an error of `load_state_dict` the model is half loaded: build it anew, or use a copy.",
)
def half_loaded() -> set:
    """Predict which tensors of `model` have other values after this error, as a set such as {"head.bias"}.

        model = nn.Sequential(OrderedDict(body=nn.Linear(2, 2), head=nn.Linear(2, 3)))
        other = nn.Sequential(OrderedDict(body=nn.Linear(2, 2), head=nn.Linear(2, 5)))
        try:
            model.load_state_dict(other.state_dict())
        except RuntimeError as error:
            print(error)  # size mismatch for head.weight, size mismatch for head.bias

    The tensors are "body.weight", "body.bias", "head.weight" and "head.bias".
    """
    return {"body.weight", "body.bias"}


class Tied(nn.Module):
    """An embedding of words, and an output layer that uses the very same weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 3)
        self.out = nn.Linear(3, 7, bias=False)
        self.out.weight = self.embed.weight


def check_load_tied(answer):
    """The values after loading, on which device they are, and whether the two weights are still one."""
    saved = Tied()
    state = copy.deepcopy(saved.state_dict())
    model = answer(Tied, state)
    if not isinstance(model, Tied):
        raise Wrong(f"A `{type(model).__name__}` came back.", ask="What is to be returned?")
    if any(parameter.is_meta for parameter in model.parameters()):
        raise Wrong("The model is on the meta device: it has no values at all.", ask="What does `assign` do?")
    if same_model(model.embed, saved.embed):
        raise Wrong("The values are not those of the file.", ask="Which call brings them into the model?")
    if not torch.equal(model.out.weight, saved.out.weight):
        raise Wrong("`out.weight` has other values than the file.", ask="Which of the two was loaded?")
    if model.out.weight is not model.embed.weight:
        count = len(list(model.parameters()))
        text = f"`embed.weight` and `out.weight` were one parameter, and now the model has {count}."
        raise Wrong(text, ask="What does `assign=True` put in the place of each parameter?")


def _assign(make_model, state):
    with torch.device("meta"):
        model = make_model()
    model.load_state_dict(state, assign=True)
    return model


def _no_assign(make_model, state):
    import warnings

    with torch.device("meta"):
        model = make_model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.load_state_dict(state)
    return model


def _to_empty(make_model, state):
    with torch.device("meta"):
        model = make_model()
    model = model.to_empty(device="cpu")
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


def _tie_before(make_model, state):
    with torch.device("meta"):
        model = make_model()
    model.out.weight = model.embed.weight
    model.load_state_dict(state, assign=True)
    return model


def _copy_values(make_model, state):
    model = _assign(make_model, state)
    model.out.weight.data.copy_(model.embed.weight)
    return model


def _share_data(make_model, state):
    model = _assign(make_model, state)
    model.out.weight.data = model.embed.weight.data
    return model


def _plain_load(make_model, state):
    model = make_model()
    model.load_state_dict(state)
    return model


def _tie_the_other_way(make_model, state):
    model = _assign(make_model, state)
    model.embed.weight = model.out.weight
    return model


@exercise(
    check=check_load_tied,
    broken=_assign,
    hints=[
        "Count `list(model.parameters())` before and after loading.",
        "`assign=True` makes a new parameter for each name in the file, whatever was there.",
        "A tie is made by assignment: `model.out.weight = model.embed.weight`. When?",
    ],
    also_right=[_plain_load, _tie_the_other_way],
    mistakes=[
        Mistake(_no_assign, says="it has no values at all"),
        Mistake(_to_empty, says="not those of the file"),
        Mistake(_tie_before, says="now the model has 2"),
        Mistake(_copy_values, says="now the model has 2"),
        Mistake(_share_data, says="now the model has 2"),
    ],
    remember="`assign=True` unties: tie again afterwards, and build the optimizer after that.",
)
def load_tied(make_model: type, state: dict) -> nn.Module:
    """Repair: return a model with the values of `state`, made without random numbers, with its tie.

    In `make_model()` the weights `embed.weight` and `out.weight` are one and the same parameter.
    """
    with torch.device("meta"):
        model = make_model()
    model.load_state_dict(state, assign=True)
    model.out.weight = model.embed.weight
    return model
