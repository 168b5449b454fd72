"""What wrappers do to names, and how to be free of them."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from ftlab.exercises.behaviour import images, some
from ftlab.exercises.core import Mistake, Raised, Wrong, exercise
from ftlab.exercises.models import SmallResNet
from ftlab.exercises.multi_gpu.group import process_group


class _Backbone(nn.Module):
    """A model that has a part named `module` of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)


def check_inner_model(answer):
    """A model plain, in DataParallel, in DDP, in both; and one that has a part called `module`."""
    with process_group():
        model = nn.Linear(4, 2)
        own = _Backbone()
        given = {
            "a plain `nn.Linear`": (model, model),
            "a `DataParallel`": (DataParallel(model), model),
            "a `DistributedDataParallel`": (DistributedDataParallel(model), model),
            "a `DataParallel` around a `DistributedDataParallel`": (
                DataParallel(DistributedDataParallel(model)),
                model,
            ),
            "a plain model that has a part called `module`": (own, own),
        }
        for what, (wrapped, inside) in given.items():
            _expect_inside(answer(wrapped), inside, what)
        del given, wrapped


def _expect_inside(found, inside, what):
    if found is inside:
        return
    if isinstance(found, nn.Module) and isinstance(found, DataParallel | DistributedDataParallel):
        raise Wrong(
            f"From {what} there is still a `{type(found).__name__}` around it.",
            ask="How often do you look inside?",
        )
    if isinstance(found, nn.Module) and found.state_dict().keys() == inside.state_dict().keys():
        raise Wrong(
            f"From {what} you made a copy.", ask="What will have changed in the copy when the model was trained?"
        )
    kind = type(found).__name__
    ask = "How can one tell a wrapper from a model, whatever its parts are called?"
    raise Wrong(f"From {what} you gave a `{kind}` that is not the model.", ask=ask)


def _look_inside_again(model):
    wrapped = isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel))
    return inner_model.function(model.module) if wrapped else model


def _ask_for_the_type_by_name(model):
    while type(model).__name__ in ("DataParallel", "DistributedDataParallel"):
        model = model.module
    return model


def _always_module(model):
    return model.module


def _ask_the_machine(model):
    return model.module if torch.cuda.device_count() > 1 else model


def _ask_for_the_attribute(model):
    while hasattr(model, "module"):
        model = model.module
    return model


def _data_parallel_only(model):
    return model.module if isinstance(model, nn.DataParallel) else model


def _once_only(model):
    return model.module if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)) else model


def _a_copy(model):
    return copy.deepcopy(_ask_for_the_type_by_name(model))


@exercise(
    check=check_inner_model,
    hints=[
        "`model.module` is what is inside a wrapper. When may you ask for it?",
        "The number of GPUs says nothing about this model, and a model may have a part called `module`.",
        "`isinstance(model, (A, B))`, and again as long as it is true.",
    ],
    also_right=[_look_inside_again, _ask_for_the_type_by_name],
    mistakes=[
        Mistake(_always_module, says="has no attribute 'module'"),
        Mistake(_ask_the_machine, says="there is still a `DataParallel` around it"),
        Mistake(_ask_for_the_attribute, says="a part called `module`"),
        Mistake(_data_parallel_only, says="there is still a `DistributedDataParallel` around it"),
        Mistake(_once_only, says="From a `DataParallel` around a `DistributedDataParallel`"),
        Mistake(_a_copy, says="you made a copy"),
    ],
    remember="Ask the model whether it is wrapped, not the machine how many GPUs it has.",
)
def inner_model(model: nn.Module) -> nn.Module:
    """Return the model inside all wrappers, DataParallel and DistributedDataParallel; a plain one as it is."""
    while isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        model = model.module
    return model


def check_load_and_wrap(answer):
    """The values in a small ResNet, loaded from a file without prefixes, and that it is wrapped."""
    saved = SmallResNet().eval()
    model = SmallResNet().eval()
    try:
        wrapped = answer(model, copy.deepcopy(saved.state_dict()))
    except Raised as raised:
        if "Missing key" in str(raised.error):
            ask = "How are the parameters called on either side of that line?"
            raise Wrong(
                "The names that are loaded are not those of what they are loaded into.", ask=ask
            ) from None
        raise
    if not isinstance(wrapped, DataParallel):
        kind = type(wrapped).__name__
        raise Wrong(f"You gave a `{kind}`, no `DataParallel`.", ask="What shall the training go on with?")
    if isinstance(wrapped.module, DataParallel):
        raise Wrong("There is a wrapper in the wrapper.", ask="What are the names called in that case?")
    if wrapped.module is not model:
        raise Wrong("What is wrapped is not `model`.", ask="Which model does the optimizer outside know?")
    batch = images()
    if not torch.equal(wrapped(batch), saved(batch)):
        wrong = [n for n, t in model.state_dict().items() if not torch.equal(t, saved.state_dict()[n])]
        text = f"{some(wrong)} have not the values of the file, and no error was raised."
        raise Wrong(text, ask="What does `strict=False` do with names that it does not know?")


def _wrap_then_load(model, state):
    wrapped = nn.DataParallel(model)
    wrapped.load_state_dict(state)
    return wrapped


def _load_into_the_inside(model, state):
    wrapped = nn.DataParallel(model)
    wrapped.module.load_state_dict(state)
    return wrapped


def _add_the_prefix(model, state):
    wrapped = nn.DataParallel(model)
    wrapped.load_state_dict({f"module.{name}": value for name, value in state.items()})
    return wrapped


def _not_strict(model, state):
    wrapped = nn.DataParallel(model)
    wrapped.load_state_dict(state, strict=False)
    return wrapped


def _without_the_wrapper(model, state):
    model.load_state_dict(state)
    return model


def _wrapped_twice(model, state):
    model.load_state_dict(state)
    return nn.DataParallel(nn.DataParallel(model))


def _prefix_without_the_dot(model, state):
    wrapped = nn.DataParallel(model)
    wrapped.load_state_dict({f"module{name}": value for name, value in state.items()})
    return wrapped


def _another_model(model, state):
    fresh = copy.deepcopy(model)
    fresh.load_state_dict(state)
    return nn.DataParallel(fresh)


def _update_a_copy(model, state):
    own = copy.deepcopy(model.state_dict())
    own.update(state)
    return nn.DataParallel(model)


@exercise(
    check=check_load_and_wrap,
    broken=_wrap_then_load,
    hints=[
        "Print the first name of `state`, and the first name of what it is loaded into.",
        "The wrapper puts `module.` in front. `model` itself has the names of the file, before and after.",
        "Change the order of the first two lines.",
    ],
    also_right=[_load_into_the_inside, _add_the_prefix],
    mistakes=[
        Mistake(_not_strict, says="have not the values of the file"),
        Mistake(_without_the_wrapper, says="no `DataParallel`"),
        Mistake(_wrapped_twice, says="a wrapper in the wrapper"),
        Mistake(_prefix_without_the_dot, says="are not those of what they are loaded into"),
        Mistake(_another_model, says="What is wrapped is not `model`"),
        Mistake(_update_a_copy, says="have not the values of the file"),
    ],
    remember="Load first, wrap afterwards. The number of GPUs plays no part in it.",
)
def load_and_wrap(model: nn.Module, state: dict[str, torch.Tensor]) -> nn.DataParallel:
    """Repair: load `state`, saved without a wrapper, into `model`, and return the model in a DataParallel."""
    model.load_state_dict(state)
    return nn.DataParallel(model)


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
