"""Names without the prefixes of wrappers: `fc.weight`, not `module._orig_mod.fc.weight`."""

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn
from torch.optim import Optimizer

from ftlab.given import child_of_wrapper


def bare_names(model: nn.Module) -> Callable[[str], str]:
    """Return a function that takes the prefixes which wrappers of this very model add off a name.

    A layer that the author called `module` keeps its name: what counts is the class of the wrapper, not the word.

    Example:
        >>> bare = bare_names(nn.DataParallel(nn.Linear(1, 1)))
        >>> bare("module.weight"), bare_names(nn.ModuleDict({"module": nn.Linear(1, 1)}))("module.weight")
        ('weight', 'module.weight')
    """
    wrapped = [
        (f"{name}.".lstrip("."), _inner(module)) for name, module in model.named_modules() if _inner(module)
    ]
    wrapped.sort(key=lambda pair: -len(pair[0]))  # the innermost first

    def bare(name: str) -> str:
        for parent, inner in wrapped:
            if name.startswith(parent + inner):
                name = parent + name[len(parent + inner) :]
        return name

    return bare


def _inner(module: nn.Module) -> str:
    """Return the prefix that this wrapper puts before the names of what it wraps; "" if it is none."""
    child = child_of_wrapper(module)
    return "" if child is None else f"{child}."


def bare_state_dict(model: nn.Module) -> OrderedDict[str, Tensor]:
    """Return `model.state_dict()` with bare names; the tensors are the model's own.

    The versions of the modules (`_metadata`) stay with it: some modules load an older file by them.
    """
    bare, state = bare_names(model), model.state_dict()
    result = OrderedDict((bare(name), value) for name, value in state.items())
    if hasattr(state, "_metadata"):
        modules = {bare(f"{name}.").rstrip("."): value for name, value in state._metadata.items()}
        result._metadata = OrderedDict(modules)
    return result


def optimizer_names(model: nn.Module, optimizer: Optimizer) -> list[list[str]]:
    """Return the bare names of the optimizer's parameters, group by group.

    Raises:
        ValueError: A parameter of the optimizer is none of the model's.
    """
    bare = bare_names(model)
    names = {id(parameter): bare(name) for name, parameter in model.named_parameters()}
    groups = [[names.get(id(parameter)) for parameter in group["params"]] for group in optimizer.param_groups]
    strangers = sum(name is None for group in groups for name in group)
    if strangers:
        raise ValueError(
            f"{strangers} of the optimizer's {sum(map(len, groups))} parameters are not in the model; was a head "
            "replaced, or the model loaded with assign=True, after the optimizer was built? Build it again. If "
            "it rightly owns others too, save its state_dict() yourself, in extra"
        )
    return groups
