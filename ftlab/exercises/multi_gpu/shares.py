"""Exercises on the share of a rank: which images it validates, and which it trains on in each epoch."""

import torch

from ftlab.exercises.core import Mistake, Wrong, exercise


def check_validation_share(answer):
    """The shares of all ranks, for 10 images on 4 ranks, 6 on 3, 7 on 2, and 2 on 3."""
    for length, world_size in ((10, 4), (6, 3), (7, 2), (2, 3)):
        given = f"Of {length} images on {world_size} ranks"
        shares = [_as_positions(answer(length, rank, world_size)) for rank in range(world_size)]
        all_of_them = [index for share in shares for index in share]
        if outside := set(all_of_them) - set(range(length)):
            raise Wrong(f"{given}, image {max(outside)} was given out.", ask="What is the last position?")
        if twice := {index for index in all_of_them if all_of_them.count(index) > 1}:
            text = f"{given}, {len(all_of_them)} are measured: {len(twice)} of them more than once."
            raise Wrong(text, ask="What does that do to an accuracy?")
        if len(all_of_them) < length:
            text = f"{given}, {length - len(all_of_them)} are measured by nobody."
            raise Wrong(text, ask="What becomes of the rest of the division?")
        if max(map(len, shares)) - min(map(len, shares)) > 1:
            sizes = ", ".join(str(len(share)) for share in shares)
            raise Wrong(f"{given}, the shares have {sizes} images.", ask="For whom do all the others wait?")


def _as_positions(value) -> list[int]:
    try:
        return [int(index) for index in value]
    except TypeError:
        kind = type(value).__name__
        raise Wrong(f"You gave a `{kind}`, no positions.", ask="Which images shall this rank look at?") from None


def _by_slices(length, rank, world_size):
    return list(range(length))[rank::world_size]


def _by_remainder(length, rank, world_size):
    return [index for index in range(length) if index % world_size == rank]


def _by_bounds(length, rank, world_size):
    return list(range(rank * length // world_size, (rank + 1) * length // world_size))


def _the_sampler(length, rank, world_size):
    from torch.utils.data import DistributedSampler

    return list(DistributedSampler(range(length), num_replicas=world_size, rank=rank, shuffle=False))


def _equal_blocks(length, rank, world_size):
    size = length // world_size
    return list(range(rank * size, (rank + 1) * size))


def _rounded_up_blocks(length, rank, world_size):
    size = -(-length // world_size)
    return list(range(rank * size, (rank + 1) * size))


def _rest_to_the_last(length, rank, world_size):
    size = length // world_size
    return list(range(rank * size, length if rank == world_size - 1 else (rank + 1) * size))


def _everybody_everything(length, rank, world_size):
    return list(range(length))


def _a_number(length, rank, world_size):
    return length // world_size


@exercise(
    check=check_validation_share,
    hints=[
        "Write down 10 images and deal them out to 4 players. Who gets the last two?",
        "DistributedSampler gives out some images twice, so that the shares have the same length.",
        "`range(start, stop, step)`: begin at your own rank, and skip those of the others.",
    ],
    also_right=[_by_slices, _by_remainder, _by_bounds],
    mistakes=[
        Mistake(_the_sampler, says="Of 10 images on 4 ranks, 12 are measured"),
        Mistake(_equal_blocks, says="2 are measured by nobody"),
        Mistake(_rounded_up_blocks, says="was given out"),
        Mistake(_rest_to_the_last, says="the shares have 2, 2, 2, 4 images"),
        Mistake(_everybody_everything, says="10 of them more than once"),
        Mistake(_a_number, says="You gave a `int`, no positions"),
    ],
    remember="Measure every image once, and add up counts over the ranks, not accuracies.",
)
def validation_share(length: int, rank: int, world_size: int) -> list[int]:
    """Return the positions of the validation images of `rank`: over all ranks each one once, in shares alike."""
    return list(range(rank, length, world_size))


def check_epochs_of_rank(answer):
    """What four ranks go through in three epochs of 12 images: each image once an epoch, in a new order."""
    dataset = range(12)
    epochs = [_as_epochs(answer(dataset, rank, 4, 3)) for rank in range(4)]
    for epoch in range(3):
        given = [index for rank in range(4) for index in epochs[rank][epoch]]
        if sorted(given) != list(range(12)):
            missing = len(set(range(12)) - set(given))
            text = f"In epoch {epoch}, {missing} of 12 images are in no rank's share, others in several."
            raise Wrong(text, ask="What must be the same on every rank, so that their shares fit together?")
    if len({tuple(epoch) for epoch in epochs[0]}) < 3:
        text = f"Rank 0 goes through {' '.join(map(str, epochs[0][0]))} more than once, in the same order."
        raise Wrong(text, ask="What tells the sampler that a new epoch begins?")


def _as_epochs(value) -> list[list[int]]:
    try:
        epochs = [[int(index) for index in epoch] for epoch in value]
    except TypeError:
        epochs = []
    if len(epochs) != 3:
        raise Wrong("For 3 epochs you did not give 3 lists of positions.", ask="What is collected in the loop?")
    return epochs


def _never_said(dataset, rank, world_size, epochs):
    sampler = torch.utils.data.DistributedSampler(dataset, num_replicas=world_size, rank=rank)
    return [list(sampler) for _ in range(epochs)]


def _a_new_sampler_with_a_new_seed(dataset, rank, world_size, epochs):
    return [
        list(torch.utils.data.DistributedSampler(dataset, num_replicas=world_size, rank=rank, seed=epoch))
        for epoch in range(epochs)
    ]


def _a_new_sampler_each_time(dataset, rank, world_size, epochs):
    return [
        list(torch.utils.data.DistributedSampler(dataset, num_replicas=world_size, rank=rank))
        for _ in range(epochs)
    ]


def _said_after_the_loop(dataset, rank, world_size, epochs):
    sampler = torch.utils.data.DistributedSampler(dataset, num_replicas=world_size, rank=rank)
    orders = []
    for _ in range(epochs):
        orders.append(list(sampler))  # noqa: PERF401
    sampler.set_epoch(epochs)
    return orders


def _seed_of_the_rank(dataset, rank, world_size, epochs):
    sampler = torch.utils.data.DistributedSampler(dataset, num_replicas=world_size, rank=rank, seed=rank)
    orders = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    return orders


def _epoch_and_rank(dataset, rank, world_size, epochs):
    sampler = torch.utils.data.DistributedSampler(dataset, num_replicas=world_size, rank=rank)
    orders = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch + rank)
        orders.append(list(sampler))
    return orders


def _only_the_last(dataset, rank, world_size, epochs):
    sampler = torch.utils.data.DistributedSampler(dataset, num_replicas=world_size, rank=rank)
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
    return list(sampler)


@exercise(
    check=check_epochs_of_rank,
    broken=_never_said,
    hints=[
        "Call your function for two epochs. What differs?",
        "The sampler shuffles with its seed plus the number of the epoch. Who tells it that number?",
        "Call `sampler.set_epoch(epoch)` before the sampler is gone through.",
    ],
    also_right=[_a_new_sampler_with_a_new_seed],
    mistakes=[
        Mistake(_a_new_sampler_each_time, says="more than once, in the same order"),
        Mistake(_said_after_the_loop, says="more than once, in the same order"),
        Mistake(_seed_of_the_rank, says="are in no rank's share"),
        Mistake(_epoch_and_rank, says="are in no rank's share"),
        Mistake(_only_the_last, says="did not give 3 lists"),
    ],
    remember="`sampler.set_epoch(epoch)` at the start of each epoch, the same on every rank.",
)
def epochs_of_rank(dataset: range, rank: int, world_size: int, epochs: int) -> list[list[int]]:
    """Repair: return the positions that `rank` goes through in each epoch; each epoch shall have a new order."""
    sampler = torch.utils.data.DistributedSampler(dataset, num_replicas=world_size, rank=rank)
    orders = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    return orders
