"""The base of every panel: controls, one place that draws, errors shown, code shown.

A panel is about a page. This one is whole; the logic of a real one stands in the topic's module.

Example:
    >>> class HeadPanel(Panel):
    ...     title = "A new head"
    ...
    ...     def __init__(self, features):
    ...         self.features = features
    ...         self.classes = w.IntSlider(value=10, min=2, max=100, description="classes")
    ...         self.double = w.Button(description="Twice as many")
    ...         self.size = w.HTML()
    ...         super().__init__(self.classes, self.double, self.size)
    ...         self.on(self.classes)
    ...         self.on(self.double, self._double)
    ...
    ...     def _double(self):
    ...         self.classes.value *= 2
    ...
    ...     def _parameters(self):
    ...         return self.classes.value * (self.features + 1)
    ...
    ...     def _render(self):
    ...         self.size.value = f"<p>{self._parameters():,} parameters</p>"
    ...
    ...     def describe(self):
    ...         return f"a head for {self.classes.value} classes has {self._parameters():,} parameters"
    ...
    ...     def code(self):
    ...         return f"from torch import nn; head = nn.Linear({self.features}, {self.classes.value})"

    The controls are public, so a program does what a hand does:

    >>> panel = HeadPanel(features=1280)
    >>> panel.classes.value = 4
    >>> panel.double.click()
    >>> panel
    a head for 8 classes has 10,248 parameters
    >>> panel.code()
    'from torch import nn; head = nn.Linear(1280, 8)'
"""

import threading
from collections.abc import Callable
from typing import Any

import ipywidgets as w

from ftlab.widgets.frame import Frame
from ftlab.widgets.html import code_html, error_html, escape
from ftlab.widgets.job import Job, is_ci
from ftlab.widgets.picture import Picture


class Panel:
    """Hold controls and draw their state; its repr is one line about that state.

    A subclass makes its controls, passes them to `super().__init__` in the order in which they are shown,
    and connects them with `on`. It writes `_render`, `describe` and, where there is something to do without
    the panel, `code`.

    An exception in a handler is shown inside the panel and kept as `failure`; with `FTLAB_CI=1` it is raised
    as well, so that a broken lesson cannot look green.

    Attributes:
        title: The heading.
        show_code: The button that shows `code()`.
        view: The widget that holds it all.
    """

    title = ""

    def __init__(self, *rows: w.Widget | Job) -> None:
        self.rows = rows
        self._failures: dict[str, Exception] = {}
        self.show_code = w.ToggleButton(description="Show the code", icon="code")
        self._status, self._error, self._code = w.HTML(), w.HTML(), w.HTML()
        # A job draws from its own thread. The lock is for drawing only: a handler may wait for a job.
        self._lock, self._drawer = threading.RLock(), 0
        top = [Frame(self.title), w.HTML(f"<h3>{escape(self.title)}</h3>" if self.title else "")]
        views = [row.view if isinstance(row, Job) else row for row in rows]
        self.view = w.VBox([*top, *views, self._status, self._error, self.show_code, self._code])
        self.view.add_class("ftlab-panel")
        self.on(self.show_code)
        self._draw()

    def describe(self) -> str:
        """Return one line about the state: what it means, not which buttons there are."""
        raise NotImplementedError(f"{type(self).__name__} needs describe(): one line about its state")

    def code(self) -> str:
        """Return plain PyTorch that stands alone and does what the panel did; "" if there is nothing."""
        return ""

    def on(self, control: w.Widget, handler: Callable[[], Any] | None = None) -> None:
        """Call `handler` when a button is clicked or a value changes, then draw.

        The handler takes no argument: it reads the controls, and changes nothing but state. Without a
        handler the change of the control is the change of state.
        """

        def changed(_: Any) -> None:
            if self._drawer != threading.get_ident():  # what drawing sets is no choice of the learner's
                self._act(handler)

        if isinstance(control, w.Button):
            control.on_click(changed)
        else:
            control.observe(changed, "value")

    @property
    def failure(self) -> Exception | None:
        """What the last handler raised, or else the last drawing; None if all went well."""
        return self._failures.get("handler") or self._failures.get("drawing")

    def refresh(self) -> None:
        """Draw the state again, after something outside the panel changed it."""
        self._attempt("drawing", self._draw)
        self._error.value = error_html(self.failure) if self.failure else ""
        if self.failure and is_ci():
            raise self.failure

    def close(self) -> None:
        """Stop what is running and take the view away."""
        for row in self.rows:
            row.close()
        self.view.close()

    def to_html(self) -> str:
        """Return what the panel shows, without any widget: for stored outputs and plain front ends."""
        parts = [f"<h3>{escape(self.title)}</h3>" if self.title else "", f"<p>{escape(self.describe())}</p>"]
        parts += [_twin(row) for row in self.rows]
        if self.failure:
            parts.append(error_html(self.failure, with_traceback=False))
        if code := self.code():
            parts.append(f"<details><summary>The code</summary><pre>{escape(code)}</pre></details>")
        return "<div>" + "\n".join(part for part in parts if part) + "</div>"

    def _render(self) -> None:
        """Show the state in the views; the only place that writes to them."""

    def _act(self, handler: Callable[[], Any] | None) -> None:
        self._attempt("handler", handler)
        self.refresh()  # even so: a handler that failed may have changed half of the state

    def _attempt(self, what: str, step: Callable[[], Any] | None) -> None:
        self._failures.pop(what, None)
        try:
            if step:
                step()
        except Exception as error:
            self._failures[what] = error

    def _draw(self) -> None:
        with self._lock:
            self._drawer = threading.get_ident()
            try:
                self._render()
                self._show(self.describe(), self.code())
            finally:
                self._drawer = 0

    def _show(self, line: str, code: str) -> None:
        self._status.value = f'<p role="status">{escape(line)}</p>'
        self.show_code.layout.display = None if code else "none"
        self._code.value = code_html(code) if self.show_code.value and code else ""

    def __repr__(self) -> str:
        return self.describe()

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Return the text, the static twin and, where somebody can click, the widget itself."""
        bundle = {"text/plain": repr(self), "text/html": self.to_html()}
        # A stored widget view whose kernel is gone shows "model not found" and hides the twin.
        return bundle if is_ci() else {**self.view._repr_mimebundle_(), **bundle}


def _twin(row: Any) -> str:
    """Return a row as it stands in a stored output: its text, or the value that was chosen."""
    if hasattr(row, "to_html"):
        return row.to_html()
    if isinstance(row, w.HTML):
        return row.value
    if isinstance(row, w.Box):
        return "\n".join(filter(None, map(_twin, row.children)))
    if isinstance(row, w.Button) or not hasattr(row, "value"):
        return ""
    value = getattr(row, "label", "") or row.value  # a choice has a label; a slider's first one may have lost it
    return f"<p>{escape(row.description)}: {escape(str(value))}</p>"


__all__ = ["Job", "Panel", "Picture"]
