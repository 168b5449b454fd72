"""Pictures of images, histories and mistakes.

Each function returns a `Picture`: a matplotlib figure that a notebook shows when it is the last line of a cell,
that stays readable in a dark theme, and whose repr says in words what is to be seen. pyplot is not used, so
nothing is shown twice and no figure piles up.
"""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import Dataset

from ftlab.training import Evaluation, History

RIGHT, WRONG = "#1b7837", "#b2182b"  # told apart by colour-blind eyes too, and never used without a word or sign


class Picture(Figure):
    """A matplotlib figure that says in its repr what it shows."""

    def __init__(self, *size: float, says: str) -> None:
        super().__init__(figsize=size, layout="constrained", facecolor="white")
        self.says = says

    def __repr__(self) -> str:
        return self.says

    def _repr_png_(self) -> bytes:
        """Return the figure as PNG; on white, so that dark text is readable whatever the theme."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=90)
        return buffer.getvalue()


def images(
    dataset: Dataset,
    positions: Sequence[int] | None = None,
    *,
    evaluation: Evaluation | None = None,
    columns: int = 8,
) -> Picture:
    """Show images with their labels and, if an evaluation is given, what the model said.

    Args:
        dataset: Its items are (image, class number) or just images: PIL images, or tensors (C, H, W), which are
            stretched to the full range of grey if they lie outside 0 to 1 (a normalised tensor does).
        positions: Which items; the first 16 if None.
        evaluation: Of this dataset, unshuffled: adds the prediction, marked ✓ or ✗.
        columns: Images per row.

    Raises:
        IndexError: A position is not in the dataset.
    """
    positions = range(min(16, len(dataset))) if positions is None else positions
    beyond = [position for position in positions if not 0 <= position < len(dataset)]
    if beyond:
        raise IndexError(f"position {beyond[0]} is not in a dataset of {len(dataset)} images")
    items = [dataset[position] for position in positions]
    titles = [
        _title(dataset, position, item, evaluation) for position, item in zip(positions, items, strict=True)
    ]
    pictures = [item[0] if isinstance(item, tuple) else item for item in items]
    return grid(pictures, [text for text, _ in titles], colors=[color for _, color in titles], columns=columns)


def grid(
    pictures: Sequence, titles: Sequence[str], *, colors: Sequence[str] | None = None, columns: int = 8
) -> Picture:
    """Show pictures in rows, each under its title."""
    columns = max(1, min(columns, len(pictures)))
    rows = -(-len(pictures) // columns)
    lines = 1 + max((title.count("\n") for title in titles), default=0)
    says = f"{len(pictures)} images: " + "; ".join(title.replace("\n", ", ") for title in titles)
    figure = Picture(1.25 * columns, (1.2 + 0.2 * lines) * max(rows, 1) + 0.1, says=says)
    axes = np.atleast_1d(figure.subplots(max(rows, 1), columns)).ravel()
    for ax in axes:
        ax.axis("off")
    for ax, picture, title, color in zip(axes, pictures, titles, colors or ["black"] * len(titles), strict=False):
        ax.imshow(_array(picture), cmap="gray")
        ax.set_title(title, fontsize=8, color=color)
    return figure


def history(history: History) -> Picture:
    """Show loss and accuracy by epoch, training and validation side by side."""
    last = history.rows[-1] if history.rows else {}
    measured = "; ".join(f"{key} {value:.3f}" for key, value in last.items() if key not in ("epoch", "lr"))
    figure = Picture(
        8, 2.8, says=f"loss and accuracy over {history.epochs} epochs, at the end {measured or 'none'}"
    )
    for ax, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for part, marker in (("train", "o"), ("val", "s")):
            points = [
                (row["epoch"], row[f"{part} {quantity}"]) for row in history.rows if f"{part} {quantity}" in row
            ]
            if points:
                ax.plot(*zip(*points, strict=True), marker=marker, label={"val": "validation"}.get(part, part))
        _label(ax, quantity)
    return figure


def compare(histories: dict[str, History], quantity: str = "val accuracy") -> Picture:
    """Show one quantity of several trainings in one chart; the keys name the curves."""
    ends = {name: history.rows[-1][quantity] for name, history in histories.items() if history.rows}
    says = f"{quantity} at the end: " + ", ".join(f"{name} {value:.3f}" for name, value in ends.items())
    figure = Picture(6, 3, says=says)
    ax = figure.subplots()
    for number, name in enumerate(ends):
        history = histories[name]
        epochs, values = zip(*[(row["epoch"], row[quantity]) for row in history.rows], strict=True)
        # The first lines are the broadest, so that a curve below an equal one is still seen.
        width = 1.5 + 2.5 * (len(ends) - 1 - number)
        ax.plot(epochs, values, marker="osD^vPX*"[number % 8], linewidth=width, markersize=width + 5, label=name)
    _label(ax, quantity)
    return figure


def confusion(evaluation: Evaluation) -> Picture:
    """Show how often each class (row) was taken for each other (column); the diagonal is what was right."""
    counts, classes = evaluation.confusion.numpy(), evaluation.classes
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 1.6 + 0.45 * len(classes)
    figure = Picture(side + 0.6, side, says=_confusion_says(counts, classes, evaluation))
    ax = figure.subplots()
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*counts.shape):
        if counts[row, column]:
            color = "white" if shares[row, column] > 0.5 else "black"
            ax.text(column, row, str(counts[row, column]), ha="center", va="center", color=color, fontsize=8)
    ax.set_xticks(range(len(classes)), classes, rotation=45, ha="right", fontsize=8)
    ax.set_yticks(range(len(classes)), classes, fontsize=8)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    return figure


def mistakes(dataset: Dataset, evaluation: Evaluation, count: int = 8) -> Picture:
    """Show the mistakes of which the model was surest."""
    positions = evaluation.worst(count)
    if not positions:
        return grid([], [])
    return images(dataset, positions, evaluation=evaluation, columns=min(8, count))


def probabilities(picture, scores: dict[str, float]) -> Picture:
    """Show a picture beside the probabilities that the model gives it, as bars."""
    figure = Picture(6.5, 2.2, says=_scores_text(scores))
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.4])
    left.imshow(_array(picture), cmap="gray")
    left.axis("off")
    _bars(right, scores)
    return figure


def seen_and_said(picture, seen: Sequence, titles: Sequence[str], answers: Sequence[dict[str, float]]) -> Picture:
    """Show a picture, and for each way to prepare it what a model then sees (above) and says (below).

    Args:
        picture: As it was before.
        seen: Images, one per way.
        titles: Names of the ways.
        answers: Per way the probabilities of the best classes.
    """
    said = [f"{title}: {_scores_text(answer)}" for title, answer in zip(titles, answers, strict=True)]
    figure = Picture(3 * (1 + len(seen)), 4.6, says="the picture; " + "; ".join(said))
    axes = figure.subplots(2, 1 + len(seen), height_ratios=[1.6, 1], squeeze=False)
    for ax, image, title in zip(axes[0], [picture, *seen], ["the picture", *titles], strict=True):
        ax.imshow(_array(image), cmap="gray")
        ax.set_title(title, fontsize=9)
        ax.set(xticks=[], yticks=[])  # the frame stays: a white image would be none on a white page
    axes[1, 0].axis("off")
    for ax, answer in zip(axes[1, 1:], answers, strict=True):
        _bars(ax, answer)
    return figure


def _scores_text(scores: dict[str, float]) -> str:
    return "; ".join(f"{name} {score:.0%}" for name, score in scores.items())


def _bars(ax: Axes, scores: dict[str, float]) -> None:
    names = list(scores)[::-1]
    ax.barh(names, [scores[name] for name in names], color=colormaps["Blues"](0.75))
    ax.set_xlim(0, 1)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)


def _label(ax: Axes, quantity: str) -> None:
    ax.set_xlabel("epoch")
    ax.set_ylabel(quantity)
    ax.xaxis.get_major_locator().set_params(integer=True)
    if "accuracy" in quantity:
        ax.set_ylim(0, 1)
    if ax.lines:
        ax.legend()


def _title(dataset: Dataset, position: int, item: object, evaluation: Evaluation | None) -> tuple[str, str]:
    classes = getattr(dataset, "classes", None)
    true = item[1] if isinstance(item, tuple) else None
    text = "" if true is None else str(classes[true] if classes else true)
    if evaluation is None:
        return text, "black"
    said = int(evaluation.predictions[position])
    sure = f"{evaluation.probabilities[position, said]:.0%}"
    if said == true:
        return f"✓ {text}\n{sure} sure", RIGHT
    return f"✗ {text}\nsaid {evaluation.classes[said]}, {sure}", WRONG


def _array(picture) -> np.ndarray:
    if not isinstance(picture, Tensor):
        return np.asarray(picture)
    array = picture.detach().cpu().float()
    if array.min() < 0 or array.max() > 1:
        array = (array - array.min()) / (array.max() - array.min()).clamp(min=1e-6)
    return array.permute(1, 2, 0).squeeze(-1).numpy()


def _confusion_says(counts: np.ndarray, classes: list[str], evaluation: Evaluation) -> str:
    off = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    row, column = np.unravel_index(off.argmax(), off.shape)
    most = (
        f"; most often {classes[row]} was taken for {classes[column]}, {off[row, column]} times"
        if off.any()
        else ""
    )
    return f"confusion matrix: {evaluation!r}{most}"
