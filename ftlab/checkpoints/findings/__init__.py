"""What can be wrong between a file and a model: one finder for each, run in this order."""

from collections.abc import Callable

from ftlab.checkpoints.diagnosis import Case

from .adapters import find_lora, find_quantised
from .families import find_leftovers, find_other_model
from .names import find_inner_names, find_prefix, find_wrapped_model
from .renaming import find_renaming
from .values import find_classes, find_not_finite, find_precision, find_transposed

FINDERS: list[Callable[[Case], None]] = [
    find_lora,
    find_quantised,
    find_inner_names,
    find_prefix,
    find_wrapped_model,
    find_renaming,
    find_transposed,
    find_classes,
    find_other_model,
    find_leftovers,
    find_precision,
    find_not_finite,
]
