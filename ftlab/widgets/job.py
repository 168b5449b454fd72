"""Long work beside a notebook: its progress moves, and its Stop button answers.

A loop inside a cell or a callback keeps the kernel from hearing the button. A background thread does not.
"""

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from weakref import WeakValueDictionary

import ipywidgets as w

from ftlab.widgets.html import error_html, escape

_latest: "WeakValueDictionary[str, Job]" = WeakValueDictionary()


def is_ci() -> bool:
    """Tell whether the lessons are being tested: then work is waited for, and errors are raised."""
    return os.environ.get("FTLAB_CI", "") not in ("", "0")


class Stopped(Exception):  # noqa: N818 - a request like StopIteration, not an error
    """Raised by `Job.tick` inside the work after Stop was pressed; let it pass."""


class Job:
    """Run `work(job)` in a background thread, with a Start button, a Stop button and a progress bar.

    The work reports each step, with `job.tick(step, steps, loss=...)` or by looping over
    `job.track(batches)`; that is also where it stops. What it returns is `job.result`, what it raised is
    `job.error` and is shown. A new job stops the older one of the same name: a cell that is run again
    never trains one model twice at a time.

    With `FTLAB_CI=1` `start` does the work before it returns, and raises what the work raised.

    Args:
        work: Called with this job.
        name: What the work is called, on the button and among the jobs.
        on_end: Called without arguments, in the thread of the work, after it ended in whatever way.

    Example:
        >>> job = Job(lambda job: sum(job.track([1, 2, 3])), name="Add")
        >>> job.start()
        >>> job.wait()
        6
        >>> job
        Add: 3 of 3, done
    """

    every = 0.2  # seconds between two reports; each is two messages, so at most ten a second

    def __init__(
        self, work: Callable[["Job"], Any], *, name: str = "Run", on_end: Callable[[], None] | None = None
    ) -> None:
        older = _latest.get(name)
        if older:
            older.stop()
            older.wait()
        _latest[name] = self
        self.work, self.name, self.on_end = work, name, on_end
        self.result: Any = None
        self.error: BaseException | None = None
        self.start_button = w.Button(description=name, icon="play")
        self.stop_button = w.Button(description="Stop", icon="stop", disabled=True)
        self.bar = w.FloatProgress(max=1.0, tooltip=f"progress of {name}")
        self.text = w.HTML()
        self.view = w.VBox([w.HBox([self.start_button, self.stop_button, self.bar]), self.text])
        self.start_button.on_click(lambda _: self.start())
        self.stop_button.on_click(lambda _: self.stop())
        self._stop, self._ended = threading.Event(), threading.Event()
        self._ended.set()
        self._reported = 0.0
        self._progress, self._state = "", "not started"

    @property
    def running(self) -> bool:
        """Whether the work is going on."""
        return not self._ended.is_set()

    def start(self) -> None:
        """Start the work, if it is not running."""
        if self.running:
            return
        self._stop.clear()
        self._ended.clear()
        self.result = self.error = None
        self._progress, self._state = "", "running"
        self.start_button.disabled, self.stop_button.disabled = True, False
        if not is_ci():
            threading.Thread(target=self._run, name=f"ftlab {self.name}", daemon=True).start()
            return
        self._run()
        if self.error:
            raise self.error

    def stop(self) -> None:
        """Ask the work to end at its next step."""
        self._stop.set()

    def wait(self, timeout: float | None = None) -> Any:
        """Wait for the end, for at most `timeout` seconds, and return the result so far."""
        self._ended.wait(timeout)
        return self.result

    def close(self) -> None:
        """Stop the work and take its view away."""
        self.stop()
        self.wait()
        self.view.close()

    def tick(self, step: float, steps: float, *, unit: str = "", **numbers: float) -> None:
        """Report that `step` of `steps` are done, with the numbers to show.

        Args:
            step: What is done.
            steps: The whole.
            unit: What is counted, if it is to be said.
            numbers: What else to show, by name.

        Raises:
            Stopped: Stop was pressed. It ends the work; catch it only to tidy up, and raise it again.
        """
        if self._stop.is_set():
            raise Stopped
        shown = " ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        self._progress = " ".join(filter(None, (f"{step} of {steps}", unit, shown)))
        now = time.monotonic()
        if now - self._reported >= self.every or step >= steps:
            self._reported = now
            self.bar.value = step / max(steps, 1)
            self._say(self._progress)

    def track(self, items: Iterable[Any], steps: int | None = None) -> Iterator[Any]:
        """Yield the items and report each one when its turn is over.

        Args:
            items: What to loop over.
            steps: How many there are, where `len(items)` does not tell.
        """
        steps = len(items) if steps is None else steps  # type: ignore[arg-type]
        self.tick(0, steps)
        for step, item in enumerate(items, start=1):
            yield item
            self.tick(step, steps)

    def __repr__(self) -> str:
        return f"{self.name}: " + ", ".join(part for part in (self._progress, self._state) if part)

    def to_html(self) -> str:
        """Return how far the work is, for a stored output."""
        return f"<p>{escape(repr(self))}</p>"

    def _run(self) -> None:
        try:
            self.result = self.work(self)
            self._state = "done"
        except Stopped:
            self._state = "stopped"
        except BaseException as error:  # whatever ends a thread is lost unless it is kept here
            self.error, self._state = error, "failed"
        self._say(repr(self), error_html(self.error) if self.error else "")
        self.start_button.disabled, self.stop_button.disabled = False, True
        self._ended.set()  # before `on_end`: it may have to wait for somebody who waits for this job
        if self.on_end:
            self.on_end()

    def _say(self, line: str, more: str = "") -> None:
        self.text.value = f'<span role="status">{escape(line)}</span>{more}'


@atexit.register
def _stop_all() -> None:
    """End what runs before Python ends: a thread that is cut off inside torch aborts the whole process."""
    running = [job for job in list(_latest.values()) if job.running]
    for job in running:
        job.stop()
    for job in running:
        job.wait(60)  # for the step that is under way
