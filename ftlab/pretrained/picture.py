"""The map of features as a picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ftlab.plots import Picture

MARKERS = "o^sD"


def draw_map(
    points: Tensor, targets: Sequence[int], classes: Sequence[str], groups: Sequence[str] | None = None
) -> "Picture":
    """Draw points (N, 2), a colour and a word per class, and a marker per group.

    Args:
        points: As `flat_map` gives them.
        targets: The class number of each point.
        classes: Names of the classes.
        groups: To which group each point belongs, such as the vendor of the drawing.

    Example:
        >>> draw_map(torch.rand(4, 2), [0, 0, 1, 1], ["cat", "dog"])
        a map of 4 images of 2 classes
    """
    from matplotlib import colormaps

    from ftlab.plots import Picture

    groups = ["images"] * len(targets) if groups is None else list(groups)
    names, targets = list(dict.fromkeys(groups)), torch.as_tensor(targets)
    drawn = f", in {len(names)} groups: {', '.join(names)}" if len(names) > 1 else ""
    figure = Picture(7, 5, says=f"a map of {len(points)} images of {len(classes)} classes{drawn}")
    ax = figure.subplots()
    colors = colormaps["tab10"]
    for number, group in enumerate(names):
        inside = torch.tensor([each == group for each in groups])
        x, y = points[inside].T
        shade = [colors(int(target) % 10) for target in targets[inside]]
        ax.scatter(
            x, y, c=shade, marker=MARKERS[number % len(MARKERS)], s=16, alpha=0.55, linewidths=0, label=group
        )
    for number, name in enumerate(classes):
        if (own := points[targets == number]).numel():
            box = {"facecolor": "white", "edgecolor": colors(number % 10), "boxstyle": "round,pad=0.2"}
            ax.text(*own.median(0).values.tolist(), name, ha="center", va="center", fontsize=9, bbox=box)
    ax.set(xticks=[], yticks=[], xlabel="first direction", ylabel="second direction")
    if len(names) > 1:
        for handle in ax.legend().legend_handles:
            handle.set(facecolor="black", alpha=1)
    return figure
