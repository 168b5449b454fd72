"""Small work that must not make a click wait."""

import threading
import time
from collections.abc import Callable

from ftlab.widgets.job import is_ci


class Latest:
    """Do the latest request in a background thread; an older one that has not begun is dropped.

    For work of a second or so that follows the state of a panel, without a bar and without a Stop. With
    `FTLAB_CI=1` it is done at once.

    Args:
        done: Called in that thread after a request was done.
    """

    pause = 0.15  # seconds in which a newer request may replace one, so that fast clicks stay fast

    def __init__(self, done: Callable[[], None]) -> None:
        self.done = done
        self._lock = threading.Lock()
        self._next: Callable[[], None] | None = None
        self._thread: threading.Thread | None = None

    def ask(self, work: Callable[[], None]) -> None:
        """Do `work` soon, unless something newer is asked for first."""
        if is_ci():
            work()
            return
        with self._lock:
            self._next = work
            if self._thread is None or not self._thread.is_alive():
                # no daemon: one that Python cuts off inside torch takes the whole process down with an abort
                self._thread = threading.Thread(target=self._run, name="ftlab background")
                self._thread.start()

    def drop(self) -> None:
        """Forget what has been asked and has not begun."""
        with self._lock:
            self._next = None

    def _run(self) -> None:
        while True:
            time.sleep(self.pause)
            with self._lock:
                work, self._next = self._next, None
                if work is None:
                    self._thread = None
                    return
            work()
            self.done()
