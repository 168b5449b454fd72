"""The result of a comparison: means, spreads, differences, and the table of them."""

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import torch
import torchvision

from ftlab.nearest import nearest
from ftlab.table import Table, Tabled

from .difference import Difference
from .running import Run

if TYPE_CHECKING:
    from ftlab.plots import Picture

MIB = 2**20


class Comparison(Tabled):
    """The result of `compare`; its repr is a table with a row per strategy, a column per case.

    Attributes:
        runs: Every training.
        about: When and where it was measured, and with which versions.
        stopped: Why it ended early; empty if it did not.
    """

    def __init__(self, runs: Sequence[Run], about: Mapping[str, str] | None = None, stopped: str = "") -> None:
        self.runs, self.about, self.stopped = list(runs), dict(about or here()), stopped

    @property
    def strategies(self) -> list[str]:
        """The names of the strategies, in order."""
        return list(dict.fromkeys(one.strategy for one in self.runs))

    @property
    def cases(self) -> list[str]:
        """The names of the data, in order."""
        return list(dict.fromkeys(one.case for one in self.runs))

    def of(self, strategy: str, case: str) -> list[Run]:
        """Return the trainings of one strategy on one case, one per seed.

        Raises:
            KeyError: There is none of this name.
        """
        for given, known, what in ((strategy, self.strategies, "strategy"), (case, self.cases, "case")):
            if given not in known:
                raise KeyError(f"there is no {what} {given!r} here; {nearest(given, known)}")
        return [one for one in self.runs if (one.strategy, one.case) == (strategy, case)]

    def mean(self, strategy: str, case: str) -> float:
        """Return the mean accuracy over the seeds; not a number where there is no training."""
        found = [one.accuracy for one in self.of(strategy, case)]
        return fmean(found) if found else math.nan

    def spread(self, strategy: str, case: str) -> float:
        """Return the standard deviation of the accuracy over the seeds; 0 with one seed, which has none."""
        found = [one.accuracy for one in self.of(strategy, case)]
        return stdev(found) if len(found) > 1 else 0.0

    def best(self, case: str) -> str:
        """Return the strategy with the highest mean accuracy.

        The trap: the best of many is best partly by luck. Look at `level_with_best`, and report what you chose on
        images that had no say in the choice.
        """
        return max(self.strategies, key=lambda one: _or_lowest(self.mean(one, case)))

    def level_with_best(self, case: str) -> list[str]:
        """Return the strategies that are not clearly worse than the best, which is among them.

        One that has no seed in common with the best cannot be told from it.
        """
        best = self.best(case)
        others = [one for one in self.strategies if one != best and self.of(one, case)]
        return [best, *(one for one in others if not self._paired(best, one, case).clear)]

    def is_marked(self, strategy: str, case: str) -> bool:
        """Return whether tables mark it as level with the best: never with one seed, which tells nothing.

        Nor where one strategy has a single seed, as after a stop: its mean is that of other images.
        """
        many = [len(self.of(one, case)) for one in self.strategies if self.of(one, case)]
        return len(many) > 1 and min(many) > 1 and strategy in self.level_with_best(case)

    def difference(self, one: str, other: str, case: str) -> Difference:
        """Return how much better `one` was than `other` on this case, paired by seed.

        Both saw the same images with the same seed. So the luck of the draw is in both, and cancels.

        Raises:
            ValueError: They have no seed in common.
        """
        found = self._paired(one, other, case)
        if not found.each:
            raise ValueError(f"{one!r} and {other!r} have no seed in common on {case!r}")
        return found

    def _paired(self, one: str, other: str, case: str) -> Difference:
        first = {run.seed: run.accuracy for run in self.of(one, case)}
        second = {run.seed: run.accuracy for run in self.of(other, case)}
        shared = sorted(first.keys() & second.keys())
        return Difference(one, other, case, [first[seed] - second[seed] for seed in shared])

    def table(self) -> Table:
        """Return a row per strategy: accuracy in percent on each case, and what a training took."""
        rows = []
        for strategy in self.strategies:
            own = [one for one in self.runs if one.strategy == strategy]
            cells = [self._cell(strategy, case) for case in self.cases]
            rows.append(
                [
                    strategy,
                    *cells,
                    f"{fmean(one.seconds for one in own):.1f}",
                    f"{max(one.memory for one in own) / MIB:.0f}",
                ]
            )
        return Table(["strategy", *self.cases, "seconds", "MiB"], rows, title=self._title(), note=self._note())

    def _cell(self, strategy: str, case: str) -> str:
        found = self.of(strategy, case)
        if not found:
            return ""
        mark = " *" if self.is_marked(strategy, case) else ""
        spread = f" ± {100 * self.spread(strategy, case):.1f}" if len(found) > 1 else ""
        return f"{100 * self.mean(strategy, case):.1f}{spread}{mark}"

    def _title(self) -> str:
        counts = sorted({len(self.of(one.strategy, one.case)) for one in self.runs})
        if not counts:
            return "no training was finished"
        many = "one seed" if counts == [1] else f"mean ± standard deviation over {counts[-1]} seeds"
        if len(counts) > 1:
            many = f"mean ± standard deviation over {counts[0]} to {counts[-1]} seeds"
        return f"accuracy in percent on test images, {many}"

    def _note(self) -> str:
        marked = any(self.is_marked(run.strategy, run.case) for run in self.runs)
        parts = ["*: the best, or not clearly worse (paired over the seeds, 95 %)"] if marked else []
        parts += [f"{run.strategy} on {run.case}, seed {run.seed}: {run.note}" for run in self.runs if run.note]
        parts += [f"ended early: {self.stopped}"] if self.stopped else []
        return "\n".join(parts)

    def plot(self) -> "Picture":
        """Return a heat map: accuracy by strategy and case, with the spread over the seeds in each cell.

        Raises:
            ValueError: No training was finished.
        """
        from .picture import heat

        if not self.runs:
            raise ValueError("no training was finished: there is nothing to draw")
        return heat(self)

    def __add__(self, other: "Comparison") -> "Comparison":
        """Return both together; where both have the same training, the later one counts."""
        if not isinstance(other, Comparison):
            return NotImplemented
        runs = {(one.strategy, one.case, one.seed): one for one in [*self.runs, *other.runs]}
        return Comparison(list(runs.values()), self.about | other.about, other.stopped or self.stopped)

    def save(self, path: str | Path) -> None:
        """Write the trainings to a JSON file, with the date, the machine and the versions."""
        path = Path(path)
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")
        part.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> "Comparison":
        """Read what `save` wrote.

        Raises:
            ValueError: The file holds something else.
        """
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls([Run(**one) for one in found["runs"]], found["about"], found["stopped"])
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is no comparison that save() wrote: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Return the trainings as plain data."""
        return {"about": self.about, "stopped": self.stopped, "runs": [asdict(one) for one in self.runs]}


def measured() -> Comparison:
    """Return the whole grid as it was measured once; `benchmarks/strategy.py` measures it anew.

    `about` says on which day, machine and versions, with how many pixels, and at which rates.
    """
    return Comparison.load(Path(__file__).with_name("measured.json"))


def here() -> dict[str, str]:
    """Return when, where and with what something is measured now."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }


def _or_lowest(value: float) -> float:
    return -math.inf if math.isnan(value) else value
