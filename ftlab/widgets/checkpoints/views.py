"""What the checkpoint panel shows, as HTML: the keys side by side, the findings, the receipt."""

from html import escape
from itertools import zip_longest

from torch import Tensor, nn

from ftlab.checkpoints.diagnosis import Diagnosis
from ftlab.checkpoints.receipt import LoadReceipt
from ftlab.table import Table

SHOWN = 60  # rows; a learner scrolls, and does not read a thousand
Shapes = dict[str, tuple[int, ...]]


def keys_html(diagnosis: Diagnosis, model: nn.Module) -> str:
    """Return the names in the file beside the names in the model, with a word for each row."""
    info = diagnosis.info
    theirs: Shapes = {tensor.key: tuple(tensor.shape) for tensor in info.tensors} if info else {}
    own = {name: tuple(value.shape) for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    rows = key_rows(theirs, own)
    agree = sum(row[1] == "same" for row in rows)
    summary = f"{agree} of the model's {len(own)} names have a tensor of that name and shape in the file"
    more = f"<p>... and {len(rows) - SHOWN} more rows</p>" if len(rows) > SHOWN else ""
    table = Table(["in the file", "", "in the model"], rows[:SHOWN])._repr_html_()
    # it scrolls in itself, and by keyboard: the receipt and the code below stay in sight
    style = 'style="max-height: 240px; overflow: auto"'
    box = f'<div tabindex="0" role="region" aria-label="names side by side" {style}>'
    return f"<details open><summary>{summary}</summary>{box}{table}{more}</div></details>"


def key_rows(theirs: Shapes, own: Shapes) -> list[list[str]]:
    """Return rows of file, verdict and model: first what differs, then what is the same.

    Example:
        >>> key_rows({"a": (2,), "x.b": (1,)}, {"a": (2,), "b": (1,)})
        [['x.b  1', 'another name', 'b  1'], ['a  2', 'same', 'a  2']]
    """
    both = [name for name in own if name in theirs]
    shapes = [
        [_text(name, theirs), "another shape", _text(name, own)] for name in both if theirs[name] != own[name]
    ]
    same = [[_text(name, theirs), "same", _text(name, own)] for name in both if theirs[name] == own[name]]
    left = [name for name in theirs if name not in own]
    right = [name for name in own if name not in theirs]
    names = [
        [_text(one, theirs), _verdict(theirs.get(one), own.get(other)), _text(other, own)]
        for one, other in zip_longest(left, right)
    ]
    return [*names, *shapes, *same]


def _verdict(one: tuple[int, ...] | None, other: tuple[int, ...] | None) -> str:
    if one is None or other is None:
        return "only in the file" if other is None else "only in the model"
    return "another name" if one == other else "another name and shape"


def _text(name: str | None, shapes: Shapes) -> str:
    if name is None:
        return ""
    return f"{name}  {'×'.join(map(str, shapes[name])) or 'one number'}"


def findings_html(diagnosis: Diagnosis) -> str:
    """Return each finding with what was seen and what it means, and what stays unloaded after the fix."""
    if not diagnosis.findings:
        return "<p>Nothing is wrong: every name and shape fits.</p>"
    parts = [
        f"<p><b>{escape(one.kind)}</b>: {escape(one.seen)}.</p><p>{escape(one.means)}</p>"
        for one in diagnosis.findings
    ]
    if not diagnosis.fix:
        parts.append("<p>No code can help: nothing of this file can be loaded into this model.</p>")
    elif diagnosis.unloaded:
        names = ", ".join(diagnosis.unloaded[:4])
        more = f" and {len(diagnosis.unloaded) - 4} more" if len(diagnosis.unloaded) > 4 else ""
        parts.append(f"<p>After the fix {escape(names)}{more} stay as they were.</p>")
    return "\n".join(parts)


def receipt_html(receipt: LoadReceipt | None) -> str:
    """Return the receipt of the fix that was applied; nothing before that."""
    return receipt._repr_html_() if receipt else ""
