"""What is in a checkpoint: a dictionary that shows itself as a table."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ftlab.table import Table, Tabled


class Checkpoint(Tabled, dict):
    """A checkpoint in memory: a plain dictionary, but its repr is one line per part.

    Example:
        >>> import torch
        >>> Checkpoint(model={"weight": torch.zeros(2, 3)}, extra={"epoch": 4})
        part      tensors    bytes  what
        ------  ---------  -------  ---------
        model           1       24  weight
        extra           0        0  epoch = 4
    """

    def table(self) -> Table:
        """Return one row per part: its tensors, their bytes, and what it is about."""
        rows = []
        for part, value in self.items():
            tensors = list(tensors_in(value))
            rows.append([str(part), len(tensors), sum(map(_bytes, tensors)), _about(value)])
        return Table(["part", "tensors", "bytes", "what"], rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the rows of the table as plain values."""
        return {"parts": self.table().to_dict()}


@dataclass(frozen=True, repr=False)
class Saved(Tabled):
    """What `save` wrote; the repr is the table. It holds no tensors, so it can be kept for every epoch.

    Attributes:
        path: The file.
        size: Its length in bytes.
        sha256: Its sum, if it was asked for.
        contents: One row per part.
    """

    path: Path
    size: int
    sha256: str
    contents: Table

    @property
    def parts(self) -> list[str]:
        """The names of the parts."""
        return [row[0] for row in self.contents.rows]

    def table(self) -> Table:
        """Return the parts under the name of the file and its size."""
        note = f"sha256 {self.sha256}" if self.sha256 else ""
        title = f"{self.path.name}: {self.size:,} bytes"
        return Table(self.contents.headers, self.contents.rows, title=title, note=note)

    def to_dict(self) -> dict[str, Any]:
        """Return path, size, sum and rows as plain values."""
        rows = self.contents.to_dict()
        return {"path": str(self.path), "size": self.size, "sha256": self.sha256, "parts": rows}


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield every tensor in nested dictionaries and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(item)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _about(value: Any) -> str:
    if not isinstance(value, dict):
        return "" if isinstance(value, Tensor | list | tuple) else str(value)
    shown = [_entry(name, item) for name, item in list(value.items())[:3]]
    return ", ".join(shown) + (f" and {len(value) - 3} more" if len(value) > 3 else "")


def _entry(name: Any, item: Any) -> str:
    return f"{name} = {item}" if isinstance(item, bool | int | float | str) else str(name)
