"""What a judge says: findings, one per thing that was checked, and what to do next."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ftlab.data.images import Images
from ftlab.table import Table, Tabled
from ftlab.training import Evaluation

if TYPE_CHECKING:
    from ftlab.plots import Picture

MARKS = {True: "✓", False: "✗", None: "–"}


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
        check: What has to hold.
        passed: Whether it does; None if you have not decided yet.
        seen: What was measured.
        advice: What to do next; empty if it holds.
    """

    check: str
    passed: bool | None
    seen: str
    advice: str = ""


class Verdict(Tabled):
    """The result of `judge` and `defend`; its repr is a table.

    Attributes:
        findings: One per check.
        evaluation: How the best model did on the hidden images; None if that was not measured.
        pictures: These images.
    """

    def __init__(
        self,
        findings: Iterable[Finding],
        evaluation: Evaluation | None = None,
        pictures: Images | None = None,
    ) -> None:
        self.findings, self.evaluation, self.pictures = list(findings), evaluation, pictures

    @property
    def passed(self) -> bool:
        """Whether everything holds, and nothing is left undecided."""
        return all(finding.passed for finding in self.findings)

    @property
    def mean_accuracy(self) -> float | None:
        """The accuracy on the hidden images as the mean over the classes; None if that was not measured."""
        shares = self.by_class().values()
        return sum(shares) / len(shares) if shares else None

    def by_class(self) -> dict[str, float]:
        """Return the accuracy on the hidden images of each class of which there are any."""
        if self.evaluation is None:
            return {}
        counts, right = self.evaluation.confusion.sum(1), self.evaluation.confusion.diagonal()
        names = self.evaluation.classes
        return {name: (right[i] / counts[i]).item() for i, name in enumerate(names) if counts[i]}

    def summary(self) -> str:
        """Return in a line how much holds."""
        counts = {mark: sum(f.passed is mark for f in self.findings) for mark in MARKS}
        line = f"{counts[True]} of {len(self.findings)} checks hold"
        if counts[None]:
            line += f", {counts[None]} not decided yet"
        return line + (": the work is done." if self.passed else ".")

    def mistakes(self, count: int = 8) -> "Picture":
        """Draw the surest mistakes on the hidden images, each with what was said instead.

        Raises:
            ValueError: The accuracy was not measured, or there is no mistake.
        """
        if self.evaluation is None:
            raise ValueError("no accuracy was measured here; look at the findings for the reason")
        if not self.evaluation.worst(1):
            raise ValueError("there is no mistake to look at")
        from ftlab import plots  # draws: loads matplotlib

        return plots.mistakes(self.pictures, self.evaluation, count)

    def table(self) -> Table:
        """Return a row per check."""
        rows = [[f.check, MARKS[f.passed], f.seen, f.advice] for f in self.findings]
        return Table(["what has to hold", "holds", "seen", "next step"], rows, title=self.summary())

    def to_dict(self) -> list[dict[str, Any]]:
        """Return one dictionary per check."""
        return [asdict(finding) for finding in self.findings]
