"""What a function was given: refuse what is of another kind; look inside of what is wrapped around a model."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy


def refuse_no_model(given: Any) -> None:
    """Refuse what is no model, and say what it is instead.

    Raises:
        TypeError: It is a class, a function, a `state_dict`, a name, a scripted model, or anything else.

    Example:
        >>> refuse_no_model(nn.Linear)
        Traceback (most recent call last):
        TypeError: a model was expected, and the class Linear was given: call it, Linear(...), to make one
    """
    if isinstance(given, torch.jit.ScriptModule):
        raise TypeError(
            "a scripted or traced model was given, and its parts can be neither changed nor looked at: do this "
            "with the model from which it was made"
        )
    if not isinstance(given, nn.Module):
        raise TypeError(f"a model was expected, and {_instead(given)}")


def _instead(given: Any) -> str:
    if given is None:
        return "nothing (None) was given; a function that changes a model often returns none"
    if isinstance(given, str):
        return f"the text {given!r} was given; `ftlab.pretrained.load` makes models by name"
    kind = type(given).__name__
    if isinstance(given, Mapping):
        return f"a dictionary ({kind}) was given; a state_dict has no layers: build the model, and load it there"
    if isinstance(given, type) or inspect.isroutine(given):
        what = "class" if isinstance(given, type) else "function"
        return f"the {what} {given.__name__} was given: call it, {given.__name__}(...), to make one"
    return f"an object of class {kind} was given, which is no nn.Module"


def inside(model: nn.Module) -> nn.Module:
    """Return the model inside of what `torch.compile`, `DataParallel` or `DistributedDataParallel` made of it.

    Example:
        >>> inside(nn.DataParallel(nn.Linear(2, 1)))
        Linear(in_features=2, out_features=1, bias=True)
    """
    while (word := child_of_wrapper(model)) is not None:
        model = getattr(model, word)
    return model


def refuse_wrapped(model: nn.Module) -> None:
    """Refuse what is wrapped around a model, where the names inside would not be those of the wrapper.

    Raises:
        TypeError: It is no model.
        ValueError: It is a wrapper; the message says how to get what is inside.
    """
    refuse_no_model(model)
    word = child_of_wrapper(model)
    if word is not None:
        raise ValueError(f"{type(model).__name__} is a wrapper around a model; give what is inside, model.{word}")


def child_of_wrapper(model: nn.Module) -> str | None:
    """Return under which name a wrapper has its model; None if it is no wrapper."""
    if isinstance(model, DataParallel | DistributedDataParallel):
        return "module"
    # torch.compile's class stands in a module that takes long to import
    return "_orig_mod" if "_orig_mod" in model._modules else None


def first_lazy(model: nn.Module) -> str:
    """Return the name of a parameter or buffer whose shape the first batch decides; "" if there is none."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return next((name for name, tensor in tensors if is_lazy(tensor)), "")


def refuse_lazy(model: nn.Module, then: str) -> None:
    """Refuse a model with parameters whose shape the first batch decides.

    Raises:
        ValueError: There is one; the message says what to do, and `then` what comes after that.
    """
    if lazy := first_lazy(model):
        raise ValueError(f"{lazy!r} has no shape yet: call the model once with real data, then {then}")


def expect(thing: Any, kind: type | tuple[type, ...], what: str, call: str) -> None:
    """Raise an error if `thing` is of another kind.

    Args:
        thing: What was given.
        kind: What it has to be, as for `isinstance`.
        what: What it is for: "the model", "the optimizer".
        call: The call as it is meant, such as "xray(model, optimizer)".

    Raises:
        TypeError: It is of another kind.

    Example:
        >>> expect(3, str, "the name", "greet(name)")
        Traceback (most recent call last):
        TypeError: the name has to be of type str, and is of type int; the call is greet(name)
    """
    if not isinstance(thing, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        wanted = " or ".join(one.__name__ for one in kinds if one is not type(None))
        raise TypeError(
            f"{what} has to be of type {wanted}, and is of type {type(thing).__name__}; the call is {call}"
        )
