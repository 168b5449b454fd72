"""Which parameters are meant: by module name, by a glob on parameter names, by module, by predicate."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import nn

from ftlab.given import expect
from ftlab.nearest import nearest

Pattern = str | nn.Module | Callable[[str, nn.Parameter], bool]


@dataclass(frozen=True)
class Selection:
    """What a list of patterns chose: every name, every tensor once, and the modules that were meant whole."""

    names: list[str]
    parameters: list[nn.Parameter]
    modules: list[nn.Module]


def select(model: nn.Module, *patterns: Pattern) -> list[str]:
    """Return the names of the parameters that the patterns choose; the model is not changed.

    A tied parameter is one tensor with several names. Whoever chooses one name chooses the tensor, so all of
    its names are returned. This is the trap of rules by name: `named_parameters()` shows only the first one.

    Args:
        model: Any module. The prefixes that `torch.compile` and `DataParallel` add to names may be left out.
        *patterns: No pattern chooses everything. Otherwise each one is
            the name of a module or parameter (`"layer1"` is all under `layer1`, never `layer10`),
            a glob on whole parameter names (`"*.bn?.weight"`; a `*` also crosses dots),
            a module of the model, or a function `(name, parameter) -> bool`.

    Raises:
        ValueError: If a pattern chooses nothing; the message shows the nearest names.
        TypeError: If a pattern is none of these kinds, for example a list.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> select(model, "2")
        ['2.weight', '2.bias']
        >>> select(model, "*.bias")
        ['0.bias', '2.bias']
        >>> select(model, model[0], lambda name, parameter: parameter.ndim == 1)
        ['0.weight', '0.bias', '2.bias']
    """
    return choose(model, *patterns).names


def choose(model: nn.Module, *patterns: Pattern) -> Selection:
    """Return what the patterns choose, tensors and modules included; the model is not changed."""
    expect(model, nn.Module, "the model", "freeze(model, 'layer1', ...)")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError("the modules of a scripted model cannot be changed: freeze first, then script")
    everything = list(model.named_parameters(remove_duplicate=False))
    modules: list[nn.Module] = []
    wanted: set[int] = set()
    for pattern in patterns or (model,):
        found, module = _match(model, pattern, everything)
        wanted.update(found)
        modules += [module] if module is not None else []
    names = [name for name, parameter in everything if id(parameter) in wanted]
    return Selection(names, [p for p in model.parameters() if id(p) in wanted], modules)


def plain_name(model: nn.Module, name: str) -> str:
    """Return `name` without what `torch.compile` and `DataParallel` put into it."""
    parts = [part for part in name.split(".") if part != "_orig_mod"]
    root = getattr(model, "_orig_mod", model)
    wrapped = isinstance(root, nn.DataParallel | nn.parallel.DistributedDataParallel)
    return ".".join(parts[1:] if wrapped and parts[:1] == ["module"] else parts)


def names_by_tensor(model: nn.Module) -> dict[int, list[str]]:
    """Return, by the id of each parameter, every name under which the model knows this very tensor."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return names


def _match(model: nn.Module, pattern: Pattern, everything: list) -> tuple[set[int], nn.Module | None]:
    """Return the ids of the parameters that one pattern chooses, and the module if it names one."""
    if isinstance(pattern, str):
        return _match_name(model, pattern, everything)
    if isinstance(pattern, nn.Module):
        return _match_module(model, pattern)
    if isinstance(pattern, type):
        raise TypeError(
            f"the class {pattern.__name__} is no pattern; take its modules out of the model, one by one: "
            f"[m for m in model.modules() if isinstance(m, {pattern.__name__})]"
        )
    if not callable(pattern):
        raise TypeError(
            f"a pattern is a name, a glob, a module or a function (name, parameter) -> bool, "
            f"not a {type(pattern).__name__}; several patterns are passed one by one: freeze(model, 'a', 'b')"
        )
    found = {id(parameter) for name, parameter in everything if pattern(plain_name(model, name), parameter)}
    if not found:
        raise ValueError(
            f"the function {getattr(pattern, '__name__', pattern)!r} is true for none of the {len(everything)} "
            f"parameters; the first names are {', '.join(repr(name) for name, _ in everything[:3])}"
        )
    return found, None


def _match_module(model: nn.Module, module: nn.Module) -> tuple[set[int], nn.Module]:
    if not any(module is own for own in model.modules()):
        raise ValueError(
            f"this {type(module).__name__} is not part of the model; was it replaced, or is it part of a copy? "
            f"Take it from the model itself, for example model.get_submodule('layer4')"
        )
    found = {id(parameter) for parameter in module.parameters()}
    if not found and not any(is_norm(inner) for inner in module.modules()):
        raise ValueError(f"this {type(module).__name__} has no parameters: there is nothing to choose in it")
    return found, module


def _match_name(model: nn.Module, pattern: str, everything: list) -> tuple[set[int], nn.Module | None]:
    for name, module in model.named_modules(remove_duplicate=False):
        if pattern and pattern in (name, plain_name(model, name)):
            return _match_module(model, module)
    found = {
        id(parameter)
        for name, parameter in everything
        if any(fnmatchcase(known, pattern) for known in (name, plain_name(model, name)))
    }
    if not found:
        raise ValueError(_no_match(model, pattern, [plain_name(model, name) for name, _ in everything]))
    return found, None


def _no_match(model: nn.Module, pattern: str, names: list[str]) -> str:
    """Say what a name that chooses nothing was probably meant to be."""
    modules = [plain_name(model, name) for name, _ in model.named_modules() if name]
    message = f"pattern {pattern!r} matches none of the {len(names)} parameters and no module"
    if any(fnmatchcase(module, pattern) for module in modules):
        return f"{message}; a glob is compared with whole parameter names: try {pattern + '.*'!r}"
    return f"{message}; {nearest(pattern, modules + names)}"


def is_norm(module: nn.Module) -> bool:
    """Return whether the module keeps running statistics, as every BatchNorm and a tracking InstanceNorm do."""
    return module._buffers.get("running_mean") is not None


def scopes(model: nn.Module) -> Iterator[tuple[str, nn.Module, list[nn.Parameter]]]:
    """Yield each module with the parameters that decide whether it lies in a frozen part.

    These are its own ones; where it has none (a dropout, a BatchNorm without `affine`), those of the nearest
    module around it that has some.
    """
    modules = dict(model.named_modules())
    for name, module in modules.items():
        around = name
        while not (inside := list(modules[around].parameters())) and around:
            around = around.rpartition(".")[0]
        yield name, module, inside
