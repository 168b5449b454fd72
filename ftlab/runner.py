"""Run somebody else's code with a limit of time and memory, and leave no trace of it."""

import contextlib
import contextvars
import ctypes
import io
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import psutil
import torch

from ftlab.random_state import keep_random_state

POLL = 0.05  # seconds between two looks at the clock and the memory
MEMORY = 2 * 2**30  # bytes that code may use more than there was before
GRACE = 2.0  # seconds that code gets to end once it was told to
AGAIN = 0.2  # seconds until it is told again; time enough for it to tidy up undisturbed


class Stopped(BaseException):
    """End the code that it is raised in, because its time or memory is used up.

    A signal, not an error: `except Exception` in that code must not catch it.
    """


@dataclass
class Run:
    """What came of a run: its value or its error, why it was stopped, and what it printed."""

    value: Any = None
    error: BaseException | None = None
    stopped: str = ""  # "time", "memory", or nothing
    alive: bool = False  # it was told to stop, and did not
    printed: str = ""


class Printed(io.TextIOBase):
    """Keep the beginning of what one thread prints; others, such as a training job, print on as before."""

    def __init__(self, thread: threading.Thread, screen: TextIO, keep: int = 1000) -> None:
        self.thread, self.screen, self.keep = thread, screen, keep
        self.head, self.count = "", 0

    def write(self, text: str) -> int:
        """Take `text` in place of the screen."""
        if threading.current_thread() is not self.thread:
            return self.screen.write(text)
        self.head += text[: max(0, self.keep - self.count)]
        self.count += len(text)
        return len(text)

    def writable(self) -> bool:
        """Say that one can print here."""
        return True

    def __str__(self) -> str:
        more = f"\n... and {self.count - self.keep:,} more characters" if self.count > self.keep else ""
        return self.head.rstrip() + more


class Done:
    """Say once that the work is done, in one step: a `Stopped` comes before it or after it.

    In the middle of a `threading.Event` it would leave a lock behind, for which this thread would wait for ever.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.set = self._lock.release  # a function written in C: nothing is raised inside it

    def is_set(self) -> bool:
        """Tell whether it was said."""
        return not self._lock.locked()

    def wait(self, seconds: float) -> bool:
        """Wait until it is said, for at most so many seconds; tell whether it was."""
        if self._lock.acquire(timeout=seconds):
            self._lock.release()
            return True
        return False


def run(function: Callable[[], Any], *, seconds: float = 10.0, memory: int = MEMORY, seed: int = 0) -> Run:
    """Call `function` in a thread of its own, and come back in any case.

    The thread brings a fresh grad mode, inference mode, autocast and default device with it, which end with
    it. All other state that it may change is put back (see `no_trace`).

    A thread cannot be killed, only asked: `Stopped` is raised in it, at its next Python instruction. That
    ends a loop written in Python, on every system and in a notebook kernel. It does not end a single call that
    never returns to Python, such as `time.sleep(3600)` or waiting for a lock, nor a loop that catches `Stopped`
    itself, with a bare `except:`. Such a run is left behind (`alive` is True) and ends with the kernel.

    Args:
        function: Called without arguments.
        seconds: Time limit. Where the system tells (Linux), the time does not count in which the code waits for a
            processor: on a machine that many share, an answer is not ended for what the others do. The call
            takes up to `GRACE` seconds more if the code does not end.
        memory: Bytes by which the whole process may grow.
        seed: Random seed that the code starts from, for torch, numpy and `random`.

    Example:
        >>> def forever():
        ...     while True:
        ...         pass
        >>> run(forever, seconds=0.1).stopped
        'time'
    """
    result, done = Run(), Done()
    context = contextvars.copy_context()  # so that a notebook knows to which cell an output belongs
    process = psutil.Process()
    full = process.memory_info().rss + memory
    thread = threading.Thread(target=context.run, args=(_work, function, result, done), daemon=True)
    out, err = Printed(thread, sys.stdout), Printed(thread, sys.stderr)
    with no_trace(seed), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _unheard():
        try:
            thread.start()
            result.stopped = _wait(done, process, thread, seconds, full)
        finally:  # also when the notebook's stop button is pressed
            result.alive = not _stop(thread, done)
    result.printed = f"{out}\n{err}".strip("\n")
    return result


def _work(function: Callable[[], Any], result: Run, done: Done) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small models are no faster with more, and answers come out the same everywhere
    with contextlib.suppress(Stopped):  # it may come as late as while an error is being handled
        try:
            result.value = function()
        except Stopped:
            raise
        except BaseException as error:
            result.error = error
    torch.set_num_threads(threads)  # torch remembers it for threads to come
    done.set()


def _wait(done: Done, process: psutil.Process, thread: threading.Thread, seconds: float, full: int) -> str:
    """Return "" once `done` is set, else why not: the seconds are over, or there are more than `full` bytes."""
    start = time.monotonic()
    while True:
        if done.wait(POLL):  # not thread.join: interrupted, it takes a running thread for an ended one
            return ""
        if _clock(thread) - start > seconds:
            return "time"
        if process.memory_info().rss > full:
            return "memory"


def waited(thread: threading.Thread) -> float:
    """Return the seconds in which a thread waited for a processor; 0 where the system does not tell."""
    try:
        told = Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text(encoding="ascii")
        return int(told.split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def _clock(thread: threading.Thread) -> float:
    """Return a time that stands still while `thread` waits for a processor."""
    return time.monotonic() - waited(thread)


def _stop(thread: threading.Thread, done: Done) -> bool:
    """Ask `thread` to end, again and again: a bare `except:` in a loop swallows the first times."""
    now = _clock(thread)
    end, again = now + GRACE, now
    while thread.is_alive() and not done.is_set() and now < end:
        if now >= again:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Stopped))
            again = now + AGAIN
        done.wait(POLL)
        now = _clock(thread)
    if done.is_set():
        thread.join(60)  # it is at its end; the last `Stopped` may come as late as this, and is no news then
    return done.is_set() or not thread.is_alive()


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """Hide a `Stopped` that Python itself catches: in a weak reference's callback, or as a thread ends."""
    unraisable, lost = sys.unraisablehook, threading.excepthook
    sys.unraisablehook = _but_stopped(unraisable)
    threading.excepthook = _but_stopped(lost)
    try:
        yield
    finally:
        sys.unraisablehook, threading.excepthook = unraisable, lost


def _but_stopped(hook: Callable[[Any], object]) -> Callable[[Any], None]:
    def pass_on(caught: Any) -> None:
        if caught.exc_type is not Stopped:
            hook(caught)

    return pass_on


@contextlib.contextmanager
def no_trace(seed: int | None = None) -> Iterator[None]:
    """Put back what code may change in the process: random states, torch's settings, warnings, folder.

    Args:
        seed: Random seed inside the block; None goes on with the present random state.
    """
    put_back = _settings()
    folder = Path.cwd()
    try:
        with keep_random_state(seed), warnings.catch_warnings():
            warnings.simplefilter("default")  # the same verdict whatever filters are set outside
            yield
    finally:
        for action in put_back:
            action()
        if not folder.samefile(Path.cwd()):
            os.chdir(folder)


def _settings() -> list[Callable[[], None]]:
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    deterministic, anomaly = torch.are_deterministic_algorithms_enabled(), torch.is_anomaly_enabled()
    return [
        lambda: torch.set_default_dtype(dtype),
        lambda: torch.set_num_threads(threads) if torch.get_num_threads() != threads else None,
        lambda: torch.use_deterministic_algorithms(deterministic),
        lambda: torch.autograd.set_detect_anomaly(anomaly),
    ]
