"""Start one function in several processes, from a notebook cell or a script, and bring the results back."""

import inspect
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from ftlab.multi_gpu import processes
from ftlab.multi_gpu.failures import Failure, first
from ftlab.multi_gpu.logs import Logs, print_line

POLL = 0.05  # seconds between two looks at the processes
START = 600.0  # seconds that all processes may take to begin; three are usual


def launch(
    function: Callable[..., Any],
    *args: Any,
    nproc: int = 2,
    timeout: float = 300.0,
    device: str | None = None,
    join: bool = True,
    show: Callable[[int, str], None] | None = print_line,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Any]:
    """Run `function(*args)` in `nproc` processes at once, and return the result of each rank.

    These are real processes, started by PyTorch's own launcher, the elastic agent behind `torchrun`. In each,
    `torch.distributed.init_process_group` has been called before the function begins: `dist.get_rank()`,
    `dist.all_reduce` and `DistributedDataParallel` work at once. With a GPU for each process the backend is
    NCCL, otherwise gloo on the CPU; `device()` is where the model of a rank belongs. Nothing has to be tidied
    up at the end, and nothing is left running, however it ends: neither a rank nor what it started, but for a
    program that it started in a session of its own.

    The function may stand in a notebook cell. What it uses from around it travels along, by value.

    The trap: that value is a copy. A model that is passed in is trained in the processes, and is in this one as
    it was before: return its `state_dict()` from rank 0. Each rank has a random state
    of its own: it begins with its number as the seed.

    Args:
        function: Called in each process. What it returns must be picklable.
        args: Its arguments, the same for every rank.
        nproc: How many processes.
        timeout: Seconds that the function may take; the start of the processes, about three, is not counted.
        device: "cpu" leaves the GPUs alone; None takes them if there are enough.
        join: Make the process group. False is for a function that does it itself, as a script for torchrun does.
        show: Called with the rank and each line that it printed; None for silence.
        should_stop: Asked several times a second; True ends all, as the kernel's stop button does.

    Raises:
        TypeError: `function` cannot be called, or something that it uses cannot be sent to a process.
        ValueError: `nproc` is less than 1.
        OSError: This is Windows.
        RuntimeError: A rank raised something, or was killed; the message names the rank and the line.
        TimeoutError: A rank did not end in time; the message says what each rank was waiting for.
        KeyboardInterrupt: The stop button was pressed, or `should_stop` said so.

    Example:
        >>> def who():
        ...     import torch.distributed as dist
        ...     return f"rank {dist.get_rank()} of {dist.get_world_size()}"
        >>> launch(who, nproc=2)
        ['rank 0 of 2', 'rank 1 of 2']
    """
    if not callable(function):
        raise TypeError(
            f"launch needs a function, not {type(function).__name__}: "
            "write launch(train, 1, 2), not launch(train(1, 2))"
        )
    if nproc < 1:
        raise ValueError(f"nproc is the number of processes, 1 or more, not {nproc}")
    if not processes.CAN_END:
        raise OSError(processes.WHY_NOT)
    with tempfile.TemporaryDirectory(prefix="ftlab_launch_", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "call.pickle").write_bytes(_packed(function, args))
        logs = Logs(folder / "logs", show or (lambda rank, line: None))
        agent = _start(folder, str(nproc), device or "", "join" if join else "")
        try:
            _wait(agent, logs, folder, nproc, timeout, should_stop)
        finally:
            processes.end(agent, folder)
            logs.follow(end=True)
        return _collect(folder, nproc)


def _start(folder: Path, *options: str) -> subprocess.Popen:
    """Start the agent; its stdin is the lifeline, which this process never writes to."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
    environment.setdefault("OMP_NUM_THREADS", "1")
    command = [sys.executable, "-m", "ftlab.multi_gpu.agent", str(folder), *options]
    with (folder / "agent.log").open("wb") as log:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True
        )


def _wait(
    agent: subprocess.Popen, logs: Logs, folder: Path, nproc: int, timeout: float, should_stop: Callable[[], bool]
) -> None:
    """Come back when the agent has ended; show meanwhile what the ranks print."""
    limit, began, returned = START, time.monotonic(), 0.0
    while agent.poll() is None:
        logs.follow()
        if limit is START and processes.have_begun(folder, nproc):
            limit, began = timeout, time.monotonic()
        if should_stop():
            raise KeyboardInterrupt("stopped")
        if limit is timeout and processes.have_vanished(folder, nproc):
            return
        returned = processes.have_returned(folder, nproc) and (returned or time.monotonic())
        if returned and time.monotonic() - returned > processes.GRACE:
            return  # a thread that the function started keeps a rank alive
        if time.monotonic() - began > limit:
            raise TimeoutError(processes.who_waits(folder, nproc, limit))
        with suppress(subprocess.TimeoutExpired):
            agent.wait(POLL)


def _collect(folder: Path, nproc: int) -> list[Any]:
    """Return the results of all ranks, or raise what came in their place."""
    failures = [pickle.loads(path.read_bytes()) for path in folder.glob("*.failure")]
    results = {int(path.stem): path for path in folder.glob("*.result")}
    if failures:
        silent = sorted(set(range(nproc)) - results.keys() - {failure.rank for failure in failures})
        raise RuntimeError(_told(failures, silent, _exit_codes(folder), nproc))
    if len(results) < nproc:
        raise RuntimeError(_how_it_ended(folder, _exit_codes(folder), nproc))
    return [pickle.loads(results[rank].read_bytes()) for rank in range(nproc)]


def _told(failures: list[Failure], silent: list[int], codes: dict[int, int], nproc: int) -> str:
    """Tell the first failure, and what became of the other ranks."""
    cause = first(failures)
    if cause.is_lost_connection and silent:  # it raises nothing that is killed
        return "\n".join(f"rank {rank} {_meaning(codes.get(rank))}" for rank in silent)
    others = sorted(failure.rank for failure in failures if failure is not cause)
    same = all(failure.message == cause.message for failure in failures)
    lines = [str(cause)]
    if others:
        lines.append(
            f"{_ranks(others)} " + ("raised the same" if same else "failed afterwards, probably because of it")
        )
    elif nproc > 1:
        lines.append(f"the other {'rank was' if nproc == 2 else f'{nproc - 1} ranks were'} ended")
    return "\n".join(lines)


def _how_it_ended(folder: Path, codes: dict[int, int], nproc: int) -> str:
    """Tell how the processes ended that neither returned nor raised."""
    if not codes and processes.have_begun(folder, nproc):
        silent = sorted(set(range(nproc)) - {int(path.stem) for path in folder.glob("*.result")})
        return "\n".join(f"rank {rank} {_meaning(None)}" for rank in silent)
    if not codes:
        log = (folder / "agent.log").read_text(errors="replace").strip()
        return f"the {nproc} processes could not be started; the launcher of PyTorch said:\n{log[-2000:]}"
    lines = [f"rank {rank} {_meaning(code)}" for rank, code in sorted(codes.items()) if code != -signal.SIGTERM]
    return "\n".join(lines or [f"{_ranks(sorted(codes))} were told to end from outside (SIGTERM)"])


def _exit_codes(folder: Path) -> dict[int, int]:
    """Return what the agent knows of the ranks that failed."""
    path = folder / "exit_codes.json"
    return {int(rank): code for rank, code in json.loads(path.read_text()).items()} if path.is_file() else {}


def _meaning(code: int | None) -> str:
    if code is None:
        return "vanished: it was killed, perhaps because memory ran out, or left through `os._exit`"
    if code == -signal.SIGKILL:
        return "was killed (SIGKILL): the system does this when memory runs out; try a smaller batch"
    if code < 0:
        return f"was killed by signal {signal.Signals(-code).name}, in code that is not Python"
    return f"left with exit code {code}, without returning from the function"


def _ranks(ranks: list[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


def _packed(function: Callable, args: tuple) -> bytes:
    """Pickle the call; functions that stand in a cell or a script travel by value, with what they use."""
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    by_value = module is not None and module.__name__ != "__main__" and not _is_found(module)
    if by_value:
        cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps((function, args))
    except Exception as error:  # TypeError, PicklingError, and whatever an object's own code raises
        raise TypeError(_what_stays(function, args, error)) from None
    finally:
        if by_value:
            cloudpickle.unregister_pickle_by_value(module)


def _is_found(module: ModuleType) -> bool:
    """Return whether a new process finds the module too; one without a file is built in."""
    top = module.__name__.partition(".")[0]
    return getattr(module, "__file__", None) is None or PathFinder.find_spec(top) is not None


def _what_stays(function: Callable, args: tuple, error: Exception) -> str:
    """Say which of the things that a call uses cannot be sent to another process."""
    name = getattr(function, "__name__", type(function).__name__)
    things = {f"argument {number} of {name}": arg for number, arg in enumerate(args, start=1)}
    if inspect.isfunction(function):
        used = inspect.getclosurevars(function)
        things |= {
            f"{name!r} uses {thing!r}, which": value for thing, value in (used.globals | used.nonlocals).items()
        }
    for what, value in things.items():
        try:
            cloudpickle.dumps(value)
        except Exception as reason:
            what = f"{what} is of type {type(value).__name__} and cannot be sent to another process"
            return f"{what} ({reason}); make it inside {name}"
    return f"{name} cannot be sent to another process: {error}"
