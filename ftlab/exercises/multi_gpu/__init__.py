"""The exercises of the lesson on several processes: names, gradients, shares of the images, wrapping."""

from ftlab.exercises.multi_gpu.gradients import copies_that_learn, same_as_one, whole_batch_gradient
from ftlab.exercises.multi_gpu.names import clean_names, names_in_the_file
from ftlab.exercises.multi_gpu.ranks import thaw_under_ddp, who_calls
from ftlab.exercises.multi_gpu.shares import epochs_of_rank, validation_share
from ftlab.exercises.multi_gpu.wrappers import inner_model, load_and_wrap

__all__ = [
    "clean_names",
    "copies_that_learn",
    "epochs_of_rank",
    "inner_model",
    "load_and_wrap",
    "names_in_the_file",
    "same_as_one",
    "thaw_under_ddp",
    "validation_share",
    "who_calls",
    "whole_batch_gradient",
]
