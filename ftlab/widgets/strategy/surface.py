"""The picture of the panel: how one training goes, and accuracy over the number of images, a line per depth."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ftlab.strategy import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ftlab.plots import Picture

_MARKS = "osD^vPX*"
FAINT = 0.25


@dataclass
class Result:
    """What came of some settings.

    Attributes:
        settings: Those of the panel: data, images, depth, body_lr, seed.
        looks: Pairs of epochs and accuracy on test images, as the training went.
        run: What came out; None while it goes on.
        seconds: How long it is expected to take.
    """

    settings: dict[str, Any]
    looks: list[tuple[int, float]] = field(default_factory=list)
    run: Run | None = None
    seconds: float = 0.0

    @property
    def kind(self) -> tuple[int, float]:
        """Depth and rate of the body: what makes one line."""
        return self.settings["depth"], self.settings["body_lr"] or 0.0


def surface(
    results: Sequence[Result], now: Result | None, names: dict[tuple, str], counts: Sequence[int], epochs: int,
    chance: float,
) -> "Picture":  # fmt: skip
    """Draw what is known of one data set, the present settings in the foreground.

    Args:
        results: The trainings that are finished.
        now: The one of the present settings; it may be finished, or go on; None if there is none.
        names: What each kind of result is called.
        counts: The numbers of images that can be chosen.
        epochs: How long each training is.
        chance: The accuracy of somebody who guesses.
    """
    from ftlab.plots import Picture

    figure = Picture(9, 3.3, says=_says(results, now, names))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1, 1.7])
    looks = {kind: _look(number, len(names)) for number, kind in enumerate(sorted(names))}
    for one in results:
        if one is not now:
            left.plot(*zip(*one.looks, strict=True), color=looks[one.kind]["color"], alpha=FAINT, linewidth=1)
    for kind in sorted({one.kind for one in results}):
        _line(right, [one for one in results if one.kind == kind], looks[kind], names[kind])
    if now and now.looks:
        _foreground(left, right, now, looks[now.kind])
    for axes in (left, right):
        axes.axhline(chance, color="gray", linestyle=":", linewidth=1)
        axes.grid(axis="y", alpha=0.25)
    left.annotate(
        "guessing", (0, chance), xytext=(3, -9), textcoords="offset points", fontsize=7, color="dimgray"
    )
    left.set(xlim=(0, epochs * 1.04), ylim=(0, 1), xlabel="epochs", ylabel="accuracy on test images")
    left.xaxis.get_major_locator().set_params(integer=True)
    left.set_title("this training, and the earlier ones", fontsize=9)
    right.set_xscale("log", base=2)
    right.set_xticks(counts, [str(count) for count in counts])
    right.set(xlim=(counts[0] / 1.3, counts[-1] * 1.3), xlabel="images to learn from")
    right.set_title("all results, a line per depth", fontsize=9)
    right.minorticks_off()
    if results:
        right.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def _look(number: int, many: int) -> dict[str, Any]:
    """Return colour and marker: from dark to light with the depth, and each with a form of its own."""
    from matplotlib import colormaps

    return {"color": colormaps["viridis"](0.8 * number / max(many - 1, 1)), "marker": _MARKS[number % 8]}


def _line(axes: "Axes", results: list[Result], look: dict, name: str) -> None:
    """Draw each result faintly, and a line through the means over the seeds."""
    means = _means(results)
    axes.plot(means.keys(), means.values(), linewidth=1.5, alpha=0.55, markersize=6, label=name, **look)
    for one in results:
        axes.plot(one.settings["images"], one.run.accuracy, linestyle="", alpha=0.35, markersize=5, **look)


def _foreground(left: "Axes", right: "Axes", now: Result, look: dict) -> None:
    left.plot(*zip(*now.looks, strict=True), linewidth=2, markersize=6, **look)
    accuracy = now.run.accuracy if now.run else now.looks[-1][1]
    fill = look["color"] if now.run else "white"
    right.plot(
        now.settings["images"], accuracy, marker=look["marker"], markersize=12, markerfacecolor=fill,
        markeredgecolor="black", markeredgewidth=1.5, zorder=5,
    )  # fmt: skip
    text = f"{accuracy:.0%}" if now.run else f"{accuracy:.0%} so far"
    right.annotate(
        text, (now.settings["images"], accuracy), xytext=(0, 11), textcoords="offset points", ha="center",
        fontsize=10, weight="bold",
    )  # fmt: skip


def _means(results: list[Result]) -> dict[int, float]:
    """Return the mean accuracy for each number of images, in order."""
    counts = sorted({one.settings["images"] for one in results})
    return {
        count: fmean(one.run.accuracy for one in results if one.settings["images"] == count) for count in counts
    }


def _says(results: Sequence[Result], now: Result | None, names: dict[tuple, str]) -> str:
    lines = []
    for kind in sorted({one.kind for one in results}):
        means = _means([one for one in results if one.kind == kind])
        lines.append(f"{names[kind]}: " + ", ".join(f"{mean:.0%} with {count}" for count, mean in means.items()))
    if now and now.looks and not now.run:
        epochs, accuracy = now.looks[-1]
        lines.append(f"the present training {accuracy:.0%} after {epochs} epochs")
    return f"accuracy by number of images; {'; '.join(lines)}"
