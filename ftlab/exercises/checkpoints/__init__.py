"""The exercises of the lesson on checkpoints: what to keep, how to load, how to go on."""

from ftlab.exercises.checkpoints.keeping import first_rows, keep_best, needed, pack, which_open
from ftlab.exercises.checkpoints.loading import bare, half_loaded, load_anywhere, load_matching, load_tied
from ftlab.exercises.checkpoints.resuming import carry_over, resume, save_whole

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
