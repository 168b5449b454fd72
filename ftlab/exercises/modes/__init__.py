"""The exercises of the lesson on modes: what each switch does, and loops that leave a model as they found it."""

from ftlab.exercises.modes.batches import make_loader
from ftlab.exercises.modes.features import cache_features, sample_predictions
from ftlab.exercises.modes.loops import train_mode, validate
from ftlab.exercises.modes.statistics import recalibrate
from ftlab.exercises.modes.switches import changed_by_looking, out_of_memory, repeatable

__all__ = [
    "cache_features",
    "changed_by_looking",
    "make_loader",
    "out_of_memory",
    "recalibrate",
    "repeatable",
    "sample_predictions",
    "train_mode",
    "validate",
]
