"""The picture of the gradient norms of a training."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftlab.plots import Picture
    from ftlab.training.clipping import GradientClip


def draw_norms(clip: "GradientClip") -> "Picture":
    """Draw the norm before clipping at each step; a step that was clipped has a cross, another one a dot."""
    from ftlab.plots import RIGHT, WRONG, Picture

    says = f"{len(clip.norms)} gradient norms, {clip.clipped:.0%} of them above {clip.max_norm:g}"
    figure = Picture(7, 2.6, says=says)
    axes = figure.subplots()
    over = [norm > clip.max_norm for norm in clip.norms]
    for kind, marker, color, label in ((False, ".", RIGHT, "let through"), (True, "x", WRONG, "clipped")):
        points = [(step, clip.norms[step]) for step, is_over in enumerate(over) if is_over is kind]
        if points:
            axes.plot(*zip(*points, strict=True), marker, color=color, label=label)
    if clip.max_norm < float("inf"):
        axes.axhline(clip.max_norm, color="black", linewidth=0.8)
    axes.set(xlabel="step", ylabel="gradient norm before")
    if clip.norms and min(clip.norms) > 0:
        axes.set_yscale("log")  # one odd batch may have a hundred times the norm of the others
    axes.spines[["top", "right"]].set_visible(False)
    if clip.norms:
        axes.legend(fontsize=8)
    return figure
