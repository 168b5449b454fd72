"""One rank of a launch: join the others, call the function, leave its result. On the agent's lifeline."""

import faulthandler
import os
import pickle
import random
import signal
import sys
import time
from pathlib import Path

import cloudpickle
import numpy as np
import torch
import torch.distributed as dist

from ftlab.multi_gpu import lifeline
from ftlab.multi_gpu.failures import Failure

POLL = 0.01  # seconds between two looks at whether the others are done


def run(folder: Path, gpus: bool, join: bool) -> None:
    """Do the part of this rank; come back only if it went well.

    Args:
        folder: Has the pickled call; gets what came of it, under the number of this rank.
        gpus: Whether each rank has a GPU of its own.
        join: Whether to make the process group; the function does it otherwise.
    """
    if os.getpgid(0) != os.getpid():
        os.setsid()  # so that what the function starts can be ended with it
    went_well = _work(folder, gpus, join)
    sys.stdout.flush()
    sys.stderr.flush()
    if not went_well:
        os._exit(1)


def can_have_gpus(nproc: int) -> bool:
    """Return whether each of `nproc` ranks can have a GPU of its own."""
    return dist.is_nccl_available() and torch.cuda.device_count() >= nproc


def _work(folder: Path, gpus: bool, join: bool) -> bool:
    lifeline.follow()
    rank = int(os.environ["RANK"])
    for stream in (sys.stdout, sys.stderr):  # whole lines: two ranks write at the same time
        stream.reconfigure(line_buffering=True, write_through=False, errors="replace")
    _tell_where_on_demand(folder / f"{rank}.where")
    _write(folder / f"{rank}.pid", str(os.getpid()).encode())  # from here on it may be asked
    try:
        _begin(rank)
        if join:
            _join(gpus)
        _write(folder / f"{rank}.joined", b"")
        _wait_for_all(folder, "joined")  # one that fails at once would break the connections that are being made
        function, args = pickle.loads((folder / "call.pickle").read_bytes())
        _write(folder / f"{rank}.result", _packed(function(*args)))
    except BaseException as error:  # a rank that calls sys.exit() has failed as well
        _write(folder / f"{rank}.failure", pickle.dumps(Failure.of(error, rank)))
        return False
    _wait_for_all(folder, "result")  # one that leaves while another still receives from it can cut that one off
    return True


def _packed(result: object) -> bytes:
    """Pickle what the function returned."""
    try:
        return cloudpickle.dumps(result)
    except Exception as error:
        raise TypeError(
            f"the function returned a {type(result).__name__} that cannot be sent back ({error}); return plain "
            "numbers, tensors or a state_dict"
        ) from None


def _begin(rank: int) -> None:
    """Set the number of threads, and the random state that belongs to the rank."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.manual_seed(rank)
    np.random.seed(rank)  # noqa: NPY002 - this is the state that augmentations draw from
    random.seed(rank)


def _join(gpus: bool) -> None:
    """Join the process group."""
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if gpus else "gloo")


def _wait_for_all(folder: Path, step: str) -> None:
    """Wait until every rank has got that far; the agent ends this one if another fails."""
    while sum(1 for _ in folder.glob(f"*.{step}")) < int(os.environ["WORLD_SIZE"]):
        time.sleep(POLL)


def _tell_where_on_demand(path: Path) -> None:
    """Write the place where this process is into `path` when the signal SIGUSR1 comes, whatever it waits for."""
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1, path.open("w"), all_threads=False)


def _write(path: Path, content: bytes) -> None:
    """Write a file so that it is never seen half written."""
    part = path.with_suffix(f"{path.suffix}.part")
    part.write_bytes(content)
    part.replace(path)


if __name__ == "__main__":
    run(Path(sys.argv[1]), "gpus" in sys.argv, "join" in sys.argv)
    # Not the usual way out: with a DDP model alive, gloo's thread aborts now and then while Python tidies up.
    os._exit(0)
