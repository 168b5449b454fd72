"""Fifteen training loops in the styles that people write; `case()` gives the function and what it needs."""
