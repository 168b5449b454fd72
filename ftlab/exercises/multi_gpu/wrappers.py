"""Exercises on what is around a model: the model inside, and loading before wrapping."""

import copy

import torch
from torch import nn
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
