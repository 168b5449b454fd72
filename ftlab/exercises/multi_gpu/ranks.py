"""What each rank does: its images, its epochs, its calls, and what it wraps."""

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ftlab.exercises.behaviour import below, some
from ftlab.exercises.core import Mistake, Wrong, exercise
from ftlab.exercises.multi_gpu.group import process_group


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


def check_thaw_under_ddp(answer):
    """Which parameters get a gradient in a step, and which of these DDP sends to the other ranks."""
    with process_group():
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        model[0].requires_grad_(False)
        ddp = DistributedDataParallel(model)
        found = answer(ddp, model[0])
        _expect_ddp(found, model)
        sent: set[str] = set()
        names = {id(parameter): name for name, parameter in model.named_parameters()}

        def note(_, bucket):
            sent.update(names[id(parameter)] for parameter in bucket.parameters())
            future = torch.futures.Future()
            future.set_result(bucket.buffer())
            return future

        found.register_comm_hook(None, note)
        found(torch.randn(5, 3)).square().sum().backward()
        learns = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
        del found, ddp
        _expect_sent(learns, sent, model)


def _expect_ddp(found, model: nn.Module) -> None:
    if not isinstance(found, DistributedDataParallel):
        kind = type(found).__name__
        raise Wrong(
            f"You gave a `{kind}`: its gradients meet nowhere.", ask="What shall the training go on with?"
        )
    if isinstance(found.module, DistributedDataParallel):
        raise Wrong(
            "There is a wrapper in the wrapper: names begin with `module.module.`.", ask="What should be wrapped?"
        )
    if found.module is not model:
        raise Wrong("What is wrapped is not the model that was.", ask="Which parameters does the optimizer know?")


def _expect_sent(learns: set[str], sent: set[str], model: nn.Module) -> None:
    if still := below(model, "0") - learns:
        raise Wrong(
            f"{some(still)} of `part` got no gradient.", ask="Which flag decides that, and when is it read?"
        )
    if apart := learns - sent:
        text = f"{some(apart)} got a gradient on this rank, and DDP did not send it: each rank now has its own."
        raise Wrong(text, ask="When does DDP find out which parameters there are to be sent?")
    if quiet := {name for name, _ in model.named_parameters()} - learns:
        raise Wrong(f"{some(quiet)} got no gradient any more.", ask="What else was switched off?")


def _wrap_with_options(ddp, part):
    model = ddp.module
    for parameter in part.parameters():
        parameter.requires_grad = True
    return nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)


def _flag_only(ddp, part):
    part.requires_grad_(True)
    return ddp


def _wrap_before_the_flag(ddp, part):
    fresh = nn.parallel.DistributedDataParallel(ddp.module)
    part.requires_grad_(True)
    return fresh


def _wrap_the_wrapper(ddp, part):
    part.requires_grad_(True)
    return nn.parallel.DistributedDataParallel(ddp)


def _the_inside(ddp, part):
    part.requires_grad_(True)
    return ddp.module


def _wrap_again_without_the_flag(ddp, part):
    part.requires_grad = True
    return nn.parallel.DistributedDataParallel(ddp.module)


def _a_copy_of_the_model(ddp, part):
    import copy

    part.requires_grad_(True)
    return nn.parallel.DistributedDataParallel(copy.deepcopy(ddp.module))


def _thaw_and_freeze_the_rest(ddp, part):
    ddp.module.requires_grad_(False)
    part.requires_grad_(True)
    return nn.parallel.DistributedDataParallel(ddp.module)


@exercise(
    check=check_thaw_under_ddp,
    broken=_flag_only,
    hints=[
        "DDP looks at `requires_grad` of every parameter once. When?",
        "What it did not see then, it does not send. Make it look again.",
        "`ddp.module` is the model; wrap it anew, after the flag was set.",
    ],
    also_right=[_wrap_with_options],
    mistakes=[
        Mistake(_wrap_before_the_flag, says="DDP did not send it: each rank now has its own"),
        Mistake(_wrap_the_wrapper, says="a wrapper in the wrapper"),
        Mistake(_the_inside, says="its gradients meet nowhere"),
        Mistake(_wrap_again_without_the_flag, says="of `part` got no gradient"),
        Mistake(_a_copy_of_the_model, says="is not the model that was"),
        Mistake(_thaw_and_freeze_the_rest, says="got no gradient any more"),
    ],
    remember="Freeze and thaw first, then wrap; after every change of flags wrap anew.",
)
def thaw_under_ddp(
    ddp: nn.parallel.DistributedDataParallel, part: nn.Module
) -> nn.parallel.DistributedDataParallel:
    """Repair: thaw `part` of the model in `ddp`, and return what all ranks go on training through, in step."""
    part.requires_grad_(True)
    return nn.parallel.DistributedDataParallel(ddp.module)


_HANGS = "it waits for ranks that never come, and hangs"
_TWICE = "several processes do the same thing in the same place at once"
_WHO = {  # who makes the call, and what happens otherwise
    "ddp(images)": ("every rank", _HANGS),
    "torch.save(ddp.module.state_dict(), path)": ("rank 0", _TWICE),
    "dcp.save(state, checkpoint_id=folder)": ("every rank", _HANGS),
    "dist.barrier()": ("every rank", _HANGS),
    "sampler.set_epoch(epoch)": ("every rank", "the ranks shuffle differently, and their shares overlap"),
    "print(accuracy)": ("rank 0", _TWICE),
}


def check_who_calls(answer):
    """Your choice for each of the six calls. The two that hang are shown in the lesson."""
    value = answer()
    if not isinstance(value, dict) or set(value) != set(_WHO):
        missing = set(_WHO) - set(value) if isinstance(value, dict) else set(_WHO)
        text = f"Of the six calls of the task, {len(missing)} are not in what you gave."
        raise Wrong(text, ask="Are they written as in the task?")
    if strange := {str(who) for who in value.values()} - {"rank 0", "every rank"}:
        raise Wrong(f"{some(strange)} is none of the two choices.", ask='Is it "rank 0" or "every rank"?')
    for call, (who, otherwise) in _WHO.items():
        if value[call] != who:
            ask = "Does this call need something from the other ranks?"
            raise Wrong(
                f"`{call}` on {value[call]}{' only' if who == 'every rank' else ''}: {otherwise}.", ask=ask
            )


def _every_rank_unless_it_writes():
    calls = ("ddp(images)", "dcp.save(state, checkpoint_id=folder)", "dist.barrier()", "sampler.set_epoch(epoch)")
    chosen = dict.fromkeys(calls, "every rank")
    return chosen | {"torch.save(ddp.module.state_dict(), path)": "rank 0", "print(accuracy)": "rank 0"}


def _saving_is_for_rank_0():
    return _every_rank_unless_it_writes() | {"dcp.save(state, checkpoint_id=folder)": "rank 0"}


def _everybody_saves():
    return _every_rank_unless_it_writes() | {"torch.save(ddp.module.state_dict(), path)": "every rank"}


def _rank_0_shuffles():
    return _every_rank_unless_it_writes() | {"sampler.set_epoch(epoch)": "rank 0"}


def _rank_0_validates():
    return _every_rank_unless_it_writes() | {"ddp(images)": "rank 0"}


def _a_barrier_for_one():
    return _every_rank_unless_it_writes() | {"dist.barrier()": "rank 0"}


def _a_list():
    return ["every rank"] * 6


@exercise(
    check=check_who_calls,
    hints=[
        "Ask of each call: does it need something from the other ranks? Then all must make it.",
        "A barrier, a forward pass of DDP in train mode and a sharded save all talk to the other ranks.",
        "What only writes a result that all ranks have alike is for rank 0.",
    ],
    also_right=[_every_rank_unless_it_writes],
    mistakes=[
        Mistake(_saving_is_for_rank_0, says="`dcp.save(state, checkpoint_id=folder)` on rank 0 only: it waits"),
        Mistake(_everybody_saves, says="several processes do the same thing in the same place"),
        Mistake(_rank_0_shuffles, says="their shares overlap"),
        Mistake(_rank_0_validates, says="`ddp(images)` on rank 0 only: it waits"),
        Mistake(_a_barrier_for_one, says="`dist.barrier()` on rank 0 only: it waits"),
        Mistake(_a_list, says="6 are not in what you gave"),
    ],
    remember="Collective calls are for every rank; writing what all have alike is for rank 0.",
)
def who_calls() -> dict[str, str]:
    """Choose who makes each call in a training with DDP: "rank 0" or "every rank". Return a dictionary.

    Its keys, as they stand here: "ddp(images)" in train mode, "torch.save(ddp.module.state_dict(), path)",
    "dcp.save(state, checkpoint_id=folder)" of a sharded model, "dist.barrier()", "sampler.set_epoch(epoch)" and
    "print(accuracy)" of an accuracy that was summed over all ranks.
    """
    return {
        "ddp(images)": "every rank",
        "torch.save(ddp.module.state_dict(), path)": "rank 0",
        "dcp.save(state, checkpoint_id=folder)": "every rank",
        "dist.barrier()": "every rank",
        "sampler.set_epoch(epoch)": "every rank",
        "print(accuracy)": "rank 0",
    }
