"""What the Python code of a forward pass may ask and write besides tensors: attributes and hooks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def attributes(module: nn.Module) -> dict[str, Any]:
    """Return the attributes of a module that not every module has, fit to be compared.

    Example:
        >>> attributes(nn.Dropout(0.2))
        {'p': ('float', 0.2), 'inplace': ('bool', False)}
    """
    own = vars(module)
    return {name: _comparable(own[name]) for name in own if name not in _OF_EVERY_MODULE}


def hooks_of(module: nn.Module) -> tuple:
    """Return the hooks on the module, fit to be compared."""
    kinds = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return tuple(id(hook) for hooks in kinds for hook in hooks.values())


def layout(model: nn.Module) -> list[tuple]:
    """Return all that decides about how the model is cut, and that may be changed between two epochs.

    The Python code between the layers runs once, when the model is traced; so the attributes that it may ask
    belong to it, and the modules and parameters by identity, since another head is another one. Values of
    parameters do not, nor what a layer keeps for itself: it goes on being called.
    """
    found: list[tuple] = []
    for name, module in model.named_modules():
        own = [(id(p), p.requires_grad) for p in module._parameters.values() if p is not None]
        buffers = [id(buffer) for buffer in module._buffers.values()]
        outer = (attributes(module), buffers) if module._modules else ()
        found.append((name, id(module), module.training, hooks_of(module), own, outer))
    return found


@contextmanager
def keep_attributes(model: nn.Module) -> Iterator[Callable[[], str]]:
    """Put the attributes of every module back as they were; what is given says which one is another one now."""
    kept = [(name, module, dict(vars(module)), _copies(module)) for name, module in model.named_modules()]
    before = [attributes(module) for _, module, _, _ in kept]

    def written() -> str:
        for (name, module, _, _), old in zip(kept, before, strict=True):
            new = attributes(module)
            if new != old:
                attribute = next(key for key in [*new, *old] if new.get(key) != old.get(key) or key not in old)
                return f"{name}.{attribute}".lstrip(".")
        return ""

    try:
        yield written
    finally:
        for _, module, values, copies in kept:
            vars(module).clear()
            vars(module).update(values)
            for name, copy in copies.items():
                if isinstance(copy, list):
                    values[name][:] = copy
                else:
                    values[name].clear()
                    values[name].update(copy)


def _copies(module: nn.Module) -> dict[str, Any]:
    own = vars(module)
    return {
        name: own[name].copy()
        for name in own
        if name not in _OF_EVERY_MODULE and type(own[name]) in (list, dict, set)
    }


def _comparable(value: Any) -> Any:
    if isinstance(value, _PLAIN):
        return type(value).__name__, value
    if type(value) in (list, tuple):
        return type(value).__name__, tuple(map(_comparable, value))
    if type(value) is dict:
        return "dict", tuple((key, _comparable(each)) for key, each in value.items())
    return "object", id(value)
