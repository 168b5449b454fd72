"""The panel of the lesson on checkpoints."""

from ftlab.widgets.checkpoints.panel import CheckpointPanel

__all__ = ["CheckpointPanel"]
