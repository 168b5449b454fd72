"""The panel of the lesson on strategy."""

from ftlab.widgets.strategy.panel import StrategyPanel
from ftlab.widgets.strategy.surface import Result

__all__ = ["Result", "StrategyPanel"]
