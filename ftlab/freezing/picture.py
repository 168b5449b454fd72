"""Pictures of an audit and of a plan; matplotlib is loaded only when one is drawn."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .report import FreezeAudit

# colour blind safe, and told apart by height and hatch as well
_LOOKS = {
    "moved as meant": ("#0072b2", "", 0.7),
    "moved though frozen": ("#d55e00", "xx", 1.0),
    "stuck though trainable": ("#e69f00", "..", 0.5),
    "held": ("#999999", "", 0.3),
}


def strip(found: "FreezeAudit") -> "Figure":
    """Draw the model as a strip of tensors from first to last, one bar each, with its parts named below."""
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch

    names = [_look(tensor) for tensor in found.tensors]
    figure, axes = plt.subplots(figsize=(10, 2.4), layout="constrained")
    for look, (colour, hatch, height) in _LOOKS.items():
        places = [place for place, name in enumerate(names) if name == look]
        axes.bar(places, height, width=1.0, color=colour, hatch=hatch, edgecolor="white", linewidth=0.2)
    start = 0
    ticks = []
    for part, tensors in found.parts().items():
        ticks.append((start + (len(tensors) - 1) / 2, part))
        start += len(tensors)
        axes.axvline(start - 0.5, color="black", linewidth=0.5)
    axes.set_xticks(
        [place for place, _ in ticks], [part for _, part in ticks], rotation=60, ha="right", fontsize=7
    )
    axes.set(yticks=[], xlim=(-0.5, len(names) - 0.5), ylim=(0, 1.05), title=found.table().title)
    patches = [
        Patch(facecolor=_LOOKS[look][0], hatch=_LOOKS[look][1], label=f"{look} ({names.count(look)})")
        for look in _LOOKS
        if look in names
    ]
    axes.legend(handles=patches, ncols=4, fontsize=7, loc="upper left", bbox_to_anchor=(0, -0.4), frameon=False)
    plt.close(figure)  # it is shown once, as the value of the cell
    return figure


def _look(tensor) -> str:
    if tensor.verdict == "stuck":
        return "stuck though trainable"
    if tensor.verdict == "moved":
        return "moved though frozen" if tensor.frozen else "moved as meant"
    return "held"
