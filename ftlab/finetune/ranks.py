"""The processes of a run: which one this is, what falls to it, and how they talk."""

import gc
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Result = TypeVar("Result")


class OtherRankError(RuntimeError):
    """Rank 0 failed and says why; the others end with it."""


@dataclass(frozen=True)
class Ranks:
    """This process among all processes of the run; alone it is rank 0 of 1.

    Attributes:
        rank: The number of this process, from 0, over all machines.
        size: How many processes there are, the world size.
        device: Where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and speaks."""
        return self.rank == 0

    def share(self, positions: Sequence[int]) -> Sequence[int]:
        """Return this rank's part: every `size`-th, beginning with its own number. It may be empty.

        Example:
            >>> Ranks(1, 2, torch.device("cpu")).share([7, 3, 5, 9, 4])
            [3, 9]
        """
        return positions[self.rank :: self.size]

    def sum(self, numbers: Tensor) -> Tensor:
        """Return the sum over all ranks."""
        if self.size == 1:
            return numbers
        total = numbers.clone().to(self.device)
        dist.all_reduce(total)
        return total.to(numbers.device)

    def all(self, here: bool) -> bool:
        """Return whether something is so on every rank."""
        return bool(self.sum(torch.tensor(float(here))).item() == self.size)

    def gather(self, rows: Tensor, count: int) -> Tensor:
        """Return the rows of all ranks (count, ...) in the order in which `share` dealt them out.

        Args:
            rows: What this rank made of its share, one row for each position.
            count: How many positions there were.
        """
        if self.size == 1:
            return rows
        longest = -(-count // self.size)
        padded = rows.new_zeros(longest, *rows.shape[1:]).to(self.device)
        padded[: len(rows)] = rows.to(self.device)
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        return torch.stack(parts, dim=1).flatten(0, 1)[:count].to(rows.device)

    def first(self, work: Callable[[], Result]) -> Result:
        """Do `work` on rank 0 and return its result on all; if it fails there, all of them end.

        The result travels pickled: tensors in it must be on the CPU.

        Raises:
            Exception: On rank 0, what `work` raises.
            OtherRankError: On the others.
        """
        answer: list[Any] = [None, None]
        failure = None
        if self.is_first:
            try:
                answer[0] = work()
            except Exception as error:
                failure, answer[1] = error, f"{type(error).__name__}: {error}"
        if self.size > 1:
            dist.broadcast_object_list(answer, src=0)
        if failure is not None:
            raise failure
        if answer[1] is not None:
            raise OtherRankError(f"rank 0 ended with {answer[1]}")
        return answer[0]


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that torchrun started, and leave them; without torchrun, be alone.

    NCCL is used where there are GPUs, gloo elsewhere. With fewer GPUs than processes on this machine the work is
    done on the CPU, with a warning.

    Example:
        >>> with joined() as ranks:
        ...     ranks.rank, ranks.size
        (0, 1)
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield Ranks(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        return
    device = _device(int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]))
    _meet("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), device)
        # A wrapped model that is still alive when gloo's threads end can abort the process.
        gc.collect()
        dist.barrier()
    finally:
        gc.collect()
        dist.destroy_process_group()


def _meet(backend: str) -> None:
    """Make the process group, under a name of its own after each restart.

    torchrun's plain way to meet (`--rdzv-backend static`) keeps its store over a restart, and gloo then finds the
    addresses of the dead processes in it: "Connection refused".
    """
    store, rank, size = next(dist.rendezvous("env://"))
    store = dist.PrefixStore(f"restart {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)


def _device(local_rank: int, local_size: int) -> torch.device:
    gpus = torch.cuda.device_count()
    if gpus < local_size:
        if gpus and local_rank == 0:
            warnings.warn(
                f"{local_size} processes, but {gpus} GPU(s): all compute on the CPU; try --nproc-per-node {gpus}",
                stacklevel=4,
            )
        return torch.device("cpu")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def restarted() -> bool:
    """Return whether torchrun started this process again after one of them had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
