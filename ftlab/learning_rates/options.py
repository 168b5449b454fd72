"""The options that a parameter group may have, and those that are probably misspelt."""

import inspect
import math
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from typing import Any

import torch
from torch.optim import Optimizer

# what PyTorch itself writes into a group: its schedulers, and the names of named parameters
_OWN = {
    "params", "param_names", "initial_lr", "max_lr", "min_lr", "swa_lr", "base_momentum", "max_momentum",
    "momentum", "betas",
}  # fmt: skip
_OTHER_NAMES = {
    "learning_rate": "lr", "learningrate": "lr", "rate": "lr", "LR": "lr", "wd": "weight_decay",
    "decay": "weight_decay", "l2": "weight_decay", "beta": "betas", "mom": "momentum",
}  # fmt: skip


def check_options(options: dict[str, Any], where: str) -> None:
    """Raise where an option is probably misspelt, or its rate is none; `where` begins the sentence."""
    for option in options:
        if option == "params":
            raise ValueError(f"{where}: the parameters are chosen by the pattern; leave 'params' out")
        if meant := misspelt(option, _all_options()):
            raise ValueError(f"{where}: there is no option {option!r}; did you mean {meant!r}?")
    if "lr" in options:
        check_rate(options["lr"], where)


def check_rate(lr: Any, where: str) -> None:
    """Raise if this cannot be a learning rate: an optimizer does not look at the rate inside a group."""
    if isinstance(lr, bool) or not isinstance(lr, int | float | torch.Tensor):
        raise TypeError(f"{where}: a learning rate is a number, not {lr!r}")
    if not math.isfinite(float(lr)) or float(lr) < 0:
        raise ValueError(f"{where}: a learning rate is 0 or more, not {lr!r}")


def misspelt(option: str, known: Iterable[str]) -> str | None:
    """Return what an option of a group was probably meant to be; None if it is known, or like none.

    An option that is like none is a note of its owner, such as "name": optimizers keep it and never read it.

    Example:
        >>> misspelt("weight_dacay", ["lr", "weight_decay"]), misspelt("name", ["lr", "weight_decay"])
        ('weight_decay', None)
    """
    known = set(known)
    if option in known | _OWN:
        return None
    if _OTHER_NAMES.get(option) in known:
        return _OTHER_NAMES[option]
    return next(iter(get_close_matches(option, known, n=1, cutoff=0.75)), None)


@cache
def _all_options() -> frozenset[str]:
    """Return the options of every optimizer in torch.optim."""
    kinds = [kind for kind in vars(torch.optim).values() if inspect.isclass(kind) and issubclass(kind, Optimizer)]
    names = {name for kind in kinds for name in inspect.signature(kind.__init__).parameters}
    return frozenset(names - {"self", "params", "args", "kwargs", "defaults"})
