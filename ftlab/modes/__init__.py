"""Train and eval mode, and what is not decided by it: see the modes, keep them, find out who changed them.

A mode is a flag on every module, not one on the model. Gradients are another switch altogether.
"""

from ftlab.modes.keeping import evaluating, keep_modes
from ftlab.modes.log import ModeChange, ModeLog
from ftlab.modes.mapping import ModeMap, ModuleMode, mode_map
from ftlab.modes.measuring import ForwardCost, forward_cost, memory_of
from ftlab.modes.watching import who_changed

__all__ = [
    "ForwardCost",
    "ModeChange",
    "ModeLog",
    "ModeMap",
    "ModuleMode",
    "evaluating",
    "forward_cost",
    "keep_modes",
    "memory_of",
    "mode_map",
    "who_changed",
]
