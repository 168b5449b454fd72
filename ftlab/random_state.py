"""The random state: put aside, set, and put back."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def keep_random_state(seed: int | None = None) -> Iterator[None]:
    """Put the random state of torch (every device), NumPy and Python back as it was, whatever happens inside.

    Args:
        seed: Set all of them to this inside; None goes on from where they are.

    Example:
        >>> _ = torch.manual_seed(1)
        >>> with keep_random_state(seed=0):
        ...     inside = torch.rand(1)
        >>> first = torch.rand(1)
        >>> _ = torch.manual_seed(1)
        >>> bool(first == torch.rand(1)), bool(first == inside)
        (True, False)
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - this is the state that augmentations draw from
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            if seed is not None:
                torch.manual_seed(seed)
                np.random.seed(seed % 2**32)  # noqa: NPY002
                random.seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
