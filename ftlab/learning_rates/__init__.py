"""Learning rates: a rate for each part, what the optimizer has, what a schedule does, how far a step moves."""

from .decay import layer_decay
from .groups import ParameterGroups, parameter_groups
from .range_test import RangeTest, range_test
from .ratios import UpdateRatios, update_ratio
from .record import Timeline
from .timeline import timeline
from .xray import OptimizerXray, xray

__all__ = [
    "OptimizerXray",
    "ParameterGroups",
    "RangeTest",
    "Timeline",
    "UpdateRatios",
    "layer_decay",
    "parameter_groups",
    "range_test",
    "timeline",
    "update_ratio",
    "xray",
]
