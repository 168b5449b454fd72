"""Call a function in a fresh Python process: one that knows nothing of this one but what is handed over."""

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def call_fresh(function: Callable, *args: Any) -> Any:
    """Return `function(*args)`, worked out in a fresh process with the same paths and number of threads.

    The function may stand in a notebook cell: then its code is handed over, with the variables that it uses.
    (multiprocessing cannot do that: a process that it spawns does not find a function of a cell.)

    Raises:
        RuntimeError: It raised there, or the process was killed; the message has the end of what it said.
        ModuleNotFoundError: It stands in a cell, and cloudpickle is not installed.

    Example:
        >>> call_fresh(divmod, 7, 2)
        (3, 1)
    """
    with tempfile.TemporaryDirectory() as folder:
        given, result = Path(folder, "call"), Path(folder, "result")
        given.write_bytes(_dumps((function, args, torch.get_num_threads())))
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        command = [sys.executable, "-m", "ftlab.checkpoints.fresh", str(given), str(result)]
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
        if done.returncode:
            end = "\n".join(done.stderr.strip().splitlines()[-8:])
            raise RuntimeError(f"in the fresh process it failed (exit code {done.returncode}):\n{end}")
        return pickle.loads(result.read_bytes())


def _dumps(value: Any) -> bytes:
    try:
        import cloudpickle
    except ImportError:
        try:
            if any(getattr(part, "__module__", "") == "__main__" for part in (value[0], *value[1])):
                raise pickle.PicklingError("it stands in a notebook cell or a script")
            return pickle.dumps(value)
        except (pickle.PicklingError, AttributeError) as error:
            raise ModuleNotFoundError(
                f"this function cannot be handed to a fresh process ({error}); pip install cloudpickle, or put "
                "it into a module of its own"
            ) from error
    return cloudpickle.dumps(value)


def _main(given: str, result: str) -> None:
    function, args, threads = pickle.loads(Path(given).read_bytes())
    torch.set_num_threads(threads)
    Path(result).write_bytes(pickle.dumps(function(*args)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
