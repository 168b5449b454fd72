"""Findings about files of another model: another depth or width of the same family, or another one altogether."""

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ftlab.checkpoints.diagnosis import Case
from ftlab.pretrained.catalogue import builder_of, names, weights_of

from .values import heads

Shape = tuple[int, ...]
SURE = 0.9  # a head with other classes is two tensors
NEAR = 0.3  # below that a likeness is chance
CLOSEST = 12  # models whose number of parameters is nearest are compared
_MAKERS = {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn}
_FILLERS = {torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.erfinv_, torch.Tensor.mul_}
_FILLERS |= {torch.Tensor.add_, torch.Tensor.clamp_, torch.Tensor.fill_, torch.Tensor.zero_}


class _OnMeta(TorchFunctionMode):
    """Make parameters without memory; unlike `torch.device("meta")`, numbers that are computed stay numbers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _FILLERS and args[0].is_meta:
            return args[0]  # there is nothing to fill, and PyTorch takes long over it
        if func in _MAKERS:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def without_memory(name: str, num_classes: int = 0) -> nn.Module:
    """Build a model whose parameters have shapes and no values; 0 classes are those of its default weights.

    Raises:
        ValueError: There is no such model.
    """
    given = {"num_classes": num_classes} if num_classes else {}
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), _OnMeta():
        warnings.simplefilter("ignore", FutureWarning)
        return builder_of(name)(weights=None, **given)


@cache
def signature(name: str) -> dict[str, Shape]:
    """Return the shapes of all tensors of a torchvision model by name; it is built without memory."""
    return {key: tuple(tensor.shape) for key, tensor in without_memory(name).state_dict().items()}


def best_fit(shapes: Mapping[str, Shape]) -> tuple[str, float]:
    """Return the model that has most tensors in common with these, and the share, from 0 to 1.

    The names count, or, where they are another program's, the shapes alone.
    """
    count = sum(math.prod(shape) for shape in shapes.values()) or 1
    known = {name: weights_of(name).meta["num_params"] for name in names()}
    near = sorted(known, key=lambda name: abs(math.log(known[name] / count)))[:CLOSEST]
    fits: dict[str, tuple[float, float]] = {}
    for name in near:
        fits[name] = _in_common(shapes, signature(name))
        if fits[name][0] > SURE:
            break
    best = max(fits, key=fits.__getitem__)
    return best, max(fits[best])


def _in_common(one: Mapping[str, Shape], other: Mapping[str, Shape]) -> tuple[float, float]:
    """Return the share of tensors that agree by name and shape, and by shape alone."""
    by_name = sum(shape == other.get(name) for name, shape in one.items())
    by_shape = (Counter(one.values()) & Counter(other.values())).total()
    total = len(one) + len(other)
    return by_name / (total - by_name), by_shape / (total - by_shape)


def find_other_model(case: Case) -> None:
    """Find that the file is of another model; say which of torchvision's it fits best."""
    if case.hopeless:
        return
    extra = case.extra
    missing = [name for name in case.missing if not _is_explained(case, name)]
    known = heads(case)
    lacking = len(case.misfits) + sum(name.rpartition(".")[0] not in known for name in missing)
    if not lacking and not _in_blocks(extra, case.own):
        return
    if lacking <= 0.1 * len(case.own) and len(extra) <= 0.1 * len(case.state):
        return
    shapes = {name: tuple(tensor.shape) for name, tensor in case.state.items()}
    best, share = best_fit(shapes)
    by_name, _ = _in_common(shapes, signature(best))
    if by_name <= SURE and not extra and not case.misfits and not _in_blocks(missing, case.state):
        return  # whole parts of this model, and nothing else
    kind, seen = _kind(case, extra)
    outputs = _outputs(case, best)
    if by_name > SURE:
        means = f"Its names and shapes are those of torchvision's {best} ({share:.0%}). Build that model for it."
        case.loading = (
            "from torchvision import models\n\n"
            f"model = models.get_model({best!r}, weights=None{outputs})\nmodel.load_state_dict(state)"
        )
    else:
        near = f" It is nearest to torchvision's {best}, which shares {share:.0%} of the tensors."
        means = (
            f"It does not belong to this {type(case.model).__name__}.{near if share >= NEAR else ''} "
            "Build the model that it was saved from."
        )
        case.hopeless = True
    case.found(kind, seen, means)


def _is_explained(case: Case, name: str) -> bool:
    """Return whether it is known why the file lacks a tensor; old files have no counters of batch norms."""
    return name in case.explained or name.endswith("num_batches_tracked")


def _in_blocks(names: list[str], others: Iterable[str]) -> bool:
    """Return whether tensors that one side lacks are further blocks of a part that it has."""
    parts = {name.split(".")[0] for name in others}
    return any(name.split(".")[0] in parts for name in names)


def _kind(case: Case, extra: list[str]) -> tuple[str, str]:
    ours = len(case.own)
    common = len(case.fitting()) + len(case.misfits)
    if 2 * common < min(ours, len(case.state)):
        seen = f"{common} of the file's {len(case.state)} names are the model's, which has {ours}"
        return (
            "other-model",
            f"{seen}: the file has {next(iter(case.state))!r}, the model {next(iter(case.own))!r}",
        )
    only_shapes = case.misfits and not extra and not case.missing
    if only_shapes or (len(case.misfits) > 2 and len(case.misfits) >= len(extra)):
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


def find_leftovers(case: Case) -> None:
    """Find what only the model or only the file has, where the rest fits and no finding has said why."""
    if case.hopeless or case.loading or not case.fitting():
        return
    missing = [name for name in case.missing if not _is_explained(case, name)]
    if missing:
        case.found(
            "missing",
            f"{len(missing)} tensors of the model are not in the file, such as {missing[0]!r}",
            "load_state_dict raises about them; with strict=False it does not, and they stay random. Train them, "
            "or find out why the file has not got them.",
        )
    if case.extra:
        case.found(
            "unused",
            f"{len(case.extra)} tensors of the file are not in the model, such as {case.extra[0]!r}",
            "load_state_dict raises about them; with strict=False it leaves them out. The file's model had a "
            "part that yours has not.",
        )
