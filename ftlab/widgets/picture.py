"""A place in a panel for a picture that can change from any thread."""

from typing import TYPE_CHECKING

import ipywidgets as w

from ftlab.widgets.html import escape, picture_html

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Picture(w.HTML):
    """Show a matplotlib figure with a text for those who do not see it.

    In a stored output only the text stands: the pixels differ between machines, and a test that compares
    them would say nothing.

    Example:
        >>> from matplotlib.figure import Figure
        >>> figure = Figure(figsize=(2, 1))
        >>> _ = figure.subplots().plot([3, 1])
        >>> picture = Picture()
        >>> picture.show(figure, "The loss falls from 3 to 1.")
        >>> picture.alt
        'The loss falls from 3 to 1.'
    """

    def __init__(self) -> None:
        super().__init__()
        self.alt = ""

    def show(self, figure: "Figure", alt: str) -> None:
        """Replace the picture; `alt` says in a sentence what it shows."""
        self.alt = alt
        self.value = picture_html(figure, alt)

    def to_html(self) -> str:
        """Return the text that stands for the picture where it is stored."""
        return f"<p>[Picture: {escape(self.alt)}]</p>" if self.alt else ""
