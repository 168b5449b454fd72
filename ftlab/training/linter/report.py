"""What was found in a training loop: the slips, line by line."""

from collections.abc import Iterable
from dataclasses import asdict
from html import escape
from textwrap import wrap
from typing import Any

from ftlab.plural import plural
from ftlab.table import Table

from .slips import Slip


class LoopReport:
    """The result of `check_loop`; its repr is a table with a row per slip.

    It is true if the loop was looked at and nothing is wrong.

    Attributes:
        slips: What is wrong, by line.
        source: What was read; line 1 is its first line.
        was_read: Whether there was a source to read.
        watched: What the run did, or why there was none.
        steps: How many optimizer steps the run made.
    """

    def __init__(self, slips: Iterable[Slip], source: str = "", watched: str = "", steps: int = 0) -> None:
        self.slips = sorted(slips, key=lambda one: (one.line or 0, one.kind))
        self.source = source
        self.was_read = bool(source.strip())
        self.watched, self.steps = watched, steps

    @property
    def kinds(self) -> list[str]:
        """The kinds of the slips, each once, by line."""
        return list(dict.fromkeys(one.kind for one in self.slips))

    @property
    def ok(self) -> bool:
        """Whether something was looked at, and nothing is wrong with it."""
        return not self.slips and (self.was_read or self.steps > 0)

    def __bool__(self) -> bool:
        return self.ok

    def table(self) -> Table:
        """Return a row per slip: line, slip, why it is one, the line that repairs it, and the evidence."""
        rows = [[one.line, *map(_narrow, (one.kind, one.why, one.repair, one.evidence))] for one in self.slips]
        return Table(
            ["line", "slip", "why", "repair", "evidence"], rows, title=self._verdict(), note=self.watched
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            "ok": self.ok, "slips": [asdict(one) for one in self.slips], "source": self.source,
            "watched": self.watched, "steps": self.steps,
        }  # fmt: skip

    def __repr__(self) -> str:
        return repr(self.table()) if self.slips else "\n".join(filter(None, (self._verdict(), self.watched)))

    def _repr_html_(self) -> str:
        return "".join([
            f"<p><b>{escape(self._verdict())}</b></p>", self._marked(), self._rows_html(),
            f"<p>{escape(self.watched)}</p>",
        ])  # fmt: skip

    def _rows_html(self) -> str:
        """Return the table with whole sentences; its cells are set to the left, for text."""
        if not self.slips:
            return ""
        left = 'style="text-align: left; vertical-align: top"'
        head = "".join(f"<th {left}>{name}</th>" for name in ("line", "slip", "why", "repair", "evidence"))
        rows = [
            [str(one.line or ""), f"<b>{escape(one.kind)}</b>", escape(one.why),
             f"<code>{escape(one.repair)}</code>", escape(one.evidence)]
            for one in self.slips
        ]  # fmt: skip
        lines = ("".join(f"<td {left}>{cell}</td>" for cell in row) for row in rows)
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"

    def _verdict(self) -> str:
        if self.slips:
            return f"{plural(len(self.slips), 'slip')} in this loop"
        return "no slip was found in this loop" if self.ok else "there was nothing to look at"

    def _marked(self) -> str:
        """Return the source with a mark before each line that has a slip."""
        if not self.was_read:
            return ""
        by_line: dict[int | None, list[str]] = {}
        for one in self.slips:
            by_line.setdefault(one.line, []).append(one.kind)
        lines = [
            _line(number, text, by_line.get(number, []))
            for number, text in enumerate(self.source.splitlines(), 1)
        ]
        return f'<pre style="line-height: 1.35; word-break: normal">{chr(10).join(lines)}</pre>'


def _narrow(text: str) -> str:
    """Break a text into short lines, so that a row fits on a screen."""
    return "\n".join(wrap(text, 34))


def _line(number: int, text: str, kinds: list[str]) -> str:
    """Return one line as HTML; a mark is a sign, a frame and a word, never a colour alone."""
    if not kinds:
        return f"  {number:3}  {escape(text)}"
    return (
        '<mark style="background: none; color: inherit; box-shadow: -4px 0 #d55e00">'
        f"&gt; {number:3}  {escape(text)}</mark>   "
        f'<b style="display: inline-block">← {escape(", ".join(kinds))}</b>'  # goes to the next line as a whole
    )
