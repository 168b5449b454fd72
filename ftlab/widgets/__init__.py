"""The panels of the lessons, one module per topic."""
