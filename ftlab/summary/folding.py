"""The rows as HTML that folds, without a kernel and without a script: `<details>`, which a keyboard opens too."""

from collections.abc import Sequence
from html import escape

from .rows import Row
from .units import count, memory

_BAR = "background:linear-gradient(90deg,rgba(25,118,210,.35) {share:.0%},transparent {share:.0%})"
_CELL = "display:inline-block;white-space:nowrap;overflow:hidden;vertical-align:bottom;margin-right:.5em;"


def folding_html(rows: Sequence[Row], title: str, note: str) -> str:
    """Return the rows as a tree; the model is open, its blocks are folded. Bars show shares of the whole."""
    body, _ = _block(rows, 0, rows[0])
    heads = ["parameters", "mult-adds", "activations", "state"]
    head = _cell("block", 30) + "".join(_cell(text, 11) for text in heads) + _cell("output", 16)
    style = "font-family:var(--jp-code-font-family,monospace);font-size:12px;line-height:1.6;overflow-x:auto"
    lines = f'<div style="min-width:820px"><div style="padding-left:2em"><b>{head}</b></div>{body}</div>'
    return f'<p><b>{escape(title)}</b></p><div style="{style}">{lines}</div><p>{escape(note)}</p>'


def _block(rows: Sequence[Row], place: int, whole: Row) -> tuple[str, int]:
    """Return the HTML of the row at `place` with all that lies in it, and the place after it."""
    row, after, inside = rows[place], place + 1, []
    while after < len(rows) and (not row.path or rows[after].path.startswith(f"{row.path}.")):
        html, after = _block(rows, after, whole)
        inside.append(html)
    line = _line(row, whole)
    if not inside:
        return f'<div style="padding-left:1em">{line}</div>', after
    opened = "" if row.path else " open"
    below = f'<div style="padding-left:1em">{"".join(inside)}</div>'
    return f"<details{opened}><summary>{line}</summary>{below}</details>", after


def _line(row: Row, whole: Row) -> str:
    name = f"<b>{escape(row.name or 'model')}</b> {escape(row.kind)}"
    name += f" ×{row.calls}" if row.calls > 1 else ""
    tied = f" is {escape(', '.join(row.tied))}" if row.tied else ""
    state = ", ".join(filter(None, (row.state, row.mode))) + tied
    cells = [_cell(name, 30 - row.depth)]  # what lies deeper begins further right, and its numbers stay in line
    for text, kind in ((f"{row.parameters:,}", "parameters"), (count(row.multiply_adds), "multiply_adds"),
                       (memory(row.activations), "activations")):  # fmt: skip
        part, total = getattr(row, kind), getattr(whole, kind)
        cells.append(_cell(text if part else "", 11, share=part / total if total else 0))
    return "".join([*cells, _cell(state, 11), _cell(row.output, 16)])


def _cell(html: str, width: float, *, share: float = 0.0) -> str:
    bar = _BAR.format(share=share) if share else ""
    return f'<span style="{_CELL}width:{width}em;{bar}">{html}</span>'
