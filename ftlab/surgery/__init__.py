"""Changing a model: find and replace its head, cut it, give it several heads, put a network together."""

from ftlab.surgery.assembly import Assembly, assemble, stages
from ftlab.surgery.cutting import cut, cut_points
from ftlab.surgery.heads import head_names, replace_head
from ftlab.surgery.parts import AdaptiveConcatPool2d, MultiHead

__all__ = [
    "AdaptiveConcatPool2d",
    "Assembly",
    "MultiHead",
    "assemble",
    "cut",
    "cut_points",
    "head_names",
    "replace_head",
    "stages",
]
