"""Pictures of an audit and of a plan; matplotlib is loaded only when one is drawn."""

from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ftlab.plots import Picture

    from .plan import Phases
    from .report import FreezeAudit, TensorAudit

# colour blind safe, and told apart by height and hatch as well
_LOOKS = {
    "moved as meant": ("#0072b2", "", 0.7),
    "moved though frozen": ("#d55e00", "xx", 1.0),
    "stuck though trainable": ("#e69f00", "..", 0.5),
    "held": ("#999999", "", 0.3),
}


def strip(found: "FreezeAudit") -> "Picture":
    """Draw the model as a strip of tensors from first to last, one bar each, with its parts named below."""
    from matplotlib.patches import Patch

    from ftlab.plots import Picture

    looks = [_look(tensor) for tensor in found.tensors]
    figure = Picture(10, 2.6, says=found.table().title)
    axes = figure.subplots()
    for look, (colour, hatch, height) in _LOOKS.items():
        places = [place for place, name in enumerate(looks) if name == look]
        axes.bar(places, height, width=1.0, color=colour, hatch=hatch, edgecolor="white", linewidth=0.2)
    _name_parts(axes, {part: len(tensors) for part, tensors in found.parts().items()})
    axes.set(yticks=[], xlim=(-0.5, len(looks) - 0.5), ylim=(0, 1.05))
    axes.set_title(found.table().title, fontsize=10)
    patches = [
        Patch(facecolor=_LOOKS[look][0], hatch=_LOOKS[look][1], label=f"{look} ({looks.count(look)})")
        for look in _LOOKS
        if look in looks
    ]
    figure.legend(handles=patches, ncols=4, fontsize=8, loc="outside lower left", frameon=False)
    return figure


def _name_parts(axes: "Axes", sizes: dict[str, int]) -> None:
    """Put a line after each part, and its name below its middle."""
    ends = list(accumulate(sizes.values()))
    for end in ends[:-1]:
        axes.axvline(end - 0.5, color="black", linewidth=0.5)
    middles = [end - (size + 1) / 2 for end, size in zip(ends, sizes.values(), strict=True)]
    axes.set_xticks(middles, list(sizes), rotation=60, ha="right", fontsize=7)


def bars(plan: "Phases") -> "Picture":
    """Draw a bar for each phase, from the epoch at which it thaws, with its learning rate."""
    from ftlab.plots import Picture

    last = max(phase.epoch for phase in plan.phases) + 2
    figure = Picture(7, 0.6 + 0.45 * len(plan.phases), says=plan.table().title)
    axes = figure.subplots()
    for row, phase in enumerate(plan.phases):
        axes.barh(row, phase.epoch, color="#dddddd", hatch="//", edgecolor="white")
        axes.barh(row, last - phase.epoch, left=phase.epoch, color="#0072b2")
        axes.text(phase.epoch + 0.1, row, f"lr {phase.lr:g}", va="center", color="white", fontsize=8)
    axes.set_yticks(range(len(plan.phases)), [phase.label for phase in plan.phases], fontsize=8)
    axes.set(xticks=range(last + 1), xlim=(0, last), xlabel="epoch (grey and hatched: frozen)")
    return figure


def _look(tensor: "TensorAudit") -> str:
    if tensor.verdict == "stuck":
        return "stuck though trainable"
    if tensor.verdict == "moved":
        return "moved though frozen" if tensor.frozen else "moved as meant"
    return "held"
