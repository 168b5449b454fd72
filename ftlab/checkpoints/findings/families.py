"""Findings about files of another model: another depth or width of the same family, or another one altogether."""

import math
import warnings
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torchvision import models

from ftlab.checkpoints.diagnosis import Case

NEAR = 24  # models whose number of parameters is nearest are compared
_MAKERS = {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn}


class _OnMeta(TorchFunctionMode):
    """Make parameters without memory; unlike `torch.device("meta")`, numbers that are computed stay numbers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _MAKERS:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


@cache
def signature(name: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors of a torchvision model by name; it is built without memory."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), _OnMeta():
        warnings.simplefilter("ignore", FutureWarning)
        model = models.get_model(name)
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


def best_fit(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, float]:
    """Return the torchvision model that has most tensors in common with these, and the share, from 0 to 1."""
    count = sum(math.prod(shape) for shape in shapes.values()) or 1
    known = {name: _parameters(name) for name in models.list_models(module=models)}
    near = sorted(known, key=lambda name: abs(math.log(known[name] / count)))[:NEAR]
    fits = {name: _alike(shapes, signature(name)) for name in near}
    best = max(fits, key=fits.__getitem__)
    return best, fits[best]


def _parameters(name: str) -> int:
    return models.get_model_weights(name).DEFAULT.meta["num_params"]


def _alike(one: Mapping[str, tuple[int, ...]], other: Mapping[str, tuple[int, ...]]) -> float:
    """Return the share of tensors, of both together, that agree; a head may have other classes."""
    same = sum(_agrees(shape, other.get(name)) for name, shape in one.items())
    return same / (len(one) + len(other) - same)


def _agrees(one: tuple[int, ...], other: tuple[int, ...] | None) -> bool:
    return one == other


def find_other_model(case: Case) -> None:
    """Find that the file is of another model; say which of torchvision's it fits best."""
    fits = len(case.fitting())
    extra = [name for name in case.extra if isinstance(case.state[name], Tensor)]
    wrong = len(case.misfits) + len(extra)
    if fits == len(case.own) - _counters(case) and not _in_blocks(case, extra):
        return
    if fits >= 0.9 * len(case.own) and wrong <= 0.1 * len(case.state):
        return
    if not case.state:
        return
    shapes = {name: tuple(tensor.shape) for name, tensor in case.state.items()}
    best, share = best_fit(shapes)
    kind, seen = _kind(case, extra)
    outputs = _outputs(case, best)
    if share > 0.9:
        means = f"Its names and shapes are those of torchvision's {best} ({share:.0%}). Build that model for it."
        case.loading = (
            "from torchvision import models\n\n"
            f"model = models.get_model({best!r}, weights=None{outputs})\nmodel.load_state_dict(state)"
        )
    else:
        means = (
            f"It does not belong to this {type(case.model).__name__}. It is nearest to torchvision's {best}, "
            f"which shares {share:.0%} of the tensors. Build the model that it was saved from."
        )
    case.found(kind, seen, means)


def _counters(case: Case) -> int:
    return sum(name.endswith("num_batches_tracked") for name in case.missing)


def _in_blocks(case: Case, extra: list[str]) -> bool:
    """Return whether tensors that the model lacks are further blocks of a part that it has."""
    parts = {name.split(".")[0] for name in case.own}
    return any(name.split(".")[0] in parts for name in extra)


def _kind(case: Case, extra: list[str]) -> tuple[str, str]:
    ours = len(case.own)
    common = len(case.fitting()) + len(case.misfits)
    if 2 * common < min(ours, len(case.state)):
        seen = f"{common} of the file's {len(case.state)} names are the model's, which has {ours}"
        return (
            "other-model",
            f"{seen}: the file has {next(iter(case.state))!r}, the model {next(iter(case.own))!r}",
        )
    if len(case.misfits) > 2 and len(case.misfits) >= len(extra):
        name = case.misfits[0]
        return "width", (
            f"{len(case.misfits)} tensors have other shapes, such as {name!r}: {tuple(case.state[name].shape)} "
            f"in the file, {tuple(case.own[name].shape)} in the model"
        )
    names = extra or case.missing
    where = "the file has and the model has not" if extra else "the model has and the file has not"
    return "depth", f"{len(names)} tensors {where}, such as {names[0]!r}; the others fit"


def _outputs(case: Case, best: str) -> str:
    """Return the argument for the number of classes, if the file has others than 1000."""
    last = [name for name, shape in signature(best).items() if name.endswith("weight") and len(shape) > 1][-1]
    given = case.state.get(last)
    return f", num_classes={len(given)}" if given is not None and len(given) != 1000 else ""
