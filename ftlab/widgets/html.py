"""Pieces of HTML that panels are made of; whatever comes from outside is escaped here."""

import base64
import io
import traceback
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The button stands before the text that it copies; it answers with a word, not with a colour.
_COPY = (
    '<button class="ftlab-copy" type="button" onclick="navigator.clipboard.writeText('
    "this.nextElementSibling.innerText).then(() => this.textContent = 'Copied',"
    " () => this.textContent = 'Please select the text and copy it')\">Copy</button>"
)


def code_html(code: str) -> str:
    """Return `code` as a block that keeps its lines, with a button that copies it."""
    return f"{_COPY}<pre><code>{escape(code)}</code></pre>"


def error_html(error: BaseException, *, with_traceback: bool = True) -> str:
    """Return what went wrong in one line; the traceback is behind a click.

    The traceback holds paths of this machine; a stored output leaves it out.
    """
    line = f"It raised <code>{escape(type(error).__name__)}</code>: {escape(str(error)) or '(no message)'}"
    details = ""
    if with_traceback:
        lines = escape("".join(traceback.format_exception(error)))
        details = f"<details><summary>Where it happened</summary><pre>{lines}</pre></details>"
    return f'<div class="ftlab-error" role="alert">{line}{details}</div>'


def table_html(
    columns: str, rows: Iterable[Sequence[str]], headers: Sequence[str] = (), *, above: str = ""
) -> str:
    """Return a table of cells that are HTML already; each column stands where its letter says.

    JupyterLab sends every cell of an output to the right, the names as well.

    Args:
        columns: "l" for left, where text stands, or "r" for right, where numbers stand; a letter per column.
        rows: The cells.
        headers: What stands above the columns.
        above: A row of HTML above the headers, for titles of several columns.

    Example:
        >>> table_html("lr", [["<b>fc</b>", "42"]])
        '<table><tr><td style="text-align: left"><b>fc</b></td><td style="text-align: right">42</td></tr></table>'
    """
    lines = [("th", headers)] if headers else []
    lines += [("td", row) for row in rows]
    return f"<table>{above}" + "".join(_row(columns, tag, cells) for tag, cells in lines) + "</table>"


def _row(columns: str, tag: str, cells: Sequence[str]) -> str:
    sides = {"l": "left", "r": "right"}
    placed = [
        f'<{tag} style="text-align: {sides[letter]}">{cell}</{tag}>'
        for letter, cell in zip(columns, cells, strict=True)
    ]
    return f"<tr>{''.join(placed)}</tr>"


def picture_html(figure: "Figure", alt: str, *, dpi: int = 100) -> str:
    """Return a matplotlib figure as an `<img>` with `alt`, the sentence that a screen reader says instead.

    Make the figure with `matplotlib.figure.Figure()`, never with pyplot: pyplot shows nothing in a callback,
    and its current figure is shared between threads.
    """
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=dpi, bbox_inches="tight")
    data = base64.b64encode(png.getvalue()).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" alt="{escape(alt)}">'
