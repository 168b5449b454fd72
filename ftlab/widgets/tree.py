"""A network as a tree of blocks: a custom view (anywidget), for mouse, keyboard and screen reader."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from ftlab.widgets.html import escape, table_html

_OPTIONAL = {"note": "", "mark": "", "reason": "", "bars": []}
_STATES = {True: "trains", False: "frozen", None: "partly"}


class NetworkTree(anywidget.AnyWidget):
    """Show rows that fold and can be toggled; what a toggle means is up to the panel.

    The panel decides and hands over new rows; the view redraws those that differ. For everything that a
    click or a key does there is a method: `toggle`, `expand`, `fold`.

    A row is a dictionary:

    - `path`: where it is, such as `"layer1.0"`; the root has the path `""` and comes first, and every row
      comes before what lies in it.
    - `name`, `kind`, `size`: the texts of its line.
    - `state`: True (trains), False (frozen), None (partly) or `""` (has no parameters).
    - `note` (may be left out): what else there is to say about its state.
    - `mark` (may be left out): what happened to it, such as `"moved"`; `reason`: why.
    - `bars` (may be left out): dictionaries with `label`, `share` (0 to 1) and `text`.

    With `checkable=False` there are no boxes, and a toggle chooses a row.

    Example:
        >>> rows = [
        ...     {"path": "", "name": "model", "kind": "Net", "size": "42", "state": None},
        ...     {"path": "conv", "name": "conv", "kind": "Conv2d", "size": "40", "state": False},
        ...     {"path": "fc", "name": "fc", "kind": "Linear", "size": "2", "state": True},
        ... ]
        >>> tree = NetworkTree(rows)
        >>> tree.on_toggle(lambda path: print("toggle", path))
        >>> tree.toggle("conv")
        toggle conv
        >>> tree
        model: partly, 2 blocks shown
    """

    _esm = Path(__file__).with_name("tree.js")
    _css = Path(__file__).with_name("tree.css")

    rows = traitlets.List(traitlets.Dict()).tag(sync=True)
    expanded = traitlets.List(traitlets.Unicode()).tag(sync=True)
    label = traitlets.Unicode("network").tag(sync=True)
    checkable = traitlets.Bool(True).tag(sync=True)

    def __init__(self, rows: Iterable[dict[str, Any]], *, label: str = "network", checkable: bool = True) -> None:
        super().__init__(rows=_linked(rows), expanded=[""], label=label, checkable=checkable)
        self._callbacks: list[Callable[[str], None]] = []
        self.on_msg(self._receive)

    def on_toggle(self, callback: Callable[[str], None]) -> None:
        """Call `callback(path)` when a row is toggled."""
        self._callbacks.append(callback)

    def update(self, rows: Iterable[dict[str, Any]]) -> None:
        """Show these rows; unfolded ones stay unfolded."""
        self.rows = _linked(rows)

    def toggle(self, path: str) -> None:
        """Do what a click on the box of the row at `path` does."""
        self._find(path)
        for callback in self._callbacks:
            callback(path)

    def expand(self, path: str) -> None:
        """Show what lies in the row at `path`, and what leads to it."""
        row = self._find(path)
        way = [row["path"]]
        while way[0]:
            way.insert(0, self._find(way[0])["parent"])
        self.expanded = list(dict.fromkeys([*self.expanded, *way]))

    def fold(self, path: str) -> None:
        """Hide what lies in the row at `path`."""
        self.expanded = [other for other in self.expanded if other != self._find(path)["path"]]

    @property
    def shown(self) -> list[dict[str, Any]]:
        """The rows that are in sight: those whose parents are all unfolded."""
        sight: dict[str, bool] = {}
        for row in self.rows:
            up = row["parent"]
            sight[row["path"]] = not row["path"] or (sight[up] and up in self.expanded)
        return [row for row in self.rows if sight[row["path"]]]

    def to_html(self) -> str:
        """Return the rows in sight as a table."""
        bars = [escape(bar["label"]) for bar in self.rows[0]["bars"]] if self.rows else []
        sizes = bars or ["parameters"]  # the first bar is the size, said shorter
        headers = ["block", "kind", *sizes, "state", ""]
        return table_html("ll" + "r" * len(sizes) + "ll", map(_cells, self.shown), headers)

    def _find(self, path: str) -> dict[str, Any]:
        for row in self.rows:
            if row["path"] == path:
                return row
        blocks = ", ".join(repr(row["path"]) for row in self.rows[:4])
        raise KeyError(f"there is no block {path!r} in the tree; the first ones are {blocks}")

    def _receive(self, _: Any, content: dict[str, Any], __: Any) -> None:
        if content.get("kind") == "toggle":
            self.toggle(content["path"])

    def __repr__(self) -> str:
        if not self.rows:
            return "no network"
        root = self.rows[0]
        return (
            f"{root['name']}: {_STATES.get(root['state'], 'no parameters')}, {len(self.shown) - 1} blocks shown"
        )


def _linked(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fill in what may be left out, and add to each row its parent and its depth."""
    linked = []
    for row in rows:
        path = row["path"]
        depth = path.count(".") + 1 if path else 0
        linked.append({**_OPTIONAL, **row, "parent": path.rpartition(".")[0], "depth": depth})
    return linked


def _cells(row: dict[str, Any]) -> list[str]:
    said = ": ".join(filter(None, (row["mark"], row["reason"]))) or row["note"]
    name = "&nbsp;" * 3 * row["depth"] + escape(row["name"])
    sizes = [bar["text"] for bar in row["bars"]] or [row["size"]]
    return [name, *map(escape, [row["kind"], *sizes, _STATES.get(row["state"], ""), said])]
