"""Pictures of a timeline, of update ratios and of a range test; matplotlib is loaded only when one is drawn."""

from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ftlab.plots import Picture

    from .range_test import RangeTest
    from .ratios import UpdateRatios
    from .record import Timeline

# colour blind safe, and told apart by the dashes as well
_COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"]
_DASHES = ["-", "--", "-.", ":"]
_ROOM = 8  # names in a legend


def line(found: "Timeline") -> "Picture":
    """Draw the rate of each group by step."""
    from ftlab.plots import Picture

    says = "; ".join([found.table().title, *(mark.text for mark in found.marks)])
    figure = Picture(8, 3.2, says=says)
    axes = figure.subplots()
    positive = any(rate > 0 for rates in found.rates for rate in rates)
    named = _named(found.groups)
    for number, name in enumerate(found.groups):
        look = _look(number, len(found.groups))
        rates = [row[number] for row in found.rates]
        label = f"{name}: always 0" if positive and not any(rates) else name  # no place for 0 on this scale
        label = label if number in named else None
        ends = [*rates, *rates[-1:]]  # the last step is as wide as the others
        axes.step(range(len(ends)), ends, where="post", label=label, **look)
        if found.resumed:
            steps = range(found.resumed_at, found.resumed_at + len(found.resumed))
            look = {"color": look["color"], "marker": ".", "linestyle": "none"}
            label = label and f"{name}, resumed"
            axes.plot(steps, [row[number] for row in found.resumed], label=label, **look)
    _draw_marks(axes, found)
    axes.set(xlabel=_steps(found), ylabel="learning rate", yscale="log" if positive else "linear")
    if len(found.groups) > _ROOM:
        title = f"{_ROOM} of {len(found.groups)} groups"
        axes.legend(fontsize=7, title=title, title_fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    else:
        axes.legend(fontsize=8, loc="best")
    return figure


def _draw_marks(axes: "Axes", found: "Timeline") -> None:
    """Draw a line where there are marks, with their kinds above it, once for all marks of a step."""
    for step in dict.fromkeys(mark.step for mark in found.marks):
        kinds = ", ".join(dict.fromkeys(mark.kind for mark in found.marks if mark.step == step))
        side = "right" if step > len(found.rates) / 2 else "left"  # to the side where there is room
        axes.axvline(step, color="#666666", linestyle=":", linewidth=1)
        axes.text(step, 1.01, kinds, transform=axes.get_xaxis_transform(), fontsize=8, ha=side)


def ratios(found: "UpdateRatios") -> "Picture":
    """Draw rate and ratio of each group beside each other."""
    from ftlab.plots import Picture

    says = "; ".join(f"{g.name}: rate {g.lr:.2g}, moved by {g.ratio:.2g} of its size" for g in found.groups)
    figure = Picture(8, 0.9 + 0.3 * len(found.groups), says=says)
    places = range(len(found.groups))
    for axes, title, values, colour, hatch in zip(
        figure.subplots(1, 2, sharex=True, sharey=True),
        ("the rate", "how far the step moved it, relative to its size"),
        ([g.lr for g in found.groups], [g.ratio for g in found.groups]),
        ("#999999", "#0072b2"),
        ("//", ""),
        strict=True,
    ):
        axes.barh(places, values, color=colour, hatch=hatch, edgecolor="white")
        axes.set_yticks(places, [g.name for g in found.groups], fontsize=8)
        axes.set_title(title, fontsize=10)
    axes.invert_yaxis()
    known = [value for g in found.groups for value in (g.lr, g.ratio) if value > 0]
    if known:
        axes.set(xscale="log", xlim=(min(known) / 3, max(known) * 3))
    return figure


def sweep(found: "RangeTest") -> "Picture":
    """Draw the loss against the rate, the seeds as a band."""
    from ftlab.plots import Picture

    rates = [f"{c.suggestion:.2g}" if c.suggestion else "no rate" for c in found.curves]
    says = "; ".join(f"{c.name}: {rate}, {c.reason}" for c, rate in zip(found.curves, rates, strict=True))
    figure = Picture(7, 3.2, says=says)
    axes = figure.subplots()
    for number, curve in enumerate(found.curves):
        shared = min(map(len, curve.losses))
        by_step = [[seed[step] for seed in curve.losses] for step in range(shared)]
        tried, look = curve.rates[:shared], _look(number, len(found.curves))
        axes.fill_between(tried, [*map(min, by_step)], [*map(max, by_step)], color=look["color"], alpha=0.2)
        axes.plot(tried, [*map(fmean, by_step)], label=f"{curve.name}, {len(curve.losses)} seeds", **look)
        if curve.suggestion:
            axes.axvline(curve.suggestion, color=look["color"], linestyle=":")
            axes.text(
                curve.suggestion, 1.01, f"{curve.suggestion:.2g}",
                transform=axes.get_xaxis_transform(), fontsize=8, ha="center",
            )  # fmt: skip
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss (smoothed)")
    axes.legend(fontsize=8)
    return figure


def _named(groups: list[str]) -> set[int]:
    """Return which groups stand in the legend: of many, a few from the first to the last."""
    last = len(groups) - 1
    return set(range(last + 1)) if last < _ROOM else {round(last * part / (_ROOM - 1)) for part in range(_ROOM)}


def _look(number: int, count: int) -> dict[str, Any]:
    """Return colour and dashes of a line; of many lines, a colour from dark to light and thin ones."""
    if count > _ROOM:
        from matplotlib import colormaps

        return {"color": colormaps["viridis"](number / (count - 1)), "linewidth": 1}
    colour, dashes = _COLOURS[number % len(_COLOURS)], _DASHES[number % len(_DASHES)]
    return {"color": colour, "linestyle": dashes, "linewidth": 2}


def _steps(found: "Timeline") -> str:
    return f"optimizer step ({found.batches} are an epoch)" if found.batches > 1 else "optimizer step"
