"""What a timeline found: the rates of every step, and what is worth a look."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ftlab.plural import plural
from ftlab.table import Table, Tabled

if TYPE_CHECKING:
    from ftlab.plots import Picture


@dataclass(frozen=True)
class Mark:
    """Something to look at in a timeline."""

    kind: str  # skipped, per batch, per epoch, cut short, jump, uncovered, constant, woken, same, raised
    step: int
    text: str


@dataclass(repr=False)
class Timeline(Tabled):
    """The rates that the steps get; its repr is a table of stretches with the same rates.

    Attributes:
        groups: What the groups are called.
        rates: For each optimizer step, the rate of each group.
        scheduled: For each call of `scheduler.step()`, how many optimizer steps there were before it.
        batches: Optimizer steps per epoch; 0 if that is not known.
        marks: What is worth a look.
        resumed: The rates from the resume on, if there was one.
        resumed_at: The optimizer step of the resume.
    """

    groups: list[str]
    rates: list[list[float]] = field(default_factory=list)
    scheduled: list[int] = field(default_factory=list)
    batches: int = 0
    marks: list[Mark] = field(default_factory=list)
    resumed: list[list[float]] | None = None
    resumed_at: int | None = None

    @property
    def kinds(self) -> list[str]:
        """The kinds of the marks."""
        return [mark.kind for mark in self.marks]

    def table(self) -> Table:
        """Return a row per stretch of steps with the same rates; long schedules and many groups are cut."""
        rows, start = [], 0
        for rates, same in groupby(self.rates):
            count = len(list(same))
            rows.append([_span(start, count), *_cut(rates)])
            start += count
        if len(rows) > 12:
            rows = [*rows[:6], ["...", *[None] * len(_cut(self.groups))], *rows[-5:]]
        title = f"{plural(len(self.rates), 'optimizer step')}, {plural(len(self.scheduled), 'scheduler step')}"
        note = "\n".join(f"{mark.kind}: {mark.text}" for mark in self.marks)
        return Table(["steps", *_cut(self.groups)], rows, title=title, note=note)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return asdict(self)

    def plot(self) -> "Picture":
        """Return a picture: a line per group, the marks where they are, a resume beside the run without one."""
        from .picture import line

        return line(self)


def _cut(columns: list) -> list:
    """Leave out what is in the middle of many columns; `rates` has them all."""
    return columns if len(columns) <= 8 else [*columns[:4], "...", *columns[-3:]]


def written(rates: Sequence[float]) -> str:
    """Write the rates of the groups into a sentence: one if they are the same, and not all of many."""
    texts = [f"{rate:.4g}" for rate in rates]
    texts = texts[:1] if len(set(texts)) == 1 else texts
    return ", ".join(texts if len(texts) <= 4 else [*texts[:2], "...", texts[-1]])


def _span(start: int, count: int) -> str:
    return str(start) if count == 1 else f"{start} to {start + count - 1}"
