"""What the prefix gave for each image, as a dataset, and a loader that gives it in the order of the images."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


class Activations(Dataset):
    """The activations of a dataset's images, in its order.

    Attributes:
        values: One tensor (images, ...) per view of the images.
        targets: The class numbers (N,).
        classes: Their names, as the dataset has them.
        view: Which view is given; `CachedLoader` goes on to the next one in each epoch.
    """

    def __init__(self, values: list[Tensor], targets: Tensor, classes: list[str]) -> None:
        self.values, self.targets, self.classes = values, targets, classes
        self.view = 0

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        """Return the activations of one image, and its class number."""
        return self.values[self.view][place], self.targets[place]

    def __getitems__(self, places: list[int]) -> tuple[Tensor, Tensor]:
        """Return a whole batch; a DataLoader asks for it in one go."""
        rows = torch.as_tensor(places)
        return self.values[self.view][rows], self.targets[rows]


class CachedLoader(DataLoader):
    """Batches of activations, in the same order and with the same random draws as the loader of the images.

    Args:
        activations: What to give.
        images: The loader that is followed.
        changed: Asked before each epoch for what has changed, so that these are no longer the activations of the
            images; "" if nothing has.
    """

    def __init__(self, activations: Activations, images: DataLoader, changed: Callable[[], str]) -> None:
        super().__init__(
            activations, batch_sampler=images.batch_sampler, collate_fn=_as_it_is, generator=images.generator
        )
        self.changed = changed
        self.asks = True
        self._epochs = 0

    def __iter__(self) -> Iterator[Any]:
        if self.asks and (changed := self.changed()):
            raise RuntimeError(
                f"{changed} has changed since the activations were computed; they would be those of another "
                "model or of other images. Call training.cached(...) again"
            )
        self.dataset.view = self._epochs % len(self.dataset.values)
        self._epochs += 1
        return super().__iter__()


def _as_it_is(batch: Any) -> Any:
    return batch
