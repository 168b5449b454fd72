"""The picture of an ablation: how far the model is off without each part."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftlab.checkpoints.resuming import Ablation
    from ftlab.plots import Picture


def draw(ablation: "Ablation") -> "Picture":
    """Draw a bar per part that was left out, on a scale of powers of ten, with the number beside it."""
    from ftlab.plots import Picture

    gaps = {part: result.difference for part, result in ablation.results.items()}
    says = "difference at the end without " + ", ".join(f"{part}: {gap:.2g}" for part, gap in gaps.items())
    figure = Picture(8, 0.9 + 0.3 * len(gaps), says=says)
    axes = figure.subplots()
    smallest = min((gap for gap in gaps.values() if gap > 0), default=1.0) / 10
    axes.set_xscale("log")
    axes.set_xlim(smallest, max([*gaps.values(), 10 * smallest]) * 5)
    for place, gap in enumerate(gaps.values()):
        axes.barh(place, max(gap, smallest) - smallest, left=smallest, color="#2166ac")
        axes.text(
            max(gap, smallest) * 1.1, place, f"{gap:.2g}" if gap else "none: bit-exact", va="center", fontsize=8
        )
    labels = ["the whole checkpoint" if part == "nothing" else f"without {part}" for part in gaps]
    axes.set_yticks(range(len(gaps)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("largest difference between two numbers of the model, at the end")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
