"""Gradual unfreezing: which parts thaw at which epoch, and how the optimizer gets to know them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Literal

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ftlab.table import Table, Tabled

from .flags import freeze, unfreeze
from .selection import Pattern, choose
from .snapshot import living

if TYPE_CHECKING:
    from ftlab.plots import Picture

Patterns = Pattern | Sequence[Pattern]


@dataclass(frozen=True)
class Phase:
    """What thaws at one epoch: parameters that no earlier phase has."""

    epoch: int
    label: str
    parameters: list[nn.Parameter]
    lr: float


class Phases(Tabled):
    """A plan of gradual unfreezing; call it with the number of each epoch before the epoch starts."""

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, phases: list[Phase], batch_norm: Literal["eval", "train"]
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.phases = phases
        self.batch_norm = batch_norm

    def __call__(self, epoch: int) -> None:
        """Make trainable what the plan has thawed by this epoch, and freeze the rest; the model is changed.

        What was called before does not matter: the same epoch twice, or a start in the middle, gives the same.
        """
        thawed = {id(p) for phase in self.phases if phase.epoch <= epoch for p in phase.parameters}
        unfreeze(self.model, lambda name, parameter: id(parameter) in thawed)
        if any(id(parameter) not in thawed for parameter in self.model.parameters()):
            freeze(self.model, lambda name, parameter: id(parameter) not in thawed, batch_norm=self.batch_norm)

    def table(self) -> Table:
        """Return the plan as a table with a row per phase."""
        total = sum(parameter.numel() for parameter in self.model.parameters())
        rows, so_far = [], 0
        for phase in self.phases:
            so_far += sum(parameter.numel() for parameter in phase.parameters)
            rows.append(
                [phase.epoch, phase.label, len(phase.parameters), so_far, f"{so_far / total:.1%}", phase.lr]
            )
        headers = ["epoch", "thaws", "parameters", "values trainable from then on", "share", "lr"]
        title = f"{len(rows)} phases; {rows[-1][4]} of the model is trainable at the end"
        return Table(headers, rows, title=title)

    def plot(self) -> "Picture":
        """Return a picture: a bar for each phase, from its epoch on."""
        from .picture import bars

        return bars(self)

    def to_dict(self) -> list[dict]:
        """Return one dictionary per phase."""
        return self.table().to_dict()


def phases(
    model: nn.Module,
    optimizer: Optimizer,
    plan: Mapping[int, Patterns],
    *,
    lr: Mapping[int, float] | None = None,
    lr_factor: float = 1.0,
    batch_norm: Literal["eval", "train"] = "eval",
) -> Phases:
    """Plan which parts thaw at which epoch; everything but the first phase is frozen at once.

    The optimizer is changed too: each phase gets its parameters into a group with its own learning rate, now
    and not when it thaws. A frozen parameter in a group has no gradient, is left out by the optimizer and costs
    no state. So schedulers work (several fail on a group that comes late), and a checkpoint of the optimizer
    fits at every epoch. Tied parameters are there once, and what the optimizer owns already is not added again.

    The trap: a scheduler lowers the rates of all groups from epoch 0, also of those that wait.

    Args:
        model: The model, with its new head already in place.
        optimizer: Owns at least one parameter; what it does not own is given to it.
        plan: From the number of an epoch (the first is 0) to a pattern as in `select`, or a list of them.
        lr: From the number of an epoch to the learning rate of what thaws then.
        lr_factor: The rate of each phase without an entry in `lr` is that of the phase before times this. The
            first one has that of its group in the optimizer, or else the optimizer's own. ULMFiT divides by 2.6
            from layer to layer.
        batch_norm: The policy for norms in what is still frozen, as in `freeze`.

    Raises:
        ValueError: If nothing thaws at epoch 0, a phase thaws nothing new, a pattern chooses nothing, or a
            scheduler already runs on an optimizer that would need new groups. Nothing is changed then.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
        >>> optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
        >>> plan = phases(model, optimizer, {0: "2", 1: "1", 3: "0"}, lr_factor=0.5)
        >>> for epoch in range(3):
        ...     plan(epoch)
        ...     [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        ['2.weight', '2.bias']
        ['1.weight', '1.bias', '2.weight', '2.bias']
        ['1.weight', '1.bias', '2.weight', '2.bias']

    Source: Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification" (2018), section 3.3.
    """
    if 0 not in plan:
        raise ValueError(
            f"the plan starts at epoch {min(plan, default=None)}: at epoch 0 nothing would be trainable"
        )
    unknown = set(lr or {}) - set(plan)
    if unknown:
        raise ValueError(
            f"lr has the epochs {sorted(unknown)}, at which nothing thaws; the plan has {sorted(plan)}"
        )
    found = list(_phases(model, optimizer, plan, lr, lr_factor))
    _give(optimizer, model, found, own_rates=bool(lr) or lr_factor != 1)
    result = Phases(model, optimizer, found, batch_norm)
    result(0)
    return result


def _phases(
    model: nn.Module,
    optimizer: Optimizer,
    plan: Mapping[int, Patterns],
    lr: Mapping[int, float] | None,
    lr_factor: float,
) -> Iterator[Phase]:
    """Yield the phases in order, each parameter in the first one that names it."""
    known: set[int] = set()
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    rate = None
    for epoch in sorted(plan):
        patterns = plan[epoch] if isinstance(plan[epoch], list | tuple) else [plan[epoch]]
        new = [p for p in choose(model, *patterns).parameters if id(p) not in known]
        if not new:
            raise ValueError(f"epoch {epoch} thaws nothing new: {_label(patterns)} thaws earlier already")
        known.update(map(id, new))
        present = float(rates.get(id(new[0]), optimizer.defaults["lr"]))
        follows = rate is not None and (lr or lr_factor != 1)
        rate = (lr or {}).get(epoch, rate * lr_factor if follows else present)
        yield Phase(epoch, _label(patterns), new, rate)


def _give(optimizer: Optimizer, model: nn.Module, found: list[Phase], own_rates: bool) -> None:
    """Put the parameters of each phase into groups of the optimizer, each tensor into one."""
    moves = []
    for phase in found:
        mine = {id(parameter): parameter for parameter in phase.parameters}
        for group in optimizer.param_groups:
            inside = [mine.pop(id(parameter)) for parameter in group["params"] if id(parameter) in mine]
            moves += [(group, inside, phase.lr)] if own_rates and inside else []
        moves += [({}, list(mine.values()), phase.lr)] if mine else []
    if moves and any(scheduler.optimizer is optimizer for scheduler in living(LRScheduler)):
        raise ValueError(
            "a scheduler already runs on this optimizer, and it does not know groups that come later: "
            "make the phases first, then the scheduler"
        )
    _regroup(optimizer, model, moves)


def _regroup(optimizer: Optimizer, model: nn.Module, moves: list[tuple[dict, list[nn.Parameter], float]]) -> None:
    """Move parameters into groups of their own that keep the options of the groups they come from."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    named = any("param_names" in group for group in optimizer.param_groups)
    new = []
    for group, parameters, rate in moves:
        options = {key: value for key, value in group.items() if key not in ("params", "param_names")}
        members = [(names[id(p)], p) for p in parameters] if named else parameters
        new.append({**options, "params": members, "lr": rate})
    moved = {id(parameter) for _, parameters, _ in moves for parameter in parameters}
    for group in optimizer.param_groups:
        stays = [id(parameter) not in moved for parameter in group["params"]]
        for key in {"params", "param_names"} & set(group):
            group[key] = list(compress(group[key], stays))
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
    for group in new:
        optimizer.add_param_group(group)


def _label(patterns: Sequence[Pattern]) -> str:
    return ", ".join(p if isinstance(p, str) else getattr(p, "__name__", type(p).__name__) for p in patterns)
