"""The panel of the freezing lesson."""

from ftlab.widgets.freezing.code import freeze_code
from ftlab.widgets.freezing.panel import FreezePanel

__all__ = ["FreezePanel", "freeze_code"]
