"""The heat map of a comparison; matplotlib is loaded only when one is drawn."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ftlab.plots import Picture

    from .comparison import Comparison


def heat(found: "Comparison") -> "Picture":
    """Draw accuracy by strategy (row) and case (column), with its spread over the seeds in each cell."""
    from ftlab.plots import Picture

    strategies, cases = found.strategies, found.cases
    values = np.array([[found.mean(strategy, case) for case in cases] for strategy in strategies])
    figure = Picture(2.2 + 1.25 * len(cases), 1.1 + 0.5 * len(strategies), says=_says(found))
    axes = figure.subplots()
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(*values.shape):
        strategy, case = strategies[row], cases[column]
        if np.isnan(values[row, column]):
            axes.text(column, row, "not run", ha="center", va="center", fontsize=8, color="gray")
            continue
        best = found.is_marked(strategy, case)
        spread = f" ± {100 * found.spread(strategy, case):.0f}" if len(found.of(strategy, case)) > 1 else ""
        text = f"{100 * values[row, column]:.0f}{spread}{' *' if best else ''}"
        color = "white" if values[row, column] > 0.6 else "black"
        weight = "bold" if best else "normal"
        axes.text(column, row, text, ha="center", va="center", fontsize=9, color=color, weight=weight)
    axes.set_xticks(range(len(cases)), [case.replace(", ", "\n") for case in cases], fontsize=8)
    axes.set_yticks(range(len(strategies)), strategies, fontsize=9)
    axes.set_title("accuracy in percent; * the best, or not clearly worse", fontsize=9)
    return figure


def _says(found: "Comparison") -> str:
    best = [f"on {case} {found.best(case)} with {found.mean(found.best(case), case):.0%}" for case in found.cases]
    many = f"accuracy of {len(found.strategies)} strategies on {len(found.cases)} data sets"
    return f"{many}; best {', '.join(best)}"
