"""How much better one strategy was than another, seed by seed."""

import math
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True)
class Difference:
    """How much better one strategy was than another, seed by seed.

    Attributes:
        one: The first strategy.
        other: The second one.
        case: The data.
        each: Accuracy of the first minus accuracy of the second, for each seed that both have.
    """

    one: str
    other: str
    case: str
    each: list[float]

    @property
    def mean(self) -> float:
        """The mean difference."""
        return fmean(self.each)

    @property
    def error(self) -> float:
        """The standard error of the mean; infinite with one seed."""
        return stdev(self.each) / math.sqrt(len(self.each)) if len(self.each) > 1 else math.inf

    @property
    def clear(self) -> bool:
        """Whether zero lies outside the 95 % interval of Student's t; never with a single seed."""
        return len(self.each) > 1 and abs(self.mean) > _student(len(self.each) - 1) * self.error

    def __repr__(self) -> str:
        each = ", ".join(f"{100 * one:+.1f}" for one in self.each)
        name, verdict = f"{self.one} minus {self.other} on {self.case}", "clear" if self.clear else "not clear"
        if len(self.each) == 1:
            return f"{name}: {each} points with one seed: {verdict}"
        return (
            f"{name}: {100 * self.mean:+.1f} ± {100 * self.error:.1f} points "
            f"over {len(self.each)} seeds ({each}): {verdict}"
        )


def _student(freedom: int) -> float:
    """Return the 97.5 % point of Student's t."""
    from scipy.stats import t

    return float(t.ppf(0.975, freedom))
