"""Exercises on names: what wrappers put in front of them, and names without that."""

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel

from ftlab.exercises.behaviour import some
from ftlab.exercises.core import Mistake, Wrong, exercise


class _WithModules(nn.Module):
    """Names in which `module` stands where it belongs."""

    def __init__(self) -> None:
        super().__init__()
        self.lower_module = nn.Linear(2, 2)
        self.body = nn.Module()
        self.body.module = nn.Linear(2, 1)


def check_clean_names(answer):
    """Names of a plain, a wrapped, a twice wrapped and a compiled model; `module` stands in real names too."""
    model = _WithModules()
    given = {
        "a plain model": model,
        "a `DataParallel`": DataParallel(model),
        "a `DataParallel` in a `DataParallel`": DataParallel(DataParallel(model)),
        "a compiled `DataParallel`": torch.compile(DataParallel(model)),
    }
    wanted = model.state_dict()
    for what, wrapped in given.items():
        state = dict(wrapped.state_dict())
        before = list(state)
        found = answer(state)
        if list(state) != before:
            raise Wrong("The dictionary that was handed over was changed.", ask="Who else may still need it?")
        _expect_names(found, wanted, what)


def _expect_names(found, wanted: dict[str, Tensor], what: str) -> None:
    if not isinstance(found, dict):
        raise Wrong(f"You gave a `{type(found).__name__}`.", ask="What does `load_state_dict` want to have?")
    if strange := [name for name in found if name not in wanted]:
        ask = "Which names does the model inside have, and what stands in front of them here?"
        raise Wrong(f"From the names of {what} you made {some(strange)}, which the model does not have.", ask=ask)
    if lost := wanted.keys() - found.keys():
        raise Wrong(
            f"From the names of {what}, {some(lost)} got lost.", ask="Which entries does your condition keep?"
        )
    if any(found[name] is None or not torch.equal(found[name], wanted[name]) for name in wanted):
        raise Wrong(f"From {what}, the values are not those of the names.", ask="Which value belongs to a name?")


def _by_a_loop_of_ifs(state):
    clean = {}
    for name, value in state.items():
        while name.startswith(("module.", "_orig_mod.")):
            name = name.split(".", 1)[1]
        clean[name] = value
    return clean


def _by_a_pattern(state):
    import re

    return {re.sub(r"^((module|_orig_mod)\.)+", "", name): value for name, value in state.items()}


def _cut_seven_letters(state):
    return {name[7:]: value for name, value in state.items()}


def _replace_everywhere(state):
    return {name.replace("module.", "").replace("_orig_mod.", ""): value for name, value in state.items()}


def _one_prefix_only(state):
    return {name.removeprefix("module."): value for name, value in state.items()}


def _one_of_each(state):
    return {name.removeprefix("_orig_mod.").removeprefix("module."): value for name, value in state.items()}


def _strip_letters(state):
    return {name.lstrip("module._orig"): value for name, value in state.items()}  # noqa: B005


def _in_place(state):
    for name in list(state):
        short = name
        while short.startswith(("module.", "_orig_mod.")):
            short = short.split(".", 1)[1]
        state[short] = state.pop(name)
    return state


def _only_the_wrapped(state):
    return {n.split(".", 1)[1]: v for n, v in state.items() if n.startswith(("module.", "_orig_mod."))}


@exercise(
    check=check_clean_names,
    hints=[
        "Print the names of `torch.compile(nn.DataParallel(nn.DataParallel(nn.Linear(1, 1)))).state_dict()`.",
        "`lstrip` takes letters away, `replace` works in the middle too; `removeprefix` does neither.",
        "As long as a name begins with one of the prefixes, take that one away.",
    ],
    also_right=[_by_a_loop_of_ifs, _by_a_pattern],
    mistakes=[
        Mistake(_cut_seven_letters, says="From the names of a plain model"),
        Mistake(_replace_everywhere, says="`body.weight`"),
        Mistake(_one_prefix_only, says="From the names of a `DataParallel` in a `DataParallel`"),
        Mistake(_one_of_each, says="From the names of a `DataParallel` in a `DataParallel`"),
        Mistake(_strip_letters, says="From the names of a plain model"),
        Mistake(_in_place, says="was changed"),
        Mistake(_only_the_wrapped, says="got lost"),
    ],
    remember="Prefixes come off the front, one by one; better still, save the inner model and have none.",
    seconds=60,  # its first call of `torch.compile` in a process loads a lot
)
def clean_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return `state` with the names of the model itself: no `module.` or `_orig_mod.` of wrappers in front."""
    clean = {}
    for name, value in state.items():
        while name != (short := name.removeprefix("module.").removeprefix("_orig_mod.")):
            name = short
        clean[name] = value
    return clean


_KNOWN = (
    "weight",
    "module.weight",
    "module.module.weight",
    "_orig_mod.weight",
    "_orig_mod.module.weight",
    "error",
)


def _run_names() -> dict[str, str]:
    """Run what the task describes, and return what happened."""
    model = nn.Linear(2, 1, bias=False)
    wrapped = DataParallel(model)
    compiled = torch.compile(wrapped)
    try:
        model.module  # noqa: B018
    except AttributeError:
        last = "error"
    names = {"wrapper": wrapped, "inside": wrapped.module, "model": model, "compiled": compiled}
    return {key: next(iter(value.state_dict())) for key, value in names.items()} | {"unwrapped": last}


def check_names_in_the_file(answer):
    """What the five lines really give, run here and now."""
    value, right = answer(), _run_names()
    if not isinstance(value, dict) or set(value) != set(right):
        ask = "Which five keys does the task name?"
        raise Wrong("What you gave is no dictionary with the five keys of the task.", ask=ask)
    if strange := {str(name) for name in value.values()} - set(_KNOWN):
        raise Wrong(f"{some(strange)} is not in the task's list.", ask="Is it written as in the list?")
    wrong = [key for key in right if value[key] != right[key]]
    if not wrong:
        return
    asks = {
        "wrapper": "Which name does the wrapper give to what is inside?",
        "inside": "Is `wrapped.module` a wrapper?",
        "model": "Did wrapping change `model` itself?",
        "compiled": "Which of the two wrappers is outside?",
        "unwrapped": "Which class has an attribute `module`?",
    }
    many = f"{len(wrong)} of the 5 are otherwise, `{wrong[0]}` among them." if len(wrong) > 1 else ""
    raise Wrong(many or f"Four of the 5 are so; `{wrong[0]}` is not.", ask=asks[wrong[0]])


def _as_written_one_by_one():
    names = {"wrapper": "module.weight", "compiled": "_orig_mod.module.weight", "unwrapped": "error"}
    names["inside"] = names["model"] = "weight"
    return names


def _all_renamed():
    value = _as_written_one_by_one()
    return value | {"model": "module.weight", "inside": "module.weight"}


def _the_other_way_round():
    return _as_written_one_by_one() | {"compiled": "_orig_mod.weight"}


def _no_error():
    return _as_written_one_by_one() | {"unwrapped": "weight"}


def _a_set_of_names():
    return {"weight", "module.weight"}


@exercise(
    check=check_names_in_the_file,
    hints=[
        "Run the five lines on an `nn.Linear(2, 1, bias=False)`, and print.",
        "A wrapper is a module with one child; a name is the path from the outermost module to the parameter.",
        "DataParallel calls its child `module`, torch.compile calls it `_orig_mod`. A plain model has neither.",
    ],
    also_right=[_as_written_one_by_one],
    mistakes=[
        Mistake(_all_renamed, says="2 of the 5 are otherwise, `inside` among them"),
        Mistake(_the_other_way_round, says="`compiled` is not"),
        Mistake(_no_error, says="`unwrapped` is not"),
        Mistake(_a_set_of_names, says="no dictionary with the five keys"),
    ],
    remember="A name is the path from the object that you ask; ask the inner model, and there is no prefix.",
)
def names_in_the_file() -> dict[str, str]:
    """Predict the first name in each `state_dict` of one model, wrapped in several ways.

    `model = nn.Linear(2, 1, bias=False)`, `wrapped = nn.DataParallel(model)`, and
    `compiled = torch.compile(wrapped)`. Return a dictionary with the keys "wrapper" (`wrapped.state_dict()`),
    "inside" (`wrapped.module.state_dict()`), "model" (`model.state_dict()`), "compiled"
    (`compiled.state_dict()`) and "unwrapped" (`model.module.state_dict()`). The values are among "weight",
    "module.weight", "module.module.weight", "_orig_mod.weight", "_orig_mod.module.weight" and "error".
    """
    return {
        "wrapper": "module.weight",
        "inside": "weight",
        "model": "weight",
        "compiled": "_orig_mod.module.weight",
        "unwrapped": "error",
    }
