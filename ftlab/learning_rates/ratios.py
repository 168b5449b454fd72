"""How far one real step moves each group, relative to its size."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.optim import Optimizer

from ftlab.freezing.evidence import check_values
from ftlab.freezing.selection import names_by_tensor, plain_name
from ftlab.freezing.snapshot import Snapshot, listed, trainers
from ftlab.given import expect
from ftlab.random_state import keep_random_state
from ftlab.table import Table, Tabled

from .xray import labelled

if TYPE_CHECKING:
    from ftlab.plots import Picture


@dataclass(frozen=True)
class UpdateRatio:
    """How far one group, or one tensor, moved."""

    name: str
    lr: float
    size: float  # the norm of the parameters before the step
    change: float  # the norm of what the step changed
    tensors: int

    @property
    def ratio(self) -> float:
        """The change as a share of the size; NaN for parameters that were all zero."""
        return self.change / self.size if self.size else float("nan")


class UpdateRatios(Tabled):
    """The result of `update_ratio`; its repr is a table of the groups.

    Attributes:
        groups: One `UpdateRatio` per group.
        tensors: One per parameter of the model that is in a group.
    """

    def __init__(self, groups: list[UpdateRatio], tensors: list[UpdateRatio]) -> None:
        self.groups = groups
        self.tensors = tensors

    def table(self, *, every: bool = False) -> Table:
        """Return a row per group, or with `every` per tensor; `x lr` and `x ratio` compare with the first row."""
        found = self.tensors if every else self.groups
        first = found[0]
        rows = [
            [
                one.name,
                one.lr,
                _times(one.lr, first.lr),
                one.size,
                one.change,
                one.ratio,
                _times(one.ratio, first.ratio),
            ]
            for one in found
        ]
        headers = ["tensor" if every else "group", "lr", "x lr", "size", "change", "ratio", "x ratio"]
        note = "ratio: the change in one step, relative to the size"
        if not any(one.change for one in found):  # what is not a number is true
            note += "\nnothing moved: is each rate 0, or does `step` not call optimizer.step() of this optimizer?"
        return Table(headers, rows, note=note)

    def to_dict(self) -> dict[str, list[dict[str, Any]]]:
        """Return groups and tensors as plain data."""
        groups, tensors = (
            [asdict(one) | {"ratio": one.ratio} for one in found] for found in (self.groups, self.tensors)
        )
        return {"groups": groups, "tensors": tensors}

    def plot(self) -> "Picture":
        """Return a picture: rate and ratio of each group side by side, on scales of powers of ten."""
        from .picture import ratios

        return ratios(self)


def update_ratio(
    model: nn.Module,
    step: Callable[[], Any],
    optimizer: Optimizer | Sequence[Optimizer] | None = None,
) -> UpdateRatios:
    """Run `step` once and say how far it moved each parameter group, relative to its size.

    Model, optimizers, schedulers and random state are as before afterwards, as in `ftlab.freezing.audit`.

    The trap: the rate is not the step. SGD multiplies it with the gradient, which differs from layer to layer by
    powers of ten; Adam divides by the gradient's size, so its first step is nearly the rate itself for every
    number, however small the number is. Compare ratios, not rates.

    Args:
        model: The model that `step` trains.
        step: Your own training step, without arguments.
        optimizer: The optimizer, or several. Without it, those that own parameters of the model are found.

    Raises:
        ValueError: If there is no optimizer.
        Exception: Whatever `step` raises, after everything was put back.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
        >>> _ = [nn.init.constant_(p, 2.0) for p in model.parameters()]
        >>> groups = [{"params": part.parameters(), "lr": lr} for part, lr in zip(model, (0.2, 0.02))]
        >>> optimizer = torch.optim.Adam(groups)
        >>> def step():
        ...     optimizer.zero_grad()
        ...     model(torch.ones(1, 1)).sum().backward()
        ...     optimizer.step()
        >>> [round(group.ratio, 3) for group in update_ratio(model, step).groups]
        [0.1, 0.01]
    """
    call = "update_ratio(model, step, optimizer)"
    expect(model, nn.Module, "the model", call)
    if not callable(step):
        raise TypeError(
            f"step is a function to call, not a {type(step).__name__}: write update_ratio(model, step)"
        )
    check_values(model)
    optimizers, others = trainers(model, listed(optimizer, call))
    if not optimizers:
        raise ValueError(f"there is no optimizer that owns a parameter of this model: {call}")
    groups = [(label, float(g.get("lr", 0)), list(g["params"])) for label, _, g in labelled(optimizers)]
    snapshot = Snapshot(model, optimizers, others)
    try:
        with keep_random_state():
            step()
        changes = {id(p): _norms(p, snapshot.values) for _, _, members in groups for p in members}
    finally:
        snapshot.restore()
    return _result(model, groups, changes)


def _norms(parameter: Tensor, before: dict[int, Tensor]) -> tuple[float, float]:
    """Return the squares of the size before and of the change."""
    old = before[id(parameter)].double()
    return old.square().sum().item(), (parameter.detach().double() - old).square().sum().item()


def _result(model: nn.Module, groups: list, changes: dict[int, tuple[float, float]]) -> UpdateRatios:
    names = {key: plain_name(model, known[0]) for key, known in names_by_tensor(model).items()}
    by_group, by_tensor = [], []
    for label, lr, members in groups:
        by_group.append(_sum(label, lr, [changes[id(p)] for p in members]))
        by_tensor += [_sum(names.get(id(p), "not in the model"), lr, [changes[id(p)]]) for p in members]
    return UpdateRatios(by_group, by_tensor)


def _sum(name: str, lr: float, squares: list[tuple[float, float]]) -> UpdateRatio:
    size, change = (sum(part) ** 0.5 for part in zip(*squares, strict=True)) if squares else (0.0, 0.0)
    return UpdateRatio(name, lr, size, change, len(squares))


def _times(value: float, first: float) -> float | None:
    return value / first if first else None
