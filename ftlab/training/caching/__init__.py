"""Frozen features, computed once: find the part that stays the same, keep what it gives, train the rest on it.

`walk` and `prefix` find the part, `traces` are what Python code sees of it and leaves behind, `proof` runs it
beside the model, `folding` makes it fast, `images` looks whether the data stay the same, `inside` is what a
dataset is made of, `store` keeps what was computed, `held` notices changes, `activations` are what one trains on,
`cache` puts them together, and `shortcut` is what `fit` uses.
"""

from ftlab.training.caching.cache import Cached, cached

__all__ = ["Cached", "cached"]
