"""The exercises of the lesson on training: order, windows, targets, batches of one, memory, devices."""

from ftlab.exercises.training.devices import visible
from ftlab.exercises.training.labels import same_loss, smoothed, squared_error
from ftlab.exercises.training.memory import less_memory, what_grows
from ftlab.exercises.training.order import train_clipped
from ftlab.exercises.training.scaling import mixed_step
from ftlab.exercises.training.single import cat_probabilities, to_batch
from ftlab.exercises.training.validation import mean_loss
from ftlab.exercises.training.windows import accumulate, cycle_length, gradients

__all__ = [
    "accumulate",
    "cat_probabilities",
    "cycle_length",
    "gradients",
    "less_memory",
    "mean_loss",
    "mixed_step",
    "same_loss",
    "smoothed",
    "squared_error",
    "to_batch",
    "train_clipped",
    "visible",
    "what_grows",
]
