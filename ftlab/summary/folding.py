"""The rows as HTML that folds, without a kernel and without a script: `<details>`, which a keyboard opens too."""

from collections.abc import Sequence
from html import escape

from .rows import Row
from .units import count, memory

# One sheet keeps a network of a hundred rows small; without it the rows are still readable text.
_SHEET = """<style>
.ftlab-fold { font: 12px/1.6 var(--jp-code-font-family, monospace); overflow-x: auto; }
.ftlab-fold > div { min-width: 860px; }
.ftlab-fold details > div, .ftlab-fold .leaf { padding-left: 1em; }
.ftlab-fold i, .ftlab-fold b.head { display: inline-block; font-style: normal; white-space: nowrap;
  overflow: hidden; vertical-align: bottom; width: 8em; margin-right: .5em; }
.ftlab-fold summary { cursor: pointer; }
</style>"""
_BAR = "background:linear-gradient(90deg,rgba(25,118,210,.35) {share:.0%},transparent 0)"


def folding_html(rows: Sequence[Row], title: str, note: str) -> str:
    """Return the rows as a tree; the model is open, its blocks are folded. Bars show shares of the whole."""
    body, _ = _block(rows, 0, rows[0])
    heads = [
        ("block", 30),
        ("parameters", 8),
        ("mult-adds", 8),
        ("activations", 8),
        ("state", 11),
        ("output", 16),
    ]
    head = "".join(f'<b class="head" style="width:{width}em">{text}</b>' for text, width in heads)
    lines = f'<div><div class="leaf">{head}</div>{body}</div>'
    return f'<p><b>{escape(title)}</b></p>{_SHEET}<div class="ftlab-fold">{lines}</div><p>{escape(note)}</p>'


def _block(rows: Sequence[Row], place: int, whole: Row) -> tuple[str, int]:
    """Return the HTML of the row at `place` with all that lies in it, and the place after it."""
    row, after, inside = rows[place], place + 1, []
    while after < len(rows) and (not row.path or rows[after].path.startswith(f"{row.path}.")):
        html, after = _block(rows, after, whole)
        inside.append(html)
    line = _line(row, whole)
    if not inside:
        return f'<div class="leaf">{line}</div>', after
    opened = "" if row.path else " open"
    return f"<details{opened}><summary>{line}</summary><div>{''.join(inside)}</div></details>", after


def _line(row: Row, whole: Row) -> str:
    name = f"<b>{escape(row.name or 'model')}</b> {escape(row.kind)}"
    name += f" ×{row.calls}" if row.calls > 1 else ""
    tied = f" is {escape(', '.join(row.tied))}" if row.tied else ""
    rate = f"lr {row.lr}" if row.lr else ""
    state = ", ".join(filter(None, (row.state, row.mode, rate))) + tied
    cells = [_cell(name, 30 - row.depth)]  # what lies deeper begins further right, and its numbers stay in line
    for kind, unit in (("parameters", "{:,}".format), ("multiply_adds", count), ("activations", memory)):
        part, total = getattr(row, kind), getattr(whole, kind)
        cells.append(_cell(unit(part) if part else "", share=part / total if total else 0))
    return "".join([*cells, _cell(state, 11), _cell(row.output, 16)])


def _cell(html: str, width: float = 8, *, share: float = 0.0) -> str:
    style = f"width:{width}em;" if width != 8 else ""
    style += _BAR.format(share=share) if share else ""
    return f'<i style="{style}">{html}</i>' if style else f"<i>{html}</i>"
