"""A picture of a summary; matplotlib is loaded only when one is drawn."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftlab.plots import Picture

    from .report import ModelSummary

# colour blind safe, and told apart by hatch as well
_LOOKS = {
    "parameters": ("parameters", "#0072b2", ""),
    "activations": ("activation memory", "#e69f00", ".."),
    "multiply_adds": ("work", "#d55e00", "//"),
}


def shares(found: "ModelSummary", depth: int) -> "Picture":
    """Draw for each block what share it has of the parameters, of the activation memory and of the work."""
    from ftlab.plots import Picture

    whole = found.rows[0]
    rows = [row for row in found.rows if row.depth == depth and any(getattr(row, kind) for kind in _LOOKS)]
    rows = rows or [whole]  # a model of one layer, or one that does nothing
    most = {}
    for kind, (label, *_) in _LOOKS.items():
        if getattr(whole, kind):
            most[label] = max(rows, key=lambda row: getattr(row, kind)).path or "(all)"
    said = [f"most {label} in {path}" for label, path in most.items()] or ["no parameters, no work"]
    says = f"{found.name}: {', '.join(said)}"
    figure = Picture(max(5, 0.9 * len(rows)), 2.8, says=says)
    axes = figure.subplots()
    for place, (kind, (label, colour, hatch)) in enumerate(_LOOKS.items()):
        total = getattr(whole, kind) or 1
        heights = [100 * getattr(row, kind) / total for row in rows]
        places = [position + 0.27 * (place - 1) for position in range(len(rows))]
        axes.bar(places, heights, width=0.25, color=colour, hatch=hatch, edgecolor="white", label=label)
    axes.set_xticks(range(len(rows)), [row.path or "(all)" for row in rows], rotation=30, ha="right", fontsize=8)
    axes.set(ylabel="% of the whole")
    axes.legend(fontsize=8, frameon=False)
    return figure
