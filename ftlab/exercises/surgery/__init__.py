"""The exercises of the lesson on surgery: new heads, several heads, cuts, and other inputs."""

from ftlab.exercises.surgery.branches import count_tensors, own_branches
from ftlab.exercises.surgery.cuts import before_head, swap_norms, take_grey
from ftlab.exercises.surgery.heads import exchange_head, load_all_but_head, prepare
from ftlab.exercises.surgery.pooling import pool_both, rebuild, same_training

__all__ = [
    "before_head",
    "count_tensors",
    "exchange_head",
    "load_all_but_head",
    "own_branches",
    "pool_both",
    "prepare",
    "rebuild",
    "same_training",
    "swap_norms",
    "take_grey",
]
