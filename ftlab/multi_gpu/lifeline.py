"""The lifeline: a pipe whose end means that nobody waits any more.

The process that launches holds the writing end of a pipe and never writes to it. Every process that it starts
has the reading end as its stdin. When the launcher closes its end, or dies in whatever way, the pipe ends, and
each process kills itself and what it started. Nothing has to be remembered, and no signal can be missed.
"""

import os
import signal
import threading


def follow(pass_on: bool = False) -> None:
    """End this process, and every process that it started, as soon as the lifeline on stdin ends.

    Args:
        pass_on: Whether stdin stays the lifeline, for processes that this one will start. Otherwise it is empty
            afterwards, so that an `input()` does not wait for ever.
    """
    pipe = os.dup(0)
    threading.Thread(target=_wait, args=(pipe,), name="ftlab lifeline", daemon=True).start()
    if pass_on:
        return
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def _wait(pipe: int) -> None:
    os.read(pipe, 1)  # lets the other threads work; returns only when the pipe has ended
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
