"""Whether a loader gives the same images in every epoch, and how one notices when it does not any more."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, default_collate

from ftlab.random_state import keep_random_state, torch_random_state
from ftlab.training.caching import inside
from ftlab.training.caching.walk import NotExactError, all_random_states, draws

PROBES = 8
VIEWS = ". To keep several versions of each: training.cached(..., views=4)"
RANDOM = (
    "the dataset draws random numbers when it is asked for an image (a random augmentation): each epoch has "
    f"other images{VIEWS}"
)


def refuse_loader(loader: DataLoader) -> None:
    """Refuse a loader whose batches are not just items of a dataset, put together.

    Raises:
        NotExactError: The batches cannot be had from the items alone.
    """
    if not isinstance(loader, DataLoader) or type(loader).__iter__ is not DataLoader.__iter__:
        raise NotExactError(
            f"a {type(loader).__name__} is no plain DataLoader; training.loader(dataset) makes one"
        )
    if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        raise NotExactError("the dataset has no numbered items, or the loader makes no batches")
    if loader.collate_fn is not default_collate:
        raise NotExactError("the loader has its own collate_fn, which may mix or change the images")
    if loader.num_workers and loader.worker_init_fn is not None:
        raise NotExactError("the loader has a worker_init_fn, which may change the images")
    if not len(loader.dataset):
        raise NotExactError("the dataset is empty")
    if any(
        hasattr(part, "__getitems__") and not isinstance(part, Subset) for part in inside.datasets(loader.dataset)
    ):
        raise NotExactError("the dataset has a __getitems__: its batches may be more than single images")
    samplers = loader.sampler, loader.batch_sampler
    if any(not type(one).__module__.startswith("torch.") for one in samplers) and _goes_on(loader.dataset):
        raise NotExactError("the dataset has items behind its length, and the loader its own sampler")


def _goes_on(dataset: Dataset) -> bool:
    dataset = inside.twin(dataset)
    with keep_random_state(), inside.keep_generators(inside.generators(dataset)):
        try:
            dataset[len(dataset)]
        except Exception:
            return False
    return True


def refuse_random(dataset: Dataset) -> None:
    """Refuse a dataset whose images are another each time they are asked for.

    Some items are asked for twice. That they are equal proves little (half of all flips do nothing), so it is
    also looked whether random numbers were drawn: those of torch, NumPy and Python, and of generators that the
    dataset has for itself. A copy of the dataset is asked, so that what it counts stays as it was.

    The trap: a dataset that writes into its own images when it is asked for them is refused, and has written.

    Raises:
        NotExactError: An image is not always the same, or no image.
    """
    dataset = inside.twin(dataset)
    own = inside.generators(dataset)
    for place in places(len(dataset)):
        with keep_random_state(), inside.keep_generators(own):
            refuse_draws(lambda place=place: _item(dataset, place), own)
            image, target = _item(dataset, place)
            first = image.clone(), target  # the dataset may write over what it gave
            if not _equal(first, _item(dataset, place)):
                raise NotExactError(
                    f"item {place} of the dataset was another one when it was asked for again{VIEWS}"
                )


def refuse_draws(ask: Callable[[], Any], own: list[Any]) -> None:
    """Ask for images, and refuse the dataset if that draws random numbers, its own ones or those of all."""
    before = inside.states(own)
    if draws(ask) or inside.states(own) != before:
        raise NotExactError(RANDOM)


def places(count: int, wanted: int = PROBES) -> list[int]:
    """Return the positions of some items, the first and the last among them.

    Example:
        >>> places(100, 4)
        [0, 33, 66, 99]
    """
    return sorted({round(step * (count - 1) / max(wanted - 1, 1)) for step in range(wanted)})


def probe(dataset: Dataset, count: int = 2) -> Tensor:
    """Return a batch of some images; an even number, and at least two."""
    dataset = inside.twin(dataset)
    with keep_random_state(), inside.keep_generators(inside.generators(dataset)):
        found = [_item(dataset, place)[0] for place in places(len(dataset), count)]
    images = stack((found * count)[:count])
    if torch.equal(images[0], images[-1]):  # two that are equal would not show what depends on the others
        images[-1] = images[-1].flip(-1) // 2 if not images.is_floating_point() else images[-1].flip(-1) / 2 + 0.1
    return images


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

    The trap: of a dataset that has neither files nor tensors, nor arrays, only `count` images are looked at.
    """
    found = hashlib.sha256(f"{type(dataset).__name__} {len(dataset)}".encode())
    for part in inside.datasets(dataset):
        for name in ("targets", "samples", "indices"):
            found.update(repr(_plain(getattr(part, name, None))).encode())
        for path, *_ in getattr(part, "samples", None) or []:
            if isinstance(path, str | Path) and Path(path).exists():
                stat = Path(path).stat()
                found.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
        for tensor in inside.tensors(part):
            found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    found.update(quick_digest(dataset, count).encode())
    return found.hexdigest()


def quick_digest(dataset: Dataset, count: int = 2) -> str:
    """Return a number that changes with the length of the dataset and with how images are prepared."""
    found = hashlib.sha256(str(len(dataset)).encode())
    # the views of an augmentation, too, are the same with the same seed
    with keep_random_state(seed=0), inside.keep_generators(inside.generators(dataset), begin=True):
        before = torch_random_state()
        for place in places(len(dataset), count) if len(dataset) else []:
            image, target = _item(dataset, place)
            found.update(f"{place} {image.dtype} {tuple(image.shape)} {target}".encode())
            found.update(image.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        # one that comes later and does nothing to these images is noticed all the same
        found.update(str(torch_random_state() == before).encode())
    return found.hexdigest()


@contextmanager
def asked_the_same(dataset: Dataset) -> Iterator[Dataset]:
    """Give a dataset to be gone through once, and refuse it if meanwhile it drew, or became another one.

    Not all items were asked for before; and some datasets count, and give other images in the next epoch.
    """
    dataset = inside.twin(dataset)
    own = inside.generators(dataset)
    mine = threading.current_thread() is threading.main_thread()  # NumPy's and Python's belong to all threads
    states = all_random_states if mine else torch_random_state
    with keep_random_state(), inside.keep_generators(own):
        seen, before = quick_digest(dataset), (states(), inside.states(own))
        yield dataset
        if (states(), inside.states(own)) != before:
            raise NotExactError(RANDOM)
        if quick_digest(dataset) != seen:
            raise NotExactError(
                f"the dataset gives other images after all were asked for once: each epoch has others{VIEWS}"
            )


class Look:
    """What the images of a dataset were like; `changed` says whether they are others now."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        before = inside.contents(dataset)
        self.seen = quick_digest(dataset)
        # Random numbers from nowhere, as views may have: nothing that could be compared.
        self.comparable = quick_digest(dataset) == self.seen
        after = inside.contents(dataset)
        # without what the dataset writes down when it is asked
        self.contents = {key: told for key, told in after.items() if before.get(key) == told}

    def changed(self) -> str:
        """Return what changed; "" if nothing did."""
        now = inside.contents(self.dataset)
        same = all(now.get(key) == told for key, told in self.contents.items())
        if same and (not self.comparable or quick_digest(self.dataset) == self.seen):
            return ""
        return f"the {type(self.dataset).__name__} of the images"


def _item(dataset: Dataset, place: int) -> tuple[Tensor, Any]:
    item = dataset[place]
    if not isinstance(item, tuple | list) or len(item) != 2 or not isinstance(item[0], Tensor):
        kinds = [type(part).__name__ for part in item] if isinstance(item, tuple | list) else type(item).__name__
        raise NotExactError(f"an item of the dataset is not (image tensor, class number) but {kinds}")
    return item[0], item[1]


def _equal(one: tuple[Tensor, Any], other: tuple[Tensor, Any]) -> bool:
    same_target = bool(torch.as_tensor(one[1] == other[1]).all())
    return same_target and one[0].shape == other[0].shape and torch.equal(one[0], other[0])


def _plain(values: Any) -> Any:
    if isinstance(values, Tensor):
        return values.tolist()
    return list(values) if isinstance(values, list | tuple | range | np.ndarray) else None
