"""The exercises of the lesson on strategy: fair data, honest choices, features once, and two phases."""

from ftlab.exercises.strategy.believing import error_at, is_better, pick_and_report
from ftlab.exercises.strategy.images import draw_few, seen_before
from ftlab.exercises.strategy.once import body_passes, fit_head
from ftlab.exercises.strategy.phases import gap_by_mode, second_phase
from ftlab.exercises.strategy.steady import may_be_stored

__all__ = [
    "body_passes",
    "draw_few",
    "error_at",
    "fit_head",
    "gap_by_mode",
    "is_better",
    "may_be_stored",
    "pick_and_report",
    "second_phase",
    "seen_before",
]
