"""The exercises of the lesson on learning rates: groups, schedules, resuming, and how far a step moves."""

from ftlab.exercises.learning_rates.group_schedules import keep_ratio, one_cycle
from ftlab.exercises.learning_rates.groups import not_trained, two_rates
from ftlab.exercises.learning_rates.resuming import go_on, new_rate
from ftlab.exercises.learning_rates.schedules import rates_of_epochs, train_epochs
from ftlab.exercises.learning_rates.steps import relative_update

__all__ = [
    "go_on",
    "keep_ratio",
    "new_rate",
    "not_trained",
    "one_cycle",
    "rates_of_epochs",
    "relative_update",
    "train_epochs",
    "two_rates",
]
