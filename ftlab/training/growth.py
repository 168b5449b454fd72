"""Does a loop keep more with every batch? Counted, by running it on more and more of them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from torch import Tensor

from ftlab.modes import memory_of
from ftlab.random_state import keep_random_state
from ftlab.table import Table, Tabled

MIB = 2**20


@dataclass(frozen=True, repr=False)
class MemoryGrowth(Tabled):
    """What a loop keeps after so many batches; the repr is the table.

    Attributes:
        batches: How many batches it was run on, run by run.
        kept: Bytes that are still alive when it is over, because its result holds on to them.
        peak: Bytes that were alive at the same time.
    """

    batches: list[int]
    kept: list[int]
    peak: list[int]

    @property
    def per_batch(self) -> float:
        """How many bytes each further batch keeps."""
        return (self.kept[-1] - self.kept[0]) / (self.batches[-1] - self.batches[0])

    @property
    def grows(self) -> bool:
        """Whether more batches keep more."""
        return self.per_batch > 0

    def table(self) -> Table:
        """Return a row per run."""
        rows = [
            [count, f"{kept / MIB:.1f} MiB", f"{peak / MIB:.1f} MiB"]
            for count, kept, peak in zip(self.batches, self.kept, self.peak, strict=True)
        ]
        more = f"each further batch keeps {self.per_batch / MIB:.1f} MiB" if self.grows else "it does not grow"
        return Table(["batches", "kept", "peak"], rows, note=more)

    def to_dict(self) -> dict[str, Any]:
        """Return the bytes, run by run."""
        return asdict(self) | {"per_batch": self.per_batch}


def memory_growth(
    loop: Callable[[Sequence], Any], batches: Iterable, *, counts: Sequence[int] = (1, 2, 4)
) -> MemoryGrowth:
    """Run `loop` on 1, 2 and 4 batches, and count the bytes of all tensors that its result keeps alive.

    The loop is really run, so a loop that trains does train. The random state is as before.

    The trap: `total += loss` without a backward pass keeps the activations of every batch. After `backward()`
    they are gone, and only the nodes of the graph stay, which are no tensors and are not counted here: about
    a hundred kilobytes per batch in a large network.

    Args:
        loop: Takes a list of batches; what it returns is what it keeps.
        batches: At least as many as the largest count; of a loader or an iterator so many are taken.
        counts: On how many batches it is run, rising.

    Raises:
        ValueError: There are too few batches, or the counts do not rise.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(256, 1)
        >>> careless = lambda batches: sum(layer(x).exp().sum() for x in batches)
        >>> memory_growth(careless, list(torch.ones(4, 32, 256))).kept
        [128, 256, 512]
    """
    counts = list(counts)
    if len(counts) < 2 or counts != sorted(set(counts)) or counts[0] < 1:
        raise ValueError(f"counts must be two or more rising numbers from 1, not {counts}")
    if not isinstance(batches, list | tuple | Tensor):  # a loader, or an iterator
        batches = list(islice(batches, counts[-1]))
    if len(batches) < counts[-1]:
        raise ValueError(f"{counts[-1]} batches are asked for, and {len(batches)} are there")
    found = []
    for count in counts:
        with keep_random_state():
            found.append(memory_of(loop, batches[:count]))
    kept, peak = zip(*found, strict=True)
    return MemoryGrowth(counts, list(kept), list(peak))
