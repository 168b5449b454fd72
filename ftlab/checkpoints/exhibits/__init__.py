"""The museum: broken checkpoint files, each with its story. `museum(folder)` makes them."""
