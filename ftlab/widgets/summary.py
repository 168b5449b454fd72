"""The panel of the lesson on summaries: a network as a tree with bars, and a search."""

from textwrap import dedent
from typing import Any

import ipywidgets as w
import torch
from torch import nn

from ftlab.summary import ModelSummary, Row, summarize
from ftlab.summary.units import count, memory
from ftlab.widgets.blocks import blocks, outline
from ftlab.widgets.html import escape
from ftlab.widgets.panel import Panel
from ftlab.widgets.tree import NetworkTree

_STATES = {"trains": True, "frozen": False, "partly": None, "": ""}
_BATCHES = (1, 4, 16, 64, 256)


class SummaryPanel(Panel):
    """Look through a network: where its parameters are, where its memory goes, and where its work is.

    The model is never changed. Folding a block shows its sums; a click on a row tells more about it; the search
    keeps the blocks whose path or kind has the text.

    The trap: when code elsewhere changes flags or modes, the panel shows it only after `refresh()`.

    Args:
        model: Any module.
        example: What `forward` takes, as in `ftlab.summary.summarize`. With one batch, or one size, its batch
            size can be chosen in the panel.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2))
        >>> panel = SummaryPanel(model, (4, 3, 3, 3))
        >>> panel
        Sequential on 4×3×3×3: 258 parameters, 928 multiply-adds, 320 B of activations
        >>> panel.search.value = "norm"
        >>> [row["path"] for row in panel.tree.shown]
        ['', '1']
        >>> panel.tree.toggle("1")
        >>> panel.chosen
        '1'
    """

    title = "Look through a network"

    def __init__(self, model: nn.Module, example: Any) -> None:
        self.model, self.example, self.chosen = model, example, ""
        size = _batch_size(example)
        sizes = sorted({*_BATCHES, *([size] if size else [])})
        self.search = w.Text(placeholder="a name or a kind, such as conv", description="search")
        self.batch = w.Dropdown(options=sizes, value=size or 1, description="batch")
        self.batch.layout.width = "170px"
        self.batch.layout.display = None if size else "none"
        self.tree = NetworkTree([], label=type(model).__name__, checkable=False)
        self._unfolded = self.tree.expanded = outline(blocks(model))
        self.detail = w.HTML()
        self._found: tuple[tuple, ModelSummary] | None = None
        super().__init__(w.HBox([self.search, self.batch]), self.tree, self.detail)
        self.tree.on_toggle(lambda path: self._act(lambda: self._choose(path)))
        self.on(self.search, self._unfold)
        self.on(self.batch)

    @property
    def summary(self) -> ModelSummary:
        """The summary that is shown; counted again only if flags, modes or the batch have changed."""
        flags = bytes(p.requires_grad for p in self.model.parameters())
        state = (self.batch.value, flags, bytes(m.training for m in self.model.modules()))
        if self._found is None or self._found[0] != state:
            self._found = (state, summarize(self.model, _with_batch(self.example, self.batch.value)))
        return self._found[1]

    def _choose(self, path: str) -> None:
        self.chosen = path

    def _unfold(self) -> None:
        """Show every match, and without a search what was unfolded at first."""
        above = {up for row in self.summary.search(self.search.value) for up in _above(row.path)}
        self.tree.expanded = ["", *sorted(above - {""})] if self.search.value.strip() else self._unfolded

    def _rows(self) -> list[Row]:
        """Return the rows that match, and the blocks in which they lie."""
        found = self.summary
        matches = {row.path for row in found.search(self.search.value)}
        kept = matches | {up for path in matches for up in _above(path)} | {""}
        return [row for row in found.rows if row.path in kept]

    def _render(self) -> None:
        found, rows = self.summary, self._rows()
        self.tree.update([_tree_row(row, found.rows[0]) for row in rows])
        shown = next((row for row in rows if row.path == self.chosen), rows[0])
        self.detail.value = f"<p>{escape(_details(shown, found))}</p>"

    def describe(self) -> str:
        """Return the totals, and how much the search has found."""
        found = self.summary
        line = f"{found.name} on {found.inputs}: {count(found.total_params)} parameters, "
        line += f"{count(found.multiply_adds)} multiply-adds, {memory(found.activations)} of activations"
        if text := self.search.value.strip():
            line += f"; {len(found.search(text))} of {len(found.rows)} blocks match {text!r}"
        return line

    def code(self) -> str:
        """Return plain PyTorch that prints the blocks in sight, with the same numbers."""
        given = _given(self.example, self.batch.value)
        if not given:
            return ""
        paths = [row["path"] for row in self.tree.shown if row["path"] and row["kind"] != "parameter"]
        return dedent(_CODE).format(names=paths, given=given).strip()


_CODE = """
import copy

import torch
from torch.utils.flop_counter import FlopCounterMode

shadow = copy.deepcopy(model).to("meta")  # shapes without values: your model is not run, and not changed
counter = FlopCounterMode(display=False)
with torch.no_grad(), counter:
    shadow({given})
work = counter.get_flop_counts()
for name in {names}:
    module = model.get_submodule(name)
    parameters = sum(p.numel() for p in module.parameters())
    flops = sum(work.get(f"{{type(model).__name__}}.{{name}}", {{}}).values())
    print(name, type(module).__name__, f"{{parameters:,}} parameters", f"{{flops // 2:,}} multiply-adds")
"""


def _tree_row(row: Row, whole: Row) -> dict[str, Any]:
    bars = [
        _bar("parameters", row.parameters, whole.parameters, count),
        _bar("memory", row.activations, whole.activations, memory),
        _bar("work", row.multiply_adds, whole.multiply_adds, count),
    ]
    notes = [f"×{row.calls}" if row.calls > 1 else "", "shared" if row.tied else "", row.mode]
    return {
        "path": row.path,
        "name": row.name or "model",
        "kind": row.kind,
        "size": f"{row.parameters:,}",
        "state": _STATES[row.state],
        "note": ", ".join(filter(None, notes)),
        "bars": bars,
    }


def _bar(label: str, part: int, whole: int, unit: Any) -> dict[str, Any]:
    return {"label": label, "share": part / whole if whole else 0.0, "text": unit(part) if part else ""}


def _details(row: Row, found: ModelSummary) -> str:
    """Return what there is to say about a row, in sentences."""
    whole = found.rows[0]
    line = f"{row.path or 'The whole model'} ({row.kind})"
    line += f" gives {row.output}" if row.outputs else ""
    line += f", called {row.calls} times" if row.calls > 1 else ""
    if row.mode and not row.calls:
        line += " is never called itself: its parent uses it in another way, or not at all"
    if row.path:
        line += f"; {_share(row, whole, 'parameters')} of the parameters"
        line += f", {_share(row, whole, 'activations')} of the activation memory"
        line += f", {_share(row, whole, 'multiply_adds')} of the work"
    line += f"; {row.trainable:,} of {row.parameters:,} parameters are trainable" if row.parameters else ""
    line += f"; shares {', '.join(row.tied)}, counted there" if row.tied else ""
    return line + "."


def _share(row: Row, whole: Row, kind: str) -> str:
    part, total = getattr(row, kind), getattr(whole, kind)
    return f"{part / total:.1%}" if total else "nothing"


def _above(path: str) -> list[str]:
    """Return the paths of all blocks that `path` lies in."""
    parts = path.split(".")
    return [".".join(parts[:end]) for end in range(len(parts))] if path else []


def _batch_size(example: Any) -> int:
    """Return the batch size of one tensor or one size; 0 for anything else."""
    if isinstance(example, torch.Tensor):
        return example.shape[0] if example.ndim else 0
    sizes = isinstance(example, tuple | list) and all(isinstance(n, int) for n in example)
    return example[0] if sizes and example else 0


def _with_batch(example: Any, size: int) -> Any:
    if not _batch_size(example):
        return example
    if isinstance(example, torch.Tensor):
        return example[:1].expand(size, *example.shape[1:])  # takes no memory
    return (size, *example[1:])


def _given(example: Any, size: int) -> str:
    if not _batch_size(example):
        return ""
    is_tensor = isinstance(example, torch.Tensor)
    shape = ", ".join(map(str, (size, *(example.shape if is_tensor else example)[1:])))
    floating = not is_tensor or example.dtype == torch.float32
    return f'torch.empty({shape}, device="meta"' + (")" if floating else f", dtype={example.dtype})")
