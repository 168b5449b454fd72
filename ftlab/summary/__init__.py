"""Summaries: what a network is made of, where its parameters are, where its work. Looking changes nothing."""

from .counting import summarize
from .report import ModelSummary
from .rows import Row

__all__ = ["ModelSummary", "Row", "summarize"]
