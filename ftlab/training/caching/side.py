"""Calls that run beside this thread, each with its share of the processor's cores."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

THREADS = 2  # more would hold more batches in memory at once


class SideBySide:
    """A context in which `call` runs functions in two threads, each with half of the cores.

    This thread reads the next images meanwhile, and the cores do not wait for each other after each layer. On an
    idle machine that saves a tenth of the time, see benchmarks/prefix.py; much more on a busy one, where a core
    that waits for another waits for other programs too. With one core, on a GPU and under autocast, which other
    threads would not see, `call` runs the function here.

    Example:
        >>> found = []
        >>> with SideBySide(torch.device("cpu")) as beside:
        ...     for number in range(3):
        ...         beside.call(found.append, number)
        >>> sorted(found)
        [0, 1, 2]
    """

    def __init__(self, device: torch.device) -> None:
        self.cores = torch.get_num_threads()
        alone = device.type != "cpu" or self.cores < THREADS or torch.is_autocast_enabled("cpu")
        self.pool = None if alone else ThreadPoolExecutor(THREADS, initializer=self._take_share)
        self.waiting: deque[Future] = deque()

    def _take_share(self) -> None:
        torch.set_num_threads(self.cores // THREADS)

    def __enter__(self) -> "SideBySide":
        return self

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Run a function, now or soon; what an earlier one raised is raised here or at the end of the context."""
        if self.pool is None:
            function(*args)
            return
        if len(self.waiting) > THREADS:  # each waiting call holds a batch of images
            self.waiting.popleft().result()
        self.waiting.append(self.pool.submit(function, *args))

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if self.pool is None:
            return
        self.pool.shutdown(wait=True, cancel_futures=kind is not None)
        torch.set_num_threads(self.cores)  # what a thread takes as its share is what later threads start with
        if kind is None:
            for call in self.waiting:
                call.result()
