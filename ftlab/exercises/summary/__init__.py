"""The exercises of the lesson on summaries: count, look without a trace, and know where the cost is."""

from ftlab.exercises.summary.choosing import save_memory, where_is_what, which_sizes
from ftlab.exercises.summary.counting import count_parameters, multiply_adds
from ftlab.exercises.summary.looking import block_states, layer_at, output_shapes

__all__ = [
    "block_states",
    "count_parameters",
    "layer_at",
    "multiply_adds",
    "output_shapes",
    "save_memory",
    "where_is_what",
    "which_sizes",
]
