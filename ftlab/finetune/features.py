"""The frozen part of the model, run once over the images; each rank does its share, and all get all of it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from ftlab.finetune.images import Reader
from ftlab.finetune.ranks import Ranks
from ftlab.training.caching.folding import fast
from ftlab.training.caching.memory_format import in_format, takes_channels_last
from ftlab.training.caching.prefix import NotExactError, pack, split
from ftlab.training.caching.store import fits_in_memory

BATCH = 32  # images through the frozen part at a time


class Features:
    """What the frozen part gives for each image of a split; it is read as a `Reader` is.

    Args:
        values: One row per image (images, ...).
        reader: Of the images.
    """

    def __init__(self, values: Tensor, reader: Reader) -> None:
        self.values, self.images, self.targets = values, reader.images, reader.targets

    def batches(self, parts: Sequence[Sequence[int]], epoch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield rows and class numbers for each list of positions; the same ones in every epoch."""
        for part in parts:
            yield self.values[list(part)], self.targets(part)


def once(
    model: nn.Module, readers: Sequence[Reader], ranks: Ranks, say: Callable[[str], Any]
) -> tuple[nn.Module, Sequence[Reader | Features]]:
    """Return what is to be trained, and on what: the rest of the model on features, where that is exact.

    The model is not changed, and the rest shares its parameters. Where images look otherwise in each epoch, where
    nothing is frozen or memory is short, the model and the readers come back.
    """
    if any(reader.augment for reader in readers):
        return model, readers
    few = torch.stack([readers[0].one(position) for position in range(2)]).to(ranks.device)
    try:
        parts = split(model, few)
    except NotExactError as error:
        say(f"all of the model is run for each image: {error}")
        return model, readers
    with torch.no_grad():
        given = parts.prefix(few)
    one = pack(given)[0].cpu()
    count = sum(len(reader.images) for reader in readers)
    if not ranks.all(fits_in_memory(count * one.nbytes)):
        say(f"all of the model is run for each image: the features of {count:,} images do not fit into memory")
        return model, readers
    prefix = fast(parts.prefix, few, given)
    say(f"the frozen part, up to {', '.join(parts.after)}, is run once")
    return parts.rest, [Features(_rows(prefix, reader, ranks, one), reader) for reader in readers]


def lay_channels_last(model: nn.Module, reader: Reader, device: torch.device) -> bool:
    """Lay the parameters of the model out with the channels last, if it can be run so; return whether it can.

    No value changes.
    """
    few = torch.stack([reader.one(position) for position in range(2)]).to(device)  # one image says nothing
    takes = takes_channels_last(model, model, few)
    if takes:
        model.to(memory_format=torch.channels_last)
    return takes


@torch.no_grad()
def _rows(prefix: fx.GraphModule, reader: Reader, ranks: Ranks, one: Tensor) -> Tensor:
    count = len(reader.images)
    mine = ranks.share(range(count))
    parts = [mine[start : start + BATCH] for start in range(0, len(mine), BATCH)]
    rows = [pack(prefix(in_format(images.to(ranks.device)))).cpu() for images, _ in reader.batches(parts)]
    return ranks.gather(torch.cat([one[None][:0], *rows]), count)
