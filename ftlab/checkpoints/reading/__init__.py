"""Reading checkpoint files without running them, and without torch: one module per format."""
