"""What every test process and every kernel that it starts is given, before torch is imported."""

import os

# Two busy processes with two torch threads each ran 75 times slower than with one. Kernels inherit this.
os.environ["OMP_NUM_THREADS"] = "1"
# Under test: a failed exercise check raises, background work is waited for.
os.environ["FTLAB_CI"] = "1"
# The outputs that are compared are those of the embedded network.
os.environ.pop("FTLAB_BACKBONE", None)

pytest_plugins = ["tests.guard"]
