"""Training: the loop, what it gives back, and what goes wrong in each of its lines."""

from ftlab.training.caching import Cached, cached
from ftlab.training.clipping import GradientClip
from ftlab.training.growth import MemoryGrowth, memory_growth
from ftlab.training.linter import LoopReport, check_loop
from ftlab.training.loop import evaluate, fit, loader
from ftlab.training.results import Evaluation, History
from ftlab.training.single import BatchOfOne, batch_of_one
from ftlab.training.targets import TargetCheck, check_targets

__all__ = [
    "BatchOfOne",
    "Cached",
    "Evaluation",
    "GradientClip",
    "History",
    "LoopReport",
    "MemoryGrowth",
    "TargetCheck",
    "batch_of_one",
    "cached",
    "check_loop",
    "check_targets",
    "evaluate",
    "fit",
    "loader",
    "memory_growth",
]
