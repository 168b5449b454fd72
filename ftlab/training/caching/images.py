"""Whether a loader gives the same images in every epoch, and how one notices when it does not any more."""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from ftlab.random_state import keep_random_state, torch_random_state
from ftlab.training.caching.walk import NotExactError

PROBES = 8


def refuse_loader(loader: DataLoader) -> None:
    """Refuse a loader whose batches are not just items of a dataset, put together.

    Raises:
        NotExactError: The batches cannot be had from the items alone.
    """
    if not isinstance(loader, DataLoader) or type(loader).__iter__ is not DataLoader.__iter__:
        raise NotExactError(f"a {type(loader).__name__} makes its own batches; a DataLoader is needed")
    if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        raise NotExactError("the dataset has no numbered items, or the loader makes no batches")
    if loader.collate_fn is not default_collate:
        raise NotExactError("the loader has its own collate_fn, which may mix or change the images")
    if loader.num_workers and loader.worker_init_fn is not None:
        raise NotExactError("the loader has a worker_init_fn, which may change the images")
    if not len(loader.dataset):
        raise NotExactError("the dataset is empty")


def refuse_random(dataset: Dataset) -> None:
    """Refuse a dataset whose images are another each time they are asked for.

    Some items are asked for twice. That they are equal proves little (half of all flips do nothing), so it is
    also looked whether random numbers were drawn.

    Raises:
        NotExactError: An image is not always the same, or no image.
    """
    for place in places(len(dataset)):
        with keep_random_state():
            before = _random_state()
            first = _item(dataset, place)
            if _random_state() != before:
                raise NotExactError(
                    "the dataset draws random numbers when it is asked for an image (a random augmentation): "
                    "each epoch has other images. To keep several versions of each: training.cached(..., views=4)"
                )
            if not _equal(first, _item(dataset, place)):
                raise NotExactError(
                    f"item {place} of the dataset was another one when it was asked for again. To keep several "
                    "versions of each image: training.cached(..., views=4)"
                )


def places(count: int, wanted: int = PROBES) -> list[int]:
    """Return the positions of some items, the first and the last among them.

    Example:
        >>> places(100, 4)
        [0, 33, 66, 99]
    """
    return sorted({round(step * (count - 1) / max(wanted - 1, 1)) for step in range(wanted)})


def probe(dataset: Dataset, count: int = 2) -> Tensor:
    """Return a batch of some images; an even number, and at least two."""
    with keep_random_state():
        found = [_item(dataset, place)[0] for place in places(len(dataset), count)]
    return stack((found * count)[:count])


def stack(images: list[Tensor]) -> Tensor:
    """Put images together.

    Raises:
        NotExactError: They have different sizes.
    """
    try:
        return torch.stack(images)
    except RuntimeError as error:
        raise NotExactError(f"the images of the dataset have different sizes: {error}") from error


def digest(dataset: Dataset, count: int = PROBES) -> str:
    """Return a number that changes with the data: length, targets, files, and the pixels of some prepared images.

    The trap: of a dataset without files only `count` images are looked at.
    """
    found = hashlib.sha256(f"{type(dataset).__name__} {len(dataset)}".encode())
    for part in _inside(dataset):
        for name in ("targets", "samples", "indices"):
            found.update(repr(_plain(getattr(part, name, None))).encode())
        for path, *_ in getattr(part, "samples", None) or []:
            if isinstance(path, str | Path) and Path(path).exists():
                stat = Path(path).stat()
                found.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
    found.update(quick_digest(dataset, count).encode())
    return found.hexdigest()


def quick_digest(dataset: Dataset, count: int = 2) -> str:
    """Return a number that changes with the length of the dataset and with how images are prepared."""
    found = hashlib.sha256(str(len(dataset)).encode())
    with keep_random_state(seed=0):  # the views of an augmentation, too, are the same with the same seed
        for place in places(len(dataset), count) if len(dataset) else []:
            image, target = _item(dataset, place)
            found.update(f"{place} {image.dtype} {tuple(image.shape)} {target}".encode())
            found.update(image.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _item(dataset: Dataset, place: int) -> tuple[Tensor, Any]:
    item = dataset[place]
    if not isinstance(item, tuple | list) or len(item) != 2 or not isinstance(item[0], Tensor):
        kinds = [type(part).__name__ for part in item] if isinstance(item, tuple | list) else type(item).__name__
        raise NotExactError(f"an item of the dataset is not (image tensor, class number) but {kinds}")
    return item[0], item[1]


def _equal(one: tuple[Tensor, Any], other: tuple[Tensor, Any]) -> bool:
    same_target = bool(torch.as_tensor(one[1] == other[1]).all())
    return same_target and one[0].shape == other[0].shape and torch.equal(one[0], other[0])


def _random_state() -> tuple:
    numpy = np.random.get_state()  # noqa: NPY002 - this is the state that augmentations draw from
    return torch_random_state(), numpy[1].tobytes(), numpy[2], random.getstate()


def _inside(dataset: Any) -> Iterator[Any]:
    """Yield the dataset and those that it is made of, as Subset and ConcatDataset are."""
    yield dataset
    for inner in [getattr(dataset, "dataset", None), *(getattr(dataset, "datasets", None) or [])]:
        if inner is not None:
            yield from _inside(inner)


def _plain(values: Any) -> Any:
    if isinstance(values, Tensor):
        return values.tolist()
    return list(values) if isinstance(values, list | tuple | range | np.ndarray) else None
