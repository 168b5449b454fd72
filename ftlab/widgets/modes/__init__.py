"""The panel of the lesson on modes."""

from ftlab.widgets.modes.experiment import Seen, Settings
from ftlab.widgets.modes.panel import ModesPanel

__all__ = ["ModesPanel", "Seen", "Settings"]
