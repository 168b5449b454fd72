"""Training: the loop, and what it gives back."""

from ftlab.training.loop import evaluate, fit, loader
from ftlab.training.results import Evaluation, History

__all__ = ["Evaluation", "History", "evaluate", "fit", "loader"]
