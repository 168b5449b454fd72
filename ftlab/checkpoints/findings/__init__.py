"""What can be wrong between a file and a model: one finder for each, run in this order."""

from collections.abc import Callable

from ftlab.checkpoints.diagnosis import Case

from .adapters import find_lora, find_quantised
from .computed import find_counters, find_pruned, find_weight_norm
from .families import find_leftovers, find_other_model
from .names import find_inner_names, find_prefix, find_wrapped_model
from .renaming import find_renamed_layers, find_renaming
from .shapes import find_channels, find_shapes, find_statistics
from .stored import find_empty, find_flat, find_other_numbers, find_sparse, find_without_values, find_zeros
from .values import find_classes, find_not_finite, find_precision, find_transposed

FINDERS: list[Callable[[Case], None]] = [
    find_without_values,
    find_sparse,
    find_flat,
    find_lora,
    find_quantised,
    find_inner_names,
    find_prefix,
    find_wrapped_model,
    find_renaming,
    find_counters,
    find_pruned,
    find_weight_norm,
    find_renamed_layers,
    find_transposed,
    find_empty,
    find_channels,
    find_classes,
    find_statistics,
    find_other_model,
    find_shapes,
    find_leftovers,
    find_other_numbers,
    find_precision,
    find_not_finite,
    find_zeros,
]
