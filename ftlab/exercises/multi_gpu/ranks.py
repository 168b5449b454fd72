"""Exercises on ranks: what each must know when a part is thawed, and who makes which call."""

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ftlab.exercises.behaviour import below, some
from ftlab.exercises.core import Mistake, Wrong, exercise
from ftlab.exercises.multi_gpu.group import process_group


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
