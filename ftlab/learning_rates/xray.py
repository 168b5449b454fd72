"""The X-ray of an optimizer: which tensor is in which group, at which rate, and what is wrong."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from ftlab.freezing.evidence import shares_memory
from ftlab.freezing.selection import names_by_tensor, plain_name
from ftlab.freezing.snapshot import listed, trainers
from ftlab.given import expect
from ftlab.table import Table, Tabled

from .options import misspelt

ADVICE = {
    "orphan": "trainable, and in no group, so it is never trained: optimizer.add_param_group, or build it again",
    "stale": "in a group, and no longer in the model: build the optimizer after the last change to the model",
    "frozen in a group": "harmless while its grad is None; it waits for its thaw",
    "duplicate": "the same numbers twice: stepped twice, or by two rates",
    "rate 0": "computed and never used; freeze it instead, a scheduler may wake it",
    "negative rate": "it climbs instead of descending; optimizers do not look at the rate inside a group",
    "no number as rate": "accepted in a group, an error in the first step; settings from a file are often texts",
    "misspelt option": "optimizers accept any option in a group and read only those that they know",
    "empty group": "often a generator that was used up: hand over a list",
}
HARMLESS = ("frozen in a group",)


@dataclass(frozen=True)
class TensorXray:
    """One tensor, under all its names."""

    name: str
    group: str  # empty if it is in none
    lr: float | None
    weight_decay: float | None
    state: bool  # whether the optimizer remembers something about it, such as momentum
    device: str
    trainable: bool
    flags: tuple[str, ...]
    values: int


class OptimizerXray(Tabled):
    """What an optimizer has of a model; the repr is a table, neighbours with the same entries in one row.

    Attributes:
        tensors: One `TensorXray` per tensor: those of the model in its order, then those that only the
            optimizer has.
        group_flags: From a group's name to what is wrong with the group itself.
    """

    def __init__(self, tensors: list[TensorXray], group_flags: dict[str, list[str]]) -> None:
        self.tensors = tensors
        self.group_flags = group_flags

    @property
    def flags(self) -> dict[str, list[str]]:
        """From each flag that was found to the tensors, or groups, that have it."""
        found: dict[str, list[str]] = defaultdict(list)
        for tensor in self.tensors:
            for flag in tensor.flags:
                found[flag].append(tensor.name)
        for group, flags in self.group_flags.items():
            for flag in flags:
                found[flag.partition(":")[0]].append(f"{group}{flag.partition(':')[1]}{flag.partition(':')[2]}")
        return dict(found)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; a frozen parameter in a group is not."""
        return not set(self.flags) - set(HARMLESS)

    def table(self, *, every: bool = False) -> Table:
        """Return the table; with `every`, one row per tensor."""
        headers = ["tensors", "count", "group", "lr", "weight decay", "state", "device", "trainable", "flags"]
        rows = [self._row(list(same)) for _, same in groupby(self.tensors, lambda t: t if every else _entry(t))]
        found = self.flags
        title = "; ".join(f"{flag}: {len(names)}" for flag, names in found.items()) or "nothing is wrong"
        notes = [f"{flag}: {ADVICE[flag]}" for flag in found]
        notes += [f"{group}: {flag}" for group, flags in self.group_flags.items() for flag in flags]
        return Table(headers, rows, title=title, note="\n".join(notes))

    def to_dict(self) -> dict[str, Any]:
        """Return the tensors and the flags as plain data."""
        return {"tensors": [asdict(tensor) for tensor in self.tensors], "flags": self.flags}

    def _row(self, same: list[TensorXray]) -> list[Any]:
        first, last = same[0], same[-1]
        name = first.name if first is last else f"{first.name} to {last.name}"
        return [
            name, len(same), first.group or "none", first.lr, first.weight_decay, _yes(first.state),
            first.device, _yes(first.trainable), ", ".join(first.flags),
        ]  # fmt: skip


def xray(model: nn.Module, optimizer: Optimizer | Sequence[Optimizer] | None = None) -> OptimizerXray:
    """Say for each tensor in which group it is, at which rate, and what is wrong; nothing is changed.

    The trap that this shows: an optimizer keeps the tensors that it was given. Replace the head, or unfreeze a
    block that it does not know, and it goes on training what it has, without a word.

    Args:
        model: Any module.
        optimizer: Any of torch.optim, or several. Without it, those that own parameters of the model are found.

    Raises:
        ValueError: If no optimizer is given and none that is alive owns a parameter of the model.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> model[1] = nn.Linear(4, 3)
        >>> xray(model, optimizer).flags
        {'orphan': ['1.weight', '1.bias'], 'stale': ['group 0, place 2', 'group 0, place 3']}
    """
    expect(model, nn.Module, "the model", "xray(model, optimizer)")
    optimizers = listed(optimizer, "xray(model, optimizer)")
    optimizers = trainers(model)[0] if optimizers is None else optimizers
    if not optimizers:
        raise ValueError("there is no optimizer that owns a parameter of this model: xray(model, optimizer)")
    places = list(_places(optimizers))
    twins = _twins(model, places)
    owners: dict[int, list[_Place]] = defaultdict(list)
    for place in places:
        owners[id(place.tensor)].append(place)
    names = names_by_tensor(model)
    tensors = []
    for parameter in model.parameters():
        name = " = ".join(plain_name(model, known) for known in names[id(parameter)])
        tensors.append(_look(name, parameter, owners.get(id(parameter), []), id(parameter) in twins, True))
    for key, of in owners.items():
        if key not in names:
            tensors.append(_look(of[0].name, of[0].tensor, of, key in twins, False))
    return OptimizerXray(tensors, dict(_group_flags(optimizers)))


@dataclass(frozen=True)
class _Place:
    """Where an optimizer has a tensor."""

    optimizer: Optimizer
    label: str
    group: dict
    tensor: Tensor
    name: str


def _places(optimizers: list[Optimizer]) -> Iterator[_Place]:
    for label, optimizer, group in labelled(optimizers):
        names = group.get("param_names", [])
        for number, tensor in enumerate(group["params"]):
            name = f"{names[number]} of {label}" if number < len(names) else f"{label}, place {number}"
            yield _Place(optimizer, label, group, tensor, name)


def labelled(optimizers: Sequence[Optimizer]) -> Iterator[tuple[str, Optimizer, dict]]:
    """Yield each group with what it is called: the name that it was given, or its number."""
    for which, optimizer in enumerate(optimizers):
        for number, group in enumerate(optimizer.param_groups):
            label = str(group.get("name", f"group {number}"))
            yield (f"{label} of optimizer {which}" if len(optimizers) > 1 else label), optimizer, group


def _look(name: str, tensor: Tensor, owners: list[_Place], twin: bool, in_model: bool) -> TensorXray:
    first = owners[0] if owners else None
    lr = _rate(first.group) if first else None
    flags = [
        ("orphan", tensor.requires_grad and not owners),
        ("stale", not in_model),
        ("frozen in a group", bool(owners) and not tensor.requires_grad),
        ("duplicate", twin or len(owners) > 1),
        ("rate 0", lr == 0),
        ("negative rate", lr is not None and lr < 0),
        ("no number as rate", first is not None and "lr" in first.group and lr is None),
    ]
    return TensorXray(
        name,
        " and ".join(dict.fromkeys(place.label for place in owners)),
        lr,
        first.group.get("weight_decay") if first else None,
        any(_remembers(place.optimizer, tensor) for place in owners),
        str(tensor.device),
        tensor.requires_grad,
        tuple(flag for flag, found in flags if found),
        0 if nn.parameter.is_lazy(tensor) else tensor.numel(),
    )


def _rate(group: dict) -> float | None:
    """Return the rate of a group; None if it has none, or if that is no number."""
    lr = group.get("lr")
    return float(lr) if isinstance(lr, int | float | Tensor) else None


def _remembers(optimizer: Optimizer, tensor: Tensor) -> bool:
    """Return whether an optimizer has a state for a tensor; LBFGS has one for all."""
    return bool(optimizer.state) if isinstance(optimizer, LBFGS) else bool(optimizer.state.get(tensor))


def _twins(model: nn.Module, places: list[_Place]) -> set[int]:
    """Return the ids of different tensors that look at the same memory."""
    tensors = {id(t): t for t in [*model.parameters(), *(place.tensor for place in places)]}
    by_memory: dict[Any, list[Tensor]] = defaultdict(list)
    for tensor in tensors.values():
        if not tensor.is_meta and not nn.parameter.is_lazy(tensor) and tensor.layout is torch.strided:
            by_memory[tensor.device, tensor.untyped_storage().data_ptr()].append(tensor)
    pairs = (pair for same in by_memory.values() for pair in combinations(same, 2))
    return {id(tensor) for pair in pairs if shares_memory(*pair) for tensor in pair}


def _group_flags(optimizers: list[Optimizer]) -> Iterator[tuple[str, list[str]]]:
    for label, optimizer, group in labelled(optimizers):
        flags = [] if group["params"] else ["empty group"]
        meant = {option: misspelt(option, optimizer.defaults) for option in group}
        flags += [f"misspelt option: {option!r}, probably {right!r}" for option, right in meant.items() if right]
        if flags:
            yield label, flags


def _entry(tensor: TensorXray) -> tuple:
    entry = asdict(tensor)
    return tuple(value for key, value in entry.items() if key not in ("name", "values"))


def _yes(value: bool) -> str:
    return "yes" if value else "no"
