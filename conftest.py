"""What every test process and every kernel that it starts is given, before torch is imported."""

import os

import pytest
from hypothesis import HealthCheck, settings

# Two busy processes with two torch threads each ran 75 times slower than with one. Kernels inherit this.
os.environ["OMP_NUM_THREADS"] = "1"
# Under test: a failed exercise check raises, background work is waited for.
os.environ["FTLAB_CI"] = "1"
# The outputs that are compared are those of the embedded network.
os.environ.pop("FTLAB_BACKBONE", None)

pytest_plugins = ["tests.guard"]

# The same examples everywhere, however long they take: no test fails by chance, or on a slow machine.
settings.register_profile(
    "same everywhere",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("same everywhere")


def pytest_configure(config):
    """Have the list of fonts made once, before the processes start that want it.

    Each of them would say on stderr that it takes a while, on a slow machine, or that the place for it cannot be
    written to; here matplotlib then finds another place, for them as well.
    """
    if not hasattr(config, "workerinput"):
        import matplotlib.font_manager  # noqa: F401


@pytest.hookimpl(tryfirst=True)  # before the fixtures
def pytest_runtest_setup(item):
    """Begin each test with the same random state, whichever tests ran before it in this process."""
    import random

    import numpy as np
    import torch

    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - this is the state that augmentations draw from
    random.seed(0)
