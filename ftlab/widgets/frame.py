"""The box around a panel: its style, its name for a screen reader, and its keys."""

from pathlib import Path

import anywidget
import traitlets


class Frame(anywidget.AnyWidget):
    """Give the box that it lies in a name and a style, name its sliders, and keep its keys from JupyterLab.

    It shows nothing itself.
    """

    _esm = Path(__file__).with_name("frame.js")
    _css = Path(__file__).with_name("frame.css")

    label = traitlets.Unicode().tag(sync=True)

    def __init__(self, label: str) -> None:
        super().__init__(label=label, layout={"display": "none"})

    def __repr__(self) -> str:
        return f"the frame of {self.label!r}"
