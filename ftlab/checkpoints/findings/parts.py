"""Find the model among what a file holds: one level down, beside an optimizer, twice with an average."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ftlab.checkpoints.file_findings import AVERAGE, NO_NAMES, NO_WEIGHTS, OF_ZERO, held_in, is_average, is_shard
from ftlab.checkpoints.info import CheckpointInfo, Finding, models_of

from .names import best_prefix

Keys = tuple[str | int, ...]
Parts = dict[Keys, dict[str, Tensor]]


@dataclass
class Choice:
    """The part of a file that was chosen as the model, and what there is to say about that."""

    keys: Keys = ()
    state: dict[str, Tensor] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def choose(given: CheckpointInfo | Mapping[str, Any], model: nn.Module) -> Choice:
    """Return the part that fits the model best, and findings about where it was."""
    is_file = isinstance(given, CheckpointInfo)
    parts = _of_file(given) if is_file else _of_dictionary(given)
    if not parts:
        return Choice(findings=[_without_model(given)])
    own = model.state_dict()
    ranked = sorted(parts, key=lambda keys: (-_fit(parts[keys], own), is_average(keys)))
    keys = ranked[0]
    choice = Choice(keys, given.state_dict(*keys) if is_file else parts[keys])
    if keys:
        choice.findings.append(_nested(keys, is_file))
    others = [other for other in parts if other != keys and len(parts[other]) >= len(parts[keys]) - 2]
    if others:
        choice.findings.append(_twice(keys, others))
    return choice


def _of_file(info: CheckpointInfo) -> dict[Keys, dict[str, Any]]:
    return {keys: {t.name: t for t in tensors} for keys, tensors in models_of(info).items() if tensors}


def _of_dictionary(given: Mapping[Any, Any], keys: Keys = ()) -> Parts:
    tensors = {key: value for key, value in given.items() if isinstance(value, Tensor)}
    found: Parts = {}
    if {"state", "param_groups"} <= given.keys() or len(keys) > 4:
        return found
    for key, value in given.items():
        if isinstance(value, nn.Module):
            found[(*keys, key)] = value.state_dict()
        elif isinstance(value, Mapping):
            found.update(_of_dictionary(value, (*keys, key)))
        elif isinstance(value, (list, tuple)):
            found.update(_of_dictionary(dict(enumerate(value)), (*keys, key)))
    if not found and 2 * len(tensors) >= len(given) > 0 and all(isinstance(key, str) for key in tensors):
        return {keys: tensors}
    return found


def _fit(state: Mapping[str, Any], own: Mapping[str, Tensor]) -> int:
    """Return how many tensors would fit by name, with the best prefix, and by shape."""
    prefix, _ = best_prefix(state, own)
    shapes = {name.removeprefix(prefix): tuple(tensor.shape) for name, tensor in state.items()}
    return sum(
        tuple(tensor.shape) == shapes.get(name) for name, tensor in own.items() if isinstance(tensor, Tensor)
    )


def _nested(keys: Keys, is_file: bool) -> Finding:
    entry = "".join(f"[{key!r}]" for key in keys)
    return Finding(
        "nested",
        f"the model's tensors are not at the top of the file, but under {entry}",
        "The file holds more than a model: what a training run needs to go on. Only this entry is the model's "
        "state_dict.",
        "" if is_file else f"state = state{entry}",
    )


def _twice(keys: Keys, others: list[Keys]) -> Finding:
    named = ", ".join("".join(f"[{key!r}]" for key in other) for other in others)
    taken = "".join(f"[{key!r}]" for key in keys)
    averaged = [other for other in [keys, *others] if is_average(other)]
    return Finding(
        "ema" if averaged else "several-models",
        f"the file holds the model more than once: {taken} is taken, and there is {named}",
        AVERAGE
        if averaged
        else "They may be several models, or one at several times. To take another one, put its name in place.",
    )


def _without_model(given: CheckpointInfo | Mapping[str, Any]) -> Finding:
    if isinstance(given, CheckpointInfo):
        kinds = [part.kind for part in given.parts]
        if is_shard(given):
            return Finding("zero-shard", f"the file is a part of a sharded optimizer: {held_in(given)}", OF_ZERO)
        held = held_in(given)
    else:
        kinds = ["optimizer"] if {"state", "param_groups"} <= given.keys() else []
        held = ", ".join(map(repr, list(given)[:5]))
    if "optimizer" in kinds:
        return Finding(
            "optimizer",
            f"the file holds the state of an optimizer and no model: {held}",
            NO_WEIGHTS,
        )
    return Finding(
        "no-model",
        f"the file holds no state_dict: {held or 'nothing'}",
        NO_NAMES,
    )
