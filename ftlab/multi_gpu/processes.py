"""The processes of a launch: where each of them is, and that none of them stays."""

import os
import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from ftlab.multi_gpu.failures import is_whole_stack, read_stack, shorten

CAN_END = hasattr(os, "killpg")
WHY_NOT = "Windows has no process groups to end with certainty: use WSL, or torchrun in a terminal"
GRACE = 3.0  # seconds that the agent gets to see that its ranks are gone
ANSWER = 60.0  # seconds that the ranks get to write down where they are; milliseconds are usual


def end(agent: subprocess.Popen, folder: Path) -> None:
    """Leave nothing running: neither the agent, nor a rank, nor what a rank started.

    Args:
        agent: Started with the lifeline as its stdin.
        folder: The folder of the job, in which each rank has noted its number.
    """
    try:
        ranks = set(_noted(folder).values())
        if agent.poll() is None:
            os.kill(agent.pid, signal.SIGSTOP)  # so that it starts no more of them
            ranks |= {child.pid for child in psutil.Process(agent.pid).children()}
            _kill_groups(ranks)
            if ranks:  # it buries them, and goes
                os.kill(agent.pid, signal.SIGCONT)
                with suppress(subprocess.TimeoutExpired):
                    agent.wait(GRACE)
        _kill_groups(ranks)
    finally:
        agent.stdin.close()  # even if this was interrupted: each process that is left now ends itself
        agent.kill()
        agent.wait()


def have_begun(folder: Path, nproc: int) -> bool:
    """Return whether every rank has got as far as the function."""
    return sum(1 for _ in folder.glob("*.joined")) == nproc


def have_returned(folder: Path, nproc: int) -> bool:
    """Return whether the result of every rank is there."""
    return sum(1 for _ in folder.glob("*.result")) == nproc


def have_vanished(folder: Path, nproc: int) -> bool:
    """Return whether every rank has ended, and one of them without a word; the agent waits for its answer."""
    if have_returned(folder, nproc) or any(folder.glob("*.failure")):
        return False
    return not any(_is_running(pid) for pid in _noted(folder).values())


def _is_running(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def who_waits(folder: Path, nproc: int, seconds: float) -> str:
    """Return a text that says of each rank what it is doing now."""
    ranks = _noted(folder)
    running = [rank for rank in ranks if not (folder / f"{rank}.result").exists()]
    _ask_where(folder, {rank: ranks[rank] for rank in running})
    lines = [f"the {nproc} processes did not end within {seconds:g} seconds, and were ended"]
    for rank in range(nproc):
        if rank not in ranks:
            lines.append(f"rank {rank} had not even begun: is the machine very busy?")
        elif rank not in running:
            lines.append(f"rank {rank} had returned, and waited for the others to do so")
        else:
            places = read_stack((folder / f"{rank}.where").read_text())
            lines.append(f"rank {rank} was in {shorten(places)[-1] if places else 'code that is not Python'}")
    return "\n".join(lines)


def _ask_where(folder: Path, ranks: dict[int, int]) -> None:
    """Make each rank write down where it is, and wait until they have."""
    for pid in ranks.values():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGUSR1)
    end = time.monotonic() + ANSWER
    places = [folder / f"{rank}.where" for rank in ranks]
    while time.monotonic() < end and not all(is_whole_stack(place.read_text()) for place in places):
        time.sleep(0.02)


def _noted(folder: Path) -> dict[int, int]:
    """Return the process number of each rank that has begun."""
    return {int(path.stem): int(path.read_text()) for path in folder.glob("*.pid")}


def _kill_groups(leaders: Iterable[int]) -> None:
    for leader in leaders:
        with suppress(
            ProcessLookupError, PermissionError
        ):  # each rank leads a group: itself, and what it started
            os.killpg(leader, signal.SIGKILL)
