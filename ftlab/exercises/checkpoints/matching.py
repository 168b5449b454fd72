"""Files with other names or other shapes."""

import copy
from collections import OrderedDict

import torch
from torch import nn

from ftlab.exercises.behaviour import as_names, some
from ftlab.exercises.core import Mistake, Wrong, exercise

NAMES = {
    "module.fc.weight": "fc.weight",
    "_orig_mod.module.layer.0.bias": "layer.0.bias",
    "module._orig_mod.layer.1.bias": "layer.1.bias",
    "module.module.stem.weight": "stem.weight",
    "module.odd.weight": "odd.weight",
    "module.submodule.weight": "submodule.weight",
    "module.encoder.module.weight": "encoder.module.weight",
    "embed.weight": "embed.weight",
}


def check_bare(answer):
    """The names that you made of eight, with none, one or two prefixes, and that the tensors are the same."""
    state = OrderedDict((name, torch.full((1,), float(i))) for i, name in enumerate(NAMES))
    found = answer(dict(state))
    if not isinstance(found, dict):
        raise Wrong(f"A `{type(found).__name__}` came back.", ask="What shall `load_state_dict` get?")
    values = {value.item(): name for name, value in found.items()}
    for number, (name, wanted) in enumerate(NAMES.items()):
        if values.get(number) != wanted:
            became = f"became `{values[number]}`" if number in values else "is not there any more"
            asks = {
                "module.odd.weight": "What does `lstrip` take away: a word, or letters?",
                "embed.weight": "Does every name begin with a prefix?",
            }
            ask = asks.get(name, "Where may the prefix stand, how often, and in which order?")
            raise Wrong(f"`{name}` {became}.", ask=ask)


def _bare_replace(state):
    return {name.replace("module.", "").replace("_orig_mod.", ""): value for name, value in state.items()}


def _bare_lstrip(state):
    return {name.lstrip("module.").lstrip("_orig_mod."): value for name, value in state.items()}  # noqa: B005


def _bare_cut(state):
    return {name[7:]: value for name, value in state.items()}


def _bare_once(state):
    return {name.removeprefix("_orig_mod.").removeprefix("module."): value for name, value in state.items()}


def _bare_module_only(state):
    result = {}
    for name, value in state.items():
        while name.startswith("module."):
            name = name[len("module.") :]
        result[name] = value
    return result


def _bare_only_prefixed(state):
    return {
        n.removeprefix("module.").removeprefix("_orig_mod."): v
        for n, v in state.items()
        if n.startswith("module.")
    }


def _bare_regex(state):
    import re

    return {re.sub(r"^((module|_orig_mod)\.)+", "", name): value for name, value in state.items()}


@exercise(
    check=check_bare,
    hints=[
        "`model.module.fc` can be a real layer too: only what stands at the beginning is a prefix.",
        "`removeprefix` takes a whole word off, and does nothing if it is not there.",
        'As long as the name starts with one of them: `name.startswith(("module.", "_orig_mod."))`.',
    ],
    also_right=[_bare_regex],
    mistakes=[
        Mistake(_bare_replace, says="`module.submodule.weight` became `subweight`"),
        Mistake(_bare_lstrip, says="became"),
        Mistake(_bare_cut, says="became"),
        Mistake(_bare_once, says="`module._orig_mod.layer.1.bias` became `_orig_mod.layer.1.bias`"),
        Mistake(_bare_module_only, says="`_orig_mod.module.layer.0.bias` became"),
        Mistake(_bare_only_prefixed, says="is not there any more"),
    ],
    remember="Prefixes come off at the beginning only, as often as there is one, in any order.",
)
def bare(state: dict) -> dict:
    """Return the tensors of `state` under the names that they have in the plain model.

    DataParallel and DistributedDataParallel have put `module.` in front of each name, `torch.compile`
    `_orig_mod.`, and one may be wrapped by the other.
    """
    result = {}
    for name, value in state.items():
        while name.startswith(("module.", "_orig_mod.")):
            name = name.split(".", 1)[1]
        result[name] = value
    return result


def _small(classes: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(body=nn.Linear(4, 4), norm=nn.BatchNorm1d(4), head=nn.Linear(4, classes)))


def check_load_matching(answer):
    """Which tensors of a model with three classes changed, from a file with seven, and what came back."""
    model, theirs = _small(3), _small(7)
    theirs(torch.randn(8, 4))
    state = {**theirs.state_dict(), "aux.weight": torch.ones(2)}
    before, untouched = copy.deepcopy(model.state_dict()), copy.deepcopy(state)
    value = answer(model, state)
    own = model.state_dict()
    wanted = {name for name in own if not name.startswith("head")}
    missed = {name for name in wanted if not torch.equal(own[name], state[name])}
    if all(torch.equal(own[name], before[name]) for name in wanted):
        raise Wrong("Not one tensor of the model has changed.", ask="Which call writes into the model?")
    if missed:
        raise Wrong(f"{some(missed)} would have fitted, and was not loaded.", ask="By what did you choose?")
    if own["head.weight"].shape != before["head.weight"].shape:
        raise Wrong("The model has another head now.", ask="How many classes does the new task have?")
    if any(not torch.equal(own[name], before[name]) for name in own.keys() - wanted):
        raise Wrong("The head has changed.", ask="Are the first three rows of seven classes your three classes?")
    if set(untouched) != set(state):
        raise Wrong("The dictionary that was handed over lost entries.", ask="Whose dictionary is it?")
    names = as_names(value, {*own, *state})
    if names != {"head.weight", "head.bias"}:
        text = f"What came back names {some(names) if names else 'nothing'}."
        raise Wrong(text, ask="Which tensors of the model are still the random ones?")


def _match_not_strict(model, state):
    return model.load_state_dict(state, strict=False).missing_keys


def _match_names_only(model, state):
    own = model.state_dict()
    return model.load_state_dict({n: t for n, t in state.items() if n in own}, strict=False).missing_keys


def _match_update(model, state):
    own = model.state_dict()
    own.update({n: t for n, t in state.items() if n in own and t.shape == own[n].shape})
    return [name for name in own if name not in state or own[name].shape != state[name].shape]


def _match_parameters(model, state):
    own = dict(model.named_parameters())
    taken = {n: t for n, t in state.items() if n in own and t.shape == own[n].shape}
    model.load_state_dict(taken, strict=False)
    return [name for name in own if name not in taken]


def _match_unused(model, state):
    own = model.state_dict()
    taken = {n: t for n, t in state.items() if n in own and t.shape == own[n].shape}
    model.load_state_dict(taken, strict=False)
    return [name for name in state if name not in taken]


def _match_cut_rows(model, state):
    own = model.state_dict()
    taken = {n: t[: len(own[n])] if t.dim() else t for n, t in state.items() if n in own}
    model.load_state_dict(taken)
    return ["head.weight", "head.bias"]


def _match_by_delete(model, state):
    for name in ("head.weight", "head.bias"):
        del state[name]
    return model.load_state_dict(state, strict=False).missing_keys


def _match_copy(model, state):
    fresh = []
    for name, tensor in model.state_dict().items():
        if name in state and state[name].shape == tensor.shape:
            tensor.copy_(state[name])
        else:
            fresh.append(name)
    return fresh


def _match_fill_up(model, state):
    own = model.state_dict()
    fresh = {n for n in own if n not in state or own[n].shape != state[n].shape}
    model.load_state_dict({n: own[n] if n in fresh else state[n] for n in own})
    return fresh


@exercise(
    check=check_load_matching,
    broken=_match_not_strict,
    hints=[
        "`strict=False` forgives names, not shapes.",
        "Choose by name and by shape, from `model.state_dict()`.",
        "`load_state_dict` returns which names of the model it did not find.",
    ],
    also_right=[_match_copy, _match_fill_up],
    mistakes=[
        Mistake(_match_names_only, says="size mismatch"),
        Mistake(_match_update, says="Not one tensor of the model has changed"),
        Mistake(_match_parameters, says="would have fitted"),
        Mistake(_match_unused, says="names `aux.weight`"),
        Mistake(_match_cut_rows, says="The head has changed"),
        Mistake(_match_by_delete, says="lost entries"),
    ],
    remember="Take what fits by name and shape, load it, and look at what did not come from the file.",
)
def load_matching(model: nn.Module, state: dict) -> list:
    """Repair: load of `state` all that fits into `model`, and return the names in `model` that got nothing.

    The file is of a model with other classes, and has a layer that the model does not have.
    """
    own = model.state_dict()
    taken = {name: tensor for name, tensor in state.items() if name in own and tensor.shape == own[name].shape}
    model.load_state_dict(taken, strict=False)
    return [name for name in own if name not in taken]
