"""The last batch of an epoch, which batch norm may refuse."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ftlab.exercises.core import Mistake, Wrong, exercise


def check_make_loader(answer):
    """The batches of four data sets of different size: how many images each has, which are missing, the order."""
    for count, size in ((9, 4), (8, 4), (10, 4), (7, 3)):
        dataset = TensorDataset(torch.arange(count).float().unsqueeze(1), torch.arange(count))
        loader = answer(dataset, size)
        if not isinstance(loader, DataLoader):
            raise Wrong(f"You gave a `{type(loader).__name__}`, no `DataLoader`.", ask="What is returned?")
        batches = [labels.tolist() for _, labels in loader]
        _expect_batches(batches, count, size)
    orders = {tuple(label for _, labels in loader for label in labels.tolist()) for _ in range(4)}
    if len(orders) == 1:
        raise Wrong("Each epoch goes through the images in the same order.", ask="Which setting shuffles?")


def _expect_batches(batches: list[list[int]], count: int, size: int) -> None:
    with_what = f"With {count} images and `batch_size={size}`"
    if any(len(batch) == 1 for batch in batches):
        model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(1))
        try:
            model(torch.ones(1, 1))
        except ValueError as error:
            text = f"{with_what} the last batch has one image: {_first_sentence(error)}"
            raise Wrong(text, ask="Which setting of a `DataLoader` is about the last batch?") from None
    if max(map(len, batches)) > size:
        raise Wrong(f"{with_what} one batch has {max(map(len, batches))}.", ask="How large may a batch be?")
    seen = [label for batch in batches for label in batch]
    if len(seen) < count - max(1, size - 1) * (count % size > 0) or len(set(seen)) != len(seen):
        text = f"{with_what}, {count - len(set(seen))} images are missing from an epoch, {len(seen)} are in it."
        raise Wrong(text, ask="How many images are in a last batch that is left out?")


def _first_sentence(error: Exception) -> str:
    """Return the first sentence of what batch norm says."""
    return f"`{type(error).__name__}: {str(error).partition(',')[0]}`."


def _every_last_batch(dataset, batch_size):
    return torch.utils.data.DataLoader(dataset, batch_size=batch_size, shuffle=True)


def _drop_always(dataset, batch_size):
    return DataLoader(dataset, batch_size=batch_size, shuffle=True, drop_last=True)


def _by_sampler(dataset, batch_size):
    from torch.utils.data import BatchSampler, RandomSampler

    drop = len(dataset) % batch_size == 1
    return DataLoader(dataset, batch_sampler=BatchSampler(RandomSampler(dataset), batch_size, drop))


def _not_shuffled(dataset, batch_size):
    return DataLoader(dataset, batch_size=batch_size, drop_last=True)


def _larger_batches(dataset, batch_size):
    return DataLoader(dataset, batch_size=batch_size + 1, shuffle=True)


def _smaller_batches(dataset, batch_size):
    return DataLoader(dataset, batch_size=batch_size - 1, shuffle=True)


def _without_the_last_images(dataset, batch_size):
    some_of_them = torch.utils.data.Subset(dataset, range(len(dataset) - 4))
    return DataLoader(some_of_them, batch_size=batch_size, shuffle=True, drop_last=True)


def _drop_the_wrong_ones(dataset, batch_size):
    return DataLoader(dataset, batch_size=batch_size, shuffle=True, drop_last=len(dataset) % batch_size != 1)


@exercise(
    check=check_make_loader,
    broken=_every_last_batch,
    hints=[
        "How many images has the last batch, with 9 images and a batch size of 4?",
        "A `DataLoader` can leave out a last batch that is not full. `shuffle=True` leaves out others each time.",
        "`drop_last=...` takes True or False: ask for the remainder with `%`.",
    ],
    also_right=[_drop_always, _by_sampler],
    mistakes=[
        Mistake(_not_shuffled, says="in the same order"),
        Mistake(_larger_batches, says="one batch has 5"),
        Mistake(_smaller_batches, says="the last batch has one image"),
        Mistake(_without_the_last_images, says="images are missing"),
        Mistake(_drop_the_wrong_ones, says="the last batch has one image"),
    ],
    remember="A batch of one has no variance. `drop_last=True` suits training, never for validation.",
)
def make_loader(dataset: torch.utils.data.Dataset, batch_size: int) -> torch.utils.data.DataLoader:
    """Repair: return a loader for training whose epochs never end in a batch of one image.

    Batch norm after a global pooling refuses such a batch, in the last step of the first epoch. The images come
    in a new order in each epoch, `batch_size` at a time; a shorter last batch may be left out.
    """
    one_is_left = len(dataset) % batch_size == 1
    return torch.utils.data.DataLoader(dataset, batch_size=batch_size, shuffle=True, drop_last=one_is_left)
