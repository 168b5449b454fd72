"""The picture of a log of modes."""

from typing import TYPE_CHECKING

from ftlab.parts import by_part

if TYPE_CHECKING:
    from ftlab.modes.log import ModeLog
    from ftlab.plots import Picture

COLOURS = {"T": "#d9822b", "e": "#2166ac", "~": "#999999", " ": "white"}  # told apart by the letters as well


def draw(log: "ModeLog") -> "Picture":
    """Draw the modes as a strip: parts downwards, forward passes to the right, a letter in each stretch."""
    from ftlab.plots import Picture

    rows = log.strip().rows
    says = "; ".join(f"{part}: {letters}" for part, _, letters in rows) or "nothing depends on the mode"
    figure = Picture(8, 0.9 + 0.28 * max(len(rows), 1), says=says)
    axes = figure.subplots()
    for number, names in enumerate(by_part({name: name for name in log._matter}).values()):
        for start, length, letter in _stretches(log._letters(names)):
            axes.barh(number, length, left=start, color=COLOURS[letter], edgecolor="white")
            axes.text(start + length / 2, number, letter, ha="center", va="center", color="white", fontsize=8)
    axes.set_yticks(range(len(rows)), [f"{part} ({count})" for part, count, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("forward pass (T train, e eval, ~ some of both)")
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def _stretches(letters: str) -> list[tuple[int, int, str]]:
    """Return where each run of one letter begins, how long it is, and the letter."""
    found: list[tuple[int, int, str]] = []
    for place, letter in enumerate(letters):
        if found and found[-1][2] == letter:
            start, length, _ = found.pop()
            found.append((start, length + 1, letter))
        else:
            found.append((place, 1, letter))
    return found
