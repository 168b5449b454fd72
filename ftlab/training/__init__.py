"""Training: the loop, and what it gives back."""

from ftlab.training.caching import Cached, cached
from ftlab.training.loop import evaluate, fit, loader
from ftlab.training.results import Evaluation, History

__all__ = ["Cached", "Evaluation", "History", "cached", "evaluate", "fit", "loader"]
