"""Which rank gets which images."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DistributedSampler, Sampler

from ftlab.table import Table, Tabled


@dataclass(frozen=True, repr=False)
class Shares(Tabled):
    """Which images each rank gets in each epoch; the repr is the table.

    Attributes:
        length: How many images there are.
        epochs: For each epoch, for each rank, the positions of its images in the dataset, in order.
    """

    length: int
    epochs: tuple[tuple[tuple[int, ...], ...], ...]

    @property
    def padding(self) -> int:
        """How many images are gone through twice in an epoch, so that all ranks have the same number."""
        return max(0, sum(map(len, self.epochs[0])) - self.length)

    @property
    def dropped(self) -> int:
        """How many images are left out of an epoch."""
        return self.length - len({index for rank in self.epochs[0] for index in rank})

    @property
    def same_order(self) -> bool:
        """Whether every epoch goes through the images in the same order."""
        return len(set(self.epochs)) == 1

    def table(self) -> Table:
        """Return the shares as a table: a row per epoch and rank."""
        rows = [
            [epoch, rank, len(indices), " ".join(map(str, indices))]
            for epoch, ranks in enumerate(self.epochs)
            for rank, indices in enumerate(ranks)
        ]
        return Table(["epoch", "rank", "images", "which"], rows, note=self._note())

    def _note(self) -> str:
        parts = []
        if self.padding:
            parts.append(f"{self.padding} of {self.length} images are gone through twice in an epoch")
        if self.dropped:
            parts.append(f"{self.dropped} of {self.length} images are left out of an epoch")
        if len(self.epochs) > 1 and self.same_order:
            parts.append("every epoch has the same order")
        return "; ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return the positions as lists, and what is counted."""
        epochs = [[list(indices) for indices in ranks] for ranks in self.epochs]
        return {"epochs": epochs, "padding": self.padding, "dropped": self.dropped, "same order": self.same_order}


def shares(
    length: int,
    world_size: int,
    *,
    epochs: int = 1,
    shuffle: bool = True,
    set_epoch: bool = True,
    drop_last: bool = False,
    seed: int = 0,
) -> Shares:
    """Ask PyTorch's `DistributedSampler` of each rank for its images; no process is needed for that.

    The trap: without `set_epoch` every epoch has the same order, and nothing is said. And so that each rank has
    the same number of images, some are given out twice: an accuracy counted over them is not that of the set.

    Args:
        length: How many images there are.
        world_size: How many ranks.
        epochs: How many epochs to look at.
        shuffle: Whether the order changes.
        set_epoch: Whether `sampler.set_epoch(epoch)` is called before each epoch, as it must be.
        drop_last: Leave images out instead of giving some out twice.
        seed: The same on every rank, or the ranks' images overlap.

    Example:
        >>> shares(5, 2, shuffle=False)
          epoch    rank    images  which
        -------  ------  --------  -------
              0       0         3  0 2 4
              0       1         3  1 3 0
        1 of 5 images are gone through twice in an epoch
    """
    if length < 1 or world_size < 1:
        raise ValueError(f"there must be at least one image and one rank, not {length} and {world_size}")
    options = {"num_replicas": world_size, "shuffle": shuffle, "drop_last": drop_last, "seed": seed}
    samplers = [DistributedSampler(range(length), rank=rank, **options) for rank in range(world_size)]
    found = []
    for epoch in range(epochs):
        if set_epoch:
            for sampler in samplers:
                sampler.set_epoch(epoch)
        found.append(tuple(tuple(sampler) for sampler in samplers))
    return Shares(length, tuple(found))


class EachOnceSampler(Sampler[int]):
    """Give each rank its share of a validation set: every image once, on one rank.

    The ranks' shares differ in length by one at most. The trap: a collective operation per batch, such as a
    forward pass through DDP in train mode, would then hang on the rank with a batch more. Measure with the model
    itself, `unwrap(model)`, and add up the counts at the end.

    Args:
        length: How many images there are.
        rank: This rank.
        world_size: How many ranks there are.

    Example:
        >>> [list(EachOnceSampler(5, rank, 2)) for rank in range(2)]
        [[0, 2, 4], [1, 3]]
    """

    def __init__(self, length: int, rank: int, world_size: int) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is a number from 0 to {world_size - 1}, not {rank}")
        self.indices = range(rank, length, world_size)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)
