"""What a training and an evaluation give back: the history of the epochs, the measured images."""

import copy
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ftlab.table import Table, Tabled


@dataclass(repr=False)
class History(Tabled):
    """What happened in a training, epoch by epoch; the repr is the table.

    Attributes:
        rows: One dictionary per finished epoch; `fit` counts them from 0 as `range` does, `finetune.run` from 1.
        best_state_dict: A copy of the `state_dict` after the best epoch (by validation accuracy, then loss); None
            if there was no validation.
        stopped: Why the training ended early; empty if it did not.
        seconds: How long each epoch took.
        cached: What was computed once instead of in each epoch; empty if nothing was.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    best_state_dict: dict[str, Tensor] | None = field(default=None, repr=False)
    stopped: str = ""
    seconds: list[float] = field(default_factory=list, repr=False)
    cached: str = ""
    _began: float = field(default_factory=time.perf_counter, repr=False)

    @property
    def epochs(self) -> int:
        """How many epochs were finished."""
        return len(self.rows)

    @property
    def best(self) -> dict[str, float] | None:
        """The row of the best epoch by validation, or None if there was no validation."""
        rated = [row for row in self.rows if "val accuracy" in row]
        return max(rated, key=lambda row: (row["val accuracy"], -row["val loss"]), default=None)

    def _add(self, row: dict[str, float], model: nn.Module) -> None:
        self.rows.append(row)
        now = time.perf_counter()
        self.seconds.append(now - self._began)
        self._began = now
        if self.best is row:
            # state_dict() alone is a live view: it would go on changing with the model.
            self.best_state_dict = copy.deepcopy(model.state_dict())

    def table(self) -> Table:
        """Return the epochs as a table."""
        headers = list(dict.fromkeys(key for row in self.rows for key in row))
        best = f"best epoch: {self.best['epoch']}" if self.best else ""
        stopped = f"ended early: {self.stopped}" if self.stopped else ""
        rows = [[row.get(key) for key in headers] for row in self.rows]
        return Table(headers, rows, note="; ".join(part for part in (best, stopped, self.cached) if part))

    def to_dict(self) -> dict[str, Any]:
        """Return the rows and how it ended as plain numbers and strings."""
        return {
            "rows": [dict(row) for row in self.rows],
            "stopped": self.stopped,
            "seconds": list(self.seconds),
            "cached": self.cached,
        }

    def plot(self):
        """Return a picture of loss and accuracy by epoch."""
        from ftlab import plots

        return plots.history(self)


@dataclass
class Evaluation:
    """How a model did on a set of images; the repr is one line.

    Attributes:
        loss: The mean loss.
        targets: Class numbers (N,).
        probabilities: What the model gave each class (N, classes).
        classes: The names of the classes.
    """

    loss: float
    targets: Tensor
    probabilities: Tensor
    classes: list[str]

    @property
    def predictions(self) -> Tensor:
        """The most probable class of each image (N,)."""
        return self.probabilities.argmax(1)

    @property
    def accuracy(self) -> float:
        """The share of images whose most probable class is the right one."""
        return (self.predictions == self.targets).float().mean().item()

    @property
    def confusion(self) -> Tensor:
        """How often a class (row) was taken for another (column): (classes, classes)."""
        count = len(self.classes)
        return torch.bincount(self.targets * count + self.predictions, minlength=count**2).view(count, count)

    def worst(self, count: int = 8) -> list[int]:
        """Return the positions of the mistakes, the surest first."""
        wrong = (self.predictions != self.targets).nonzero().flatten()
        sureness = self.probabilities.max(1).values[wrong]
        return wrong[sureness.argsort(descending=True, stable=True)][:count].tolist()

    def __repr__(self) -> str:
        return f"accuracy {self.accuracy:.1%} and loss {self.loss:.3f} on {len(self.targets):,} images"

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers: loss, accuracy, and the confusion matrix as lists."""
        return {"loss": self.loss, "accuracy": self.accuracy, "confusion": self.confusion.tolist()}
