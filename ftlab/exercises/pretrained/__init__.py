"""The exercises of the lesson on pretrained models: weights, preprocessing, answers, features."""

from ftlab.exercises.pretrained.asking import what_is_loaded
from ftlab.exercises.pretrained.features import most_alike
from ftlab.exercises.pretrained.heads import classifier_for, continue_from
from ftlab.exercises.pretrained.preparing import costliest_mistake, from_opencv, top_names

__all__ = [
    "classifier_for",
    "continue_from",
    "costliest_mistake",
    "from_opencv",
    "most_alike",
    "top_names",
    "what_is_loaded",
]
