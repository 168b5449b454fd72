"""What the panel shows: rows of the tree, bars of the cost, the verdict of a step."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

from ftlab.freezing import FreezeAudit, FreezeCost, TensorAudit
from ftlab.freezing.norms import is_held
from ftlab.widgets.blocks import Block
from ftlab.widgets.freezing.step import inputs
from ftlab.widgets.html import escape, table_html


def row(block: Block, found: FreezeAudit | None) -> dict[str, Any]:
    """Return a block as a row of the tree, with what the last step did to it."""
    mark, reason = _mark(block.path, found)
    return {
        "path": block.path,
        "name": block.path.rpartition(".")[2] or "model",
        "kind": block.kind,
        "size": f"{block.size:,}",
        "state": block.trains,
        "note": _note(block),
        "mark": mark,
        "reason": reason,
    }


def _note(block: Block) -> str:
    """Return what the norms of a block do, where it is not plain."""
    held, total = sum(map(is_held, block.norms)), len(block.norms)
    if not total or (not held and block.trains is not False):
        return ""
    if total == 1:
        return "statistics held" if held else "statistics move"
    return f"{held} of {total} norms held" if held else f"{total} norms move"


def _mark(path: str, found: FreezeAudit | None) -> tuple[str, str]:
    """Return what a step did to a block in a word, the most surprising first, and why."""
    if found is None:
        return "", ""
    inside = [t for t in found.tensors if not path or t.name == path or t.name.startswith(f"{path}.")]
    for mark, chosen in {
        "moved though frozen": [t for t in inside if t.verdict == "moved" and t.frozen],
        "stuck": [t for t in inside if t.verdict == "stuck"],
        "moved": [t for t in inside if t.verdict == "moved"],
    }.items():
        if chosen:
            return mark, _reasons(chosen)
    return "held", ""


def _reasons(tensors: list[TensorAudit]) -> str:
    count = Counter(tensor.reason for tensor in tensors)
    return ", ".join(f"{reason} ({number})" for reason, number in count.most_common())


def verdict(found: FreezeAudit) -> str:
    """Return what the step showed, in a sentence and the next one to act on."""
    table = found.table()
    note = "<br>".join(map(escape, table.note.splitlines()))
    return f'<p role="status"><b>{escape(table.title)}</b><br>{note}</p>'


def saved(found: FreezeCost | Exception | None, example: torch.Tensor | tuple) -> str:
    """Return what the frozen parts save, as bars with their numbers."""
    if isinstance(found, Exception):
        reason = escape(f"{type(found).__name__}: {found}")
        return f"<p>The cost cannot be counted; does the batch fit, FreezePanel(model, example=...)? {reason}</p>"
    if found is None:
        return "<p>Counting the cost ...</p>"
    now, full = found.now, found.everything
    rows = [
        _bar("trainable parameters", now.trainable, full.trainable, short),
        _bar("gradients and Adam's moments", now.gradients + now.adam, full.gradients + full.adam, _bytes),
        _bar("activations kept for backward", now.activations, full.activations, _bytes),
        _bar("backward work", now.backward, full.backward, _work),
    ]
    shapes = " and ".join("×".join(map(str, getattr(x, "shape", "?"))) for x in inputs(example))
    return f"{table_html('llrl', rows)}<p>of full training, for a batch of {shapes}</p>"


def _bar(label: str, now: int, full: int, unit: Callable[[int], str]) -> list[str]:
    share = now / full if full else 0.0
    bar = f'<div class="ftlab-bar" aria-hidden="true"><div style="width: {share:.0%}"></div></div>'
    return [label, bar, f"{share:.0%}", f"{unit(now)} of {unit(full)}"]


def _bytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB" if size >= 2**20 else f"{size / 2**10:,.1f} KiB"


def _work(operations: int) -> str:
    return f"{operations / 1e9:,.2f} GFLOP" if operations >= 1e9 else f"{operations / 1e6:,.2f} MFLOP"


def short(number: int) -> str:
    """Return a number of parameters as one says it."""
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number:,}"
