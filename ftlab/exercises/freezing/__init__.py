"""The exercises of the lesson on freezing: what is frozen, what still moves, and what it saves."""

from ftlab.exercises.freezing.choosing import freeze_backbone, train_only
from ftlab.exercises.freezing.cost import cheaper_half, classify
from ftlab.exercises.freezing.heads import freeze_all_but_head, replace_head
from ftlab.exercises.freezing.identity import split
from ftlab.exercises.freezing.loop import freeze_now, thaw
from ftlab.exercises.freezing.statistics import hold_batch_norm, what_moves

__all__ = [
    "cheaper_half",
    "classify",
    "freeze_all_but_head",
    "freeze_backbone",
    "freeze_now",
    "hold_batch_norm",
    "replace_head",
    "split",
    "thaw",
    "train_only",
    "what_moves",
]
