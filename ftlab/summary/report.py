"""What a summary found, as text, as a table, as HTML that folds, and as data."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tabulate import tabulate
from torch import Tensor, nn

from ftlab.nearest import nearest
from ftlab.table import Table, Tabled

from .folding import folding_html
from .rows import Row
from .units import count, memory

if TYPE_CHECKING:
    from ftlab.plots import Picture

HEADERS = ["block", "kind", "output", "parameters", "state", "mode", "mult-adds", "activations"]


@dataclass(frozen=True, repr=False)
class ModelSummary(Tabled):
    """The rows of a model and its totals; the repr is a table, in a notebook one that folds.

    Attributes:
        name: The class of the model.
        rows: A row per module and per parameter beside modules; each before those that lie in it. Their `own_`
            numbers add up to the totals.
        inputs: The shapes that went in, as text.
        parameter_bytes: Memory of all parameters.
        buffer_bytes: Memory of all buffers, such as batch norm statistics.
        gradient_bytes: Memory of the gradients of the trainable ones.
        trainable_tensors: How many tensors these are.
    """

    name: str
    rows: list[Row]
    inputs: str
    parameter_bytes: int
    buffer_bytes: int
    gradient_bytes: int
    trainable_tensors: int

    @classmethod
    def of(cls, name: str, rows: list[Row], model: nn.Module, inputs: str) -> "ModelSummary":
        """Return the summary of a model whose rows have been counted."""
        parameters = list(model.parameters())
        trainable = [p for p in parameters if p.requires_grad]
        sizes = [sum(map(_bytes, tensors)) for tensors in (parameters, model.buffers(), trainable)]
        return cls(name, rows, inputs, *sizes, len(trainable))

    @property
    def total_params(self) -> int:
        """Values in all parameters, each tensor once."""
        return self.rows[0].parameters

    @property
    def trainable_params(self) -> int:
        """Those that require a gradient."""
        return self.rows[0].trainable

    @property
    def multiply_adds(self) -> int:
        """Work of one forward: a multiplication with its addition counts one, in products and convolutions."""
        return self.rows[0].multiply_adds

    @property
    def activations(self) -> int:
        """Bytes that autograd keeps for backward, as the model is now."""
        return self.rows[0].activations

    @property
    def optimizer_bytes(self) -> dict[str, int]:
        """What an optimizer adds once it has stepped, by its kind."""
        adam = 2 * self.gradient_bytes + 4 * self.trainable_tensors  # and a float32 counter for each tensor
        return {"SGD": 0, "SGD with momentum": self.gradient_bytes, "Adam, AdamW": adam}

    def __getitem__(self, path: str) -> Row:
        """Return the row at `path`; `""` is the model.

        Raises:
            KeyError: There is none; the message says which ones are near.
        """
        for row in self.rows:
            if row.path == path:
                return row
        raise KeyError(
            f"{self.name} has no block {path!r}; {nearest(path, [row.path for row in self.rows if row.path])}"
        )

    def search(self, text: str) -> list[Row]:
        """Return the rows whose path or kind contains `text`, in any case; all of them for an empty text.

        Example:
            >>> from ftlab.summary import summarize
            >>> found = summarize(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), (1, 2))
            >>> [row.path for row in found.search("linear")]
            ['0', '2']
        """
        wanted = text.strip().lower()
        return [row for row in self.rows if wanted in row.path.lower() or wanted in row.kind.lower()]

    def table(self, depth: int | None = None) -> Table:
        """Return the blocks down to `depth` as a table; None takes what fits on a screen.

        A row has the sum of what lies in it, so the rows of one depth add up, not all rows.
        """
        shown = self._shown(depth)
        headers, lines = self._lines(shown)
        return Table(headers, lines, title=self._title(), note=self._note(shown))

    def memory(self) -> Table:
        """Return what one training step needs, in memory."""
        parts = {"parameters": self.parameter_bytes, "buffers": self.buffer_bytes}
        parts |= {"gradients": self.gradient_bytes, "activations kept for backward": self.activations}
        parts |= {f"state of {kind}": size for kind, size in self.optimizer_bytes.items()}
        rows = [[name, memory(size)] for name, size in parts.items()]
        return Table(["one training step", "memory"], rows, title=f"{self.name} on {self.inputs}")

    def plot(self, depth: int = 1) -> "Picture":
        """Draw the share of each block of one depth in parameters, activation memory and work."""
        from .picture import shares

        return shares(self, depth)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data, numbers in values, operations and bytes."""
        totals = ("total_params", "trainable_params", "multiply_adds", "activations", "optimizer_bytes")
        return asdict(self) | {name: getattr(self, name) for name in totals}

    def to_markdown(self, depth: int | None = None) -> str:
        """Return the table for a README or an issue."""
        headers, lines = self._lines(self._shown(depth))
        texts = [column for column, header in enumerate(headers) if header != "parameters"]
        body = tabulate(lines, headers, tablefmt="pipe", intfmt=",", disable_numparse=texts)
        return f"{self._title()}\n\n{body}\n"

    def _shown(self, depth: int | None) -> list[Row]:
        if depth is None:
            depth = next((d for d in (3, 2) if sum(row.depth <= d for row in self.rows) <= 40), 1)
        return [row for row in self.rows if row.depth <= depth]

    def _lines(self, shown: Sequence[Row]) -> tuple[list[str], list[list[Any]]]:
        if not any(row.lr for row in self.rows):
            return HEADERS, [_cells(row) for row in shown]
        return [*HEADERS, "lr"], [[*_cells(row), row.lr] for row in shown]

    def _title(self) -> str:
        frozen = "all trainable" if self.trainable_params == self.total_params else "trainable"
        trains = "" if frozen == "all trainable" else f"{self.trainable_params:,} "
        line = f"{self.name} on {self.inputs}: {self.total_params:,} parameters ({trains}{frozen}), "
        return line + f"{count(self.multiply_adds)} multiply-adds"

    def _note(self, shown: Sequence[Row]) -> str:
        adam = self.optimizer_bytes["Adam, AdamW"]
        line = f"A training step: parameters {memory(self.parameter_bytes)}, "
        line += f"gradients {memory(self.gradient_bytes)}, activations {memory(self.activations)}; "
        line += f"Adam adds {memory(adam)}."
        hidden = len(self.rows) - len(shown)
        return line + (f" {hidden} blocks are folded: .table(depth=...) shows them." if hidden else "")

    def _repr_html_(self) -> str:
        return folding_html(self.rows, self._title(), self._note(self.rows))


def _cells(row: Row) -> list[Any]:
    kind = row.kind + (f" (is {', '.join(row.tied)})" if row.tied else "")
    kind += f" ×{row.calls}" if row.calls > 1 else ""
    work = count(row.multiply_adds) if row.multiply_adds else ""
    kept = memory(row.activations) if row.activations else ""
    return [row.path or "(all)", kind, row.output, row.parameters or "", row.state, row.mode, work, kept]


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
