"""Tables: the one way in which ftlab shows rows, as text in a script and as HTML in a notebook."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from tabulate import tabulate


class Table:
    """Show rows under headers; the repr is the table.

    Results such as an audit or a history are `Tabled`: they show themselves as one of these.

    Example:
        >>> Table(["model", "parameters"], [["resnet18", 11_689_512], ["tiny", 42]])
        model       parameters
        --------  ------------
        resnet18    11,689,512
        tiny                42
    """

    def __init__(
        self, headers: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str = "", note: str = ""
    ) -> None:
        self.headers = list(headers)
        self.rows = [list(row) for row in rows]
        self.title = title
        self.note = note

    def __repr__(self) -> str:
        body = tabulate(self.rows, self.headers, intfmt=",", floatfmt=".4g", missingval="")
        return "\n".join(part for part in (self.title, body, self.note) if part)

    def _repr_html_(self) -> str:
        """Return the table as HTML; everything in it is escaped, so a `<class 'str'>` stays readable."""
        body = tabulate(
            self.rows, self.headers, tablefmt="html", intfmt=",", floatfmt=".4g", missingval=""
        )  # escapes, and sends the columns of numbers to the right
        for cell in ("th", "td"):  # the other columns need a word too: JupyterLab sends all cells to the right
            body = body.replace(f"<{cell}>", f'<{cell} style="text-align: left;">')
        title = f"<p><b>{escape(self.title)}</b></p>" if self.title else ""
        note = f"<p>{escape(self.note)}</p>".replace("\n", "<br>") if self.note else ""
        return f"{title}{body}{note}"

    def __len__(self) -> int:
        return len(self.rows)

    def to_dict(self) -> list[dict[str, Any]]:
        """Return one dictionary per row."""
        return [dict(zip(self.headers, row, strict=True)) for row in self.rows]


class Tabled:
    """Show itself as the table that its `table()` returns.

    The trap: a dataclass writes a `__repr__` of its own over this one, unless it is made with `repr=False`.

    Example:
        >>> class Bill(Tabled):
        ...     def table(self) -> Table:
        ...         return Table(["what", "price"], [["tea", 2]], note="thank you")
        >>> Bill()
        what      price
        ------  -------
        tea           2
        thank you
    """

    __slots__ = ()

    def table(self) -> Table:
        """Return the table; each class has its own."""
        raise NotImplementedError(f"{type(self).__name__} has no table() of its own")

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()
