"""Strategy: which parts to train, at which rates, in which order; declared, run on your data, and compared."""

from .comparing import compare
from .comparison import Comparison, measured
from .declaring import Strategy, usual
from .depth import DepthTrials
from .drawing import Case, draw, hold_out
from .running import Run

__all__ = [
    "Case",
    "Comparison",
    "DepthTrials",
    "Run",
    "Strategy",
    "compare",
    "draw",
    "hold_out",
    "measured",
    "usual",
]
