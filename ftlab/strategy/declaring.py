"""What a strategy is: which parts learn, at which rate, from when on, and what they start from."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Literal

import torch
from torch import nn
from torch.optim import Optimizer

from ftlab.freezing import freeze, phases, unfreeze
from ftlab.freezing.selection import Pattern, choose, is_norm, scopes
from ftlab.learning_rates import parameter_groups
from ftlab.surgery import head_names
from ftlab.table import Table, Tabled

HEAD, BODY = "head", "body"


@dataclass(frozen=True)
class Strategy:
    """Say which parts of a model learn; nothing is done yet.

    What no entry of `rates` names stays frozen, and frozen means: no gradient, batch norm statistics held,
    dropout inside off. So it computes the same in each epoch.

    Attributes:
        name: What tables call it.
        rates: From a part to its learning rate. A part is a pattern as in `ftlab.freezing.select`, or one of two
            words: "head" (the layer that gives the classes, whatever the network calls it) and "body" (all that
            no other entry names).
        thaw: From a part of `rates` to the share of the training after which it begins to learn. A part that is
            not here learns from the start.
        norms: "held" keeps the batch norm statistics of the whole network as they were in pretraining; "moving"
            lets those in what learns go on, as a loop does that calls `model.train()` and nothing else.
        pretrained: False starts from random numbers instead; its norms are always moving.

    Raises:
        ValueError: A rate is not above 0, a share is not between 0 and 1, or nothing learns from the start.
        TypeError: The rates are no dictionary.

    Example:
        >>> Strategy("two phases", {"head": 3e-3, "body": 3e-4}, thaw={"body": 0.5})
        two phases: head at 0.003, body at 0.0003 after 50% of the training
    """

    name: str
    rates: Mapping[str, float]
    thaw: Mapping[str, float] = field(default_factory=dict)
    norms: Literal["held", "moving"] = "held"
    pretrained: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.rates, Mapping) or not isinstance(self.thaw, Mapping):
            given = f"rates={self.rates!r}, thaw={self.thaw!r}"
            raise TypeError(f"strategy {self.name!r} has {given}; both are said for each part: {{'head': 1e-3}}")
        if not self.rates:
            raise ValueError(f"strategy {self.name!r} trains nothing: give it rates, such as {{'head': 1e-3}}")
        wrong = {part: rate for part, rate in self.rates.items() if not _is_between(rate, 0, math.inf)}
        if wrong:
            raise ValueError(
                f"strategy {self.name!r} has the rates {wrong}; a rate is above 0 (a finite number), "
                "and a part that shall stay as it is is left out"
            )
        if self.norms not in ("held", "moving"):
            raise ValueError(f"norms is 'held' or 'moving', not {self.norms!r}")
        if unknown := set(self.thaw) - set(self.rates):
            raise ValueError(f"strategy {self.name!r} thaws {sorted(unknown)}, which has no rate")
        if wrong := {part: share for part, share in self.thaw.items() if not _is_between(share, 0, 1)}:
            raise ValueError(
                f"strategy {self.name!r} thaws {wrong}; this is a share of the training, between 0 and 1"
            )
        if set(self.thaw) == set(self.rates):
            raise ValueError(f"strategy {self.name!r} trains nothing at the start: every part is to thaw later")

    def apply(
        self,
        model: nn.Module,
        epochs: int,
        *,
        optimizer: Callable[..., Optimizer] = torch.optim.AdamW,
    ) -> tuple[Optimizer, Callable[[int], None]]:
        """Prepare `model` for this strategy; return the optimizer, and what to call before each epoch.

        The model is changed: flags, held norms, modes. All groups are in the optimizer from the start, those that
        thaw later as well, so that a scheduler knows them. `pretrained` is not looked at: the numbers are yours.

        The trap: the head must be the new one already. A head that is replaced afterwards is in no group.

        Args:
            model: With its new head.
            epochs: How long it will be trained; decides the epoch of each thaw.
            optimizer: A class of `torch.optim`, or what makes one from groups.

        Raises:
            ValueError: A part chooses nothing in this model, or two parts choose the same parameter.

        Example:
            >>> from ftlab.training import fit, loader
            >>> images, labels = torch.randn(8, 4), torch.tensor([0, 1] * 4)
            >>> batches = loader(torch.utils.data.TensorDataset(images, labels), batch_size=4)
            >>> model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
            >>> optimizer, before_epoch = Strategy("head only", {"head": 0.1}).apply(model, 2)
            >>> fit(
            ...     model, batches, epochs=2, optimizer=optimizer, on_epoch_start=before_epoch, progress=False
            ... ).epochs
            2
        """
        chosen = self._patterns(model)
        model.train()
        freeze(model)
        unfreeze(model, *(one for patterns in chosen.values() for one in patterns))
        rates = {tuple(patterns): self.rates[part] for part, patterns in chosen.items()}
        groups = parameter_groups(model, rates)
        for group, part in zip(groups, chosen, strict=True):
            group["name"] = part
        owner = optimizer(groups)
        plan: dict[int, list[Pattern]] = {}
        for part, patterns in chosen.items():
            plan.setdefault(self._epoch(part, epochs), []).extend(patterns)
        steps = phases(model, owner, plan)

        def before_epoch(epoch: int) -> None:
            steps(epoch)
            quiet(model)
            if self.norms == "held" and self.pretrained:
                hold_norms(model)

        before_epoch(0)
        return owner, before_epoch

    def _epoch(self, part: str, epochs: int) -> int:
        """Return the epoch at which a part thaws: never the first, if it is to wait."""
        return max(1, round(self.thaw[part] * epochs)) if part in self.thaw else 0

    def _patterns(self, model: nn.Module) -> dict[str, list[Pattern]]:
        """Return for each part the patterns that choose it in this model."""
        named = [part for part in self.rates if part != BODY]
        found: dict[str, list[Pattern]] = {
            part: list(head_names(model)) if part == HEAD else [part] for part in named
        }
        if BODY not in self.rates:
            return found
        inside = [one for patterns in found.values() for one in patterns] or list(head_names(model))
        taken = {id(p) for p in choose(model, *inside).parameters}
        if not named:
            raise ValueError(f"strategy {self.name!r} trains the body only: the new head would stay random")
        return {
            part: found.get(part, [lambda name, parameter: id(parameter) not in taken]) for part in self.rates
        }

    def __repr__(self) -> str:
        parts = [
            f"{part} at {rate:g}" + (f" after {self.thaw[part]:.0%} of the training" if part in self.thaw else "")
            for part, rate in self.rates.items()
        ]
        parts += ["norms moving"] if self.norms == "moving" and self.pretrained else []
        parts += [] if self.pretrained else ["from random numbers"]
        return f"{self.name}: {', '.join(parts)}"


def _is_between(number: float, low: float, high: float) -> bool:
    return isinstance(number, Real) and low < number < high


def quiet(model: nn.Module) -> None:
    """Put what is frozen in eval mode, and the rest in train mode; a norm that is held stays so.

    A dropout without parameters goes with the nearest module around it that has some.
    """
    for _, module, around in scopes(model):
        if is_norm(module) or not list(module.children()):
            module.train(any(parameter.requires_grad for parameter in around))


def hold_norms(model: nn.Module) -> None:
    """Put every norm that keeps statistics in eval mode; its weight and bias learn as before."""
    for module in model.modules():
        if is_norm(module):
            module.eval()


class Strategies(Tabled, list):
    """Several strategies; the repr is their table."""

    def table(self) -> Table:
        """Return a row per strategy."""
        rows = [[one.name, repr(one).removeprefix(f"{one.name}: ")] for one in self]
        return Table(["strategy", "what learns"], rows)


def usual(lr: float = 3e-3) -> Strategies:
    """Return the five strategies that every tutorial names; `lr` is the rate of a new head.

    Example:
        >>> usual()
        strategy         what learns
        ---------------  -------------------------------------------------------
        head only        head at 0.003
        body at a tenth  head at 0.003, body at 0.0003
        two phases       head at 0.003, body at 0.0003 after 50% of the training
        everything       head at 0.003, body at 0.003
        from scratch     head at 0.003, body at 0.003, from random numbers
    """
    tenth = {HEAD: lr, BODY: lr / 10}
    return Strategies(
        [
            Strategy("head only", {HEAD: lr}),
            Strategy("body at a tenth", tenth),
            Strategy("two phases", tenth, thaw={BODY: 0.5}),
            Strategy("everything", {HEAD: lr, BODY: lr}),
            Strategy("from scratch", {HEAD: lr, BODY: lr}, pretrained=False),
        ]
    )
