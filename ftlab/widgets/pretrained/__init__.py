"""The panel of the lesson on pretrained models."""

from ftlab.widgets.pretrained.panel import PreprocessingPanel

__all__ = ["PreprocessingPanel"]
