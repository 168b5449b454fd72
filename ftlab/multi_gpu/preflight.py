"""Before processes are started: what this one has done already, and what each way of starting would do here."""

import os
import signal
import sys
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch
import torch.distributed as dist

from ftlab.multi_gpu import processes
from ftlab.table import Table, Tabled

PATIENCE = (
    2.0  # seconds of sleep, or of work, after which a forked process counts as hanging: it needs milliseconds
)


@dataclass(frozen=True)
class Way:
    """A way of starting processes, and what it would do here."""

    name: str
    works: bool
    why: str


@dataclass(frozen=True, repr=False)
class Preflight(Tabled):
    """What this process has done, what the machine has, and which way of starting processes works here.

    Attributes:
        cuda_is_initialized: Whether this process has used CUDA.
        threads: How many threads it runs, of whatever kind.
        torch_threads: How many threads torch may use for one operation.
        in_notebook: Whether functions of `__main__` stand in no file, as those of notebook cells.
        gpus: How many GPUs torch sees.
        backends: The backends of `torch.distributed` that can be used.
        ways: Fork, spawn and launch, and why.
    """

    cuda_is_initialized: bool
    threads: int
    torch_threads: int
    in_notebook: bool
    gpus: int
    backends: tuple[str, ...]
    ways: tuple[Way, ...] = field(repr=False)

    @property
    def advice(self) -> str:
        """What to use here, in a sentence."""
        fork = self.ways[0]
        where = f"{self.gpus} GPUs" if self.gpus > 1 else "one GPU" if self.gpus else "no GPU"
        backend = "NCCL on up to as many processes as GPUs, gloo on the CPU" if self.gpus else "gloo on the CPU"
        trap = "" if fork.works else f"; do not fork: {fork.why}"
        if not self.ways[-1].works:
            return self.ways[-1].why
        return f"use launch: {where}, so {backend}{trap}"

    def table(self) -> Table:
        """Return the ways as a table."""
        title = (
            f"this process: {self.threads} threads, {self.torch_threads} of them for one operation of torch; "
            f"CUDA {'in use' if self.cuda_is_initialized else 'not touched'}; "
            f"{self.gpus} GPUs; backends {', '.join(self.backends)}"
        )
        rows = [[way.name, "yes" if way.works else "NO", way.why] for way in self.ways]
        return Table(["way", "works here", "why"], rows, title=title, note=self.advice)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        names = ("cuda_is_initialized", "threads", "torch_threads", "in_notebook", "gpus")
        ways = {way.name: {"works": way.works, "why": way.why} for way in self.ways}
        return {name: getattr(self, name) for name in names} | {"backends": list(self.backends), "ways": ways}


def preflight() -> Preflight:
    """Say what starting processes would do from here, and why.

    Nothing is changed: CUDA is not initialised by it. That a fork works is not guessed but tried: a process is
    forked that does one operation of torch with all its threads.

    The trap: a fork that works now hangs later. The threads of torch begin with the first large operation, and a
    forked process believes that it has them too, and waits for them for ever.

    Example:
        >>> found = preflight()
        >>> [way.name for way in found.ways]
        ['fork', 'spawn', 'launch']
        >>> found.to_dict()["ways"]["launch"]["works"]
        True
    """
    in_notebook = not hasattr(sys.modules["__main__"], "__file__")
    backends = {
        "gloo": dist.is_gloo_available(),
        "nccl": dist.is_nccl_available(),
        "mpi": dist.is_mpi_available(),
    }
    return Preflight(
        cuda_is_initialized=torch.cuda.is_initialized(),
        threads=psutil.Process().num_threads(),
        torch_threads=torch.get_num_threads(),
        in_notebook=in_notebook,
        gpus=torch.cuda.device_count(),
        backends=tuple(name for name, is_there in backends.items() if is_there),
        ways=(_fork(), _spawn(in_notebook), _launch()),
    )


def _fork() -> Way:
    if not hasattr(os, "fork"):
        return Way("fork", False, "this system cannot fork")
    if torch.cuda.is_initialized():
        return Way("fork", False, "CUDA is in use in this process, and a forked process cannot use it then")
    if _fork_hangs():
        return Way(
            "fork", False, "torch's threads were used in this process: a forked process waits for them for ever"
        )
    return Way("fork", True, "neither CUDA nor torch's threads were used in this process; tried just now")


def _fork_hangs() -> bool:
    """Fork a process that uses the threads of torch, and see whether it ends.

    What only waits for a processor, on a busy machine, does not hang: it neither sleeps nor works.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of what is tried here
        child = os.fork()
    if not child:
        torch.ones(1 << 20).add_(1)
        os._exit(0)
    process, awake = psutil.Process(child), time.monotonic()
    while not os.waitpid(child, os.WNOHANG)[0]:  # asked first: this process may have waited longer than it
        if process.status() != psutil.STATUS_SLEEPING:
            awake = time.monotonic()
        if time.monotonic() - awake > PATIENCE or sum(process.cpu_times()[:2]) > PATIENCE:  # user and system
            break
        time.sleep(0.005)
    else:
        return False
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def _spawn(in_notebook: bool) -> Way:
    if in_notebook:
        return Way(
            "spawn", False, "it looks for the function in a file by its name, and one of a cell is in no file"
        )
    return Way(
        "spawn", True, "the function is found in its file again; call it below `if __name__ == '__main__'`"
    )


def _launch() -> Way:
    if not processes.CAN_END:
        return Way("launch", False, processes.WHY_NOT)
    return Way("launch", True, "fresh processes that know nothing of this one; the function is sent to them")
