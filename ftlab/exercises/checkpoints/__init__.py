"""The exercises of the lesson on checkpoints: what to keep, how to load, how to go on."""

from ftlab.exercises.checkpoints.keeping import first_rows, keep_best
from ftlab.exercises.checkpoints.loading import half_loaded, load_anywhere, load_tied
from ftlab.exercises.checkpoints.matching import bare, load_matching
from ftlab.exercises.checkpoints.plain import pack, which_open
from ftlab.exercises.checkpoints.resuming import carry_over, needed, resume
from ftlab.exercises.checkpoints.saving import save_whole

__all__ = [
    "bare",
    "carry_over",
    "first_rows",
    "half_loaded",
    "keep_best",
    "load_anywhere",
    "load_matching",
    "load_tied",
    "needed",
    "pack",
    "resume",
    "save_whole",
    "which_open",
]
