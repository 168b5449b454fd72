"""What lesson 10 says about several processes and their checkpoints.

What needs two processes is looked at in one launch: its results are kept, and each probe reads its own.
"""

import copy
import functools
from collections.abc import Callable
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.utils.data import DistributedSampler

from ftlab.multi_gpu import agreement, launch
from ftlab.probes import probe


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))


def _batch() -> torch.Tensor:
    """Return the same batch of 12 in every process."""
    return torch.randn(12, 4, generator=torch.Generator().manual_seed(0))


def _mine(batch: torch.Tensor) -> torch.Tensor:
    return batch[dist.get_rank() :: dist.get_world_size()]


def _steps(wrapper: nn.Module, batch: torch.Tensor, count: int = 3) -> None:
    optimizer = torch.optim.SGD(wrapper.parameters(), lr=0.1)
    for _ in range(count):
        optimizer.zero_grad()
        wrapper(batch).square().mean().backward()
        optimizer.step()


def _error(function: Callable[[], Any]) -> str:
    try:
        function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


# --- two processes, one launch


def _train(frozen_before: bool = False, frozen_after: bool = False, **options: Any) -> dict[str, float]:
    model = _net()
    model[0].requires_grad_(not frozen_before)
    wrapper = DistributedDataParallel(model, **options)
    model[0].requires_grad_(not frozen_after)
    _steps(wrapper, _mine(_batch()))
    return agreement(model).differing


def _gradient(model: nn.Module, wrapper: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    wrapper(batch).square().mean().backward()
    return model[0].weight.grad.clone()


def _gradients() -> dict[str, Any]:
    model = _net()
    wrapper = DistributedDataParallel(model)
    plain = _net()
    whole = _gradient(plain, plain, _batch())
    rank = dist.get_rank()
    uneven = _batch()[:4] if rank == 0 else _batch()[4:]
    inner_model = _net()
    inner = DistributedDataParallel(inner_model)
    _gradient(inner_model, inner_model, _mine(_batch()))  # the wrapper is not called
    return {
        "even": torch.allclose(_gradient(model, wrapper, _mine(_batch())), whole, atol=1e-6),
        "uneven": torch.allclose(_gradient(model, wrapper, uneven), whole, atol=1e-6),
        "inner": bool(agreement(inner, gradients=True).differing),
    }


def _batch_norm() -> dict[str, Any]:
    norm = nn.BatchNorm1d(4, momentum=1.0)
    wrapper = DistributedDataParallel(norm)
    part = _mine(_batch()) + dist.get_rank()
    wrapper(part).sum().backward()
    return {
        "statistics differ": set(agreement(norm).differing),
        "own part": torch.allclose(norm.running_mean, part.mean(0), atol=1e-6),
        **_by_hand(),
        "synchronized": _error(lambda: nn.SyncBatchNorm.convert_sync_batchnorm(_with_norm())(part)),
    }


def _by_hand() -> dict[str, bool]:
    """Compare this rank's part of a batch, normalized in two ways, with the whole batch in one process."""
    here = slice(0, 4) if dist.get_rank() == 0 else slice(4, 12)
    mine, whole = _batch()[here], nn.BatchNorm1d(4)(_batch())[here]
    sums = torch.stack([mine.sum(0), mine.square().sum(0), torch.full((4,), float(len(mine)))])
    dist.all_reduce(sums)
    mean, squares = sums[0] / sums[2], sums[1] / sums[2]
    common = (mine - mean) / (squares - mean.square() + 1e-5).sqrt()
    return {
        "own is whole": torch.allclose(nn.BatchNorm1d(4)(mine), whole, atol=1e-5),
        "common is whole": torch.allclose(common, whole, atol=1e-5),
    }


def _with_norm() -> nn.Module:
    return nn.Sequential(nn.BatchNorm1d(4))


class _TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.used(x)


def _look() -> dict[str, Any]:
    torch.manual_seed(dist.get_rank())
    model = nn.Linear(3, 1)
    began_apart = bool(agreement(model).differing)
    DistributedDataParallel(model)
    heads = [DistributedDataParallel(_TwoHeads(), find_unused_parameters=find) for find in (False, True)]
    return {
        "began apart": began_apart,
        "joined by wrapping": not agreement(model).differing,
        "frozen before": _train(frozen_before=True, frozen_after=True),
        "frozen after": _error(lambda: _train(frozen_after=True)),
        "frozen after, one step": _error(lambda: _frozen_one_step()),
        "frozen after, unused": _train(frozen_after=True, find_unused_parameters=True),
        "unfrozen after": _train(frozen_before=True),
        "unused": _error(lambda: _steps(heads[0], _mine(_batch()))),
        "unused found": _error(lambda: _steps(heads[1], _mine(_batch()))),
        **_gradients(),
        **_batch_norm(),
    }


def _frozen_one_step() -> None:
    model = _net()
    wrapper = DistributedDataParallel(model)
    model[0].requires_grad_(False)
    _steps(wrapper, _mine(_batch()), count=1)


@functools.cache
def _seen() -> dict[str, Any]:
    return launch(_look, nproc=2, device="cpu", show=None)[0]


@probe("DDP gives every rank the parameters of rank 0 when a model is wrapped.")
def wrapping_joins() -> bool:
    return _seen()["began apart"] and _seen()["joined by wrapping"]


@probe("With shares of equal size, DDP's gradient is that of one process on the whole batch.")
def ddp_is_the_whole_batch() -> bool:
    return _seen()["even"]


@probe("With shares of unequal size, DDP's gradient is not that of the whole batch: ranks count, not images.")
def uneven_shares_count_wrong() -> bool:
    return not _seen()["uneven"]


@probe("A forward pass through `ddp.module` instead of `ddp` leaves each rank with its own gradient, silently.")
def inner_forward_is_not_averaged() -> bool:
    return _seen()["inner"]


@probe("Frozen before wrapping, DDP trains the rest, and the ranks agree.")
def frozen_before_is_fine() -> bool:
    return _seen()["frozen before"] == {}


@probe("Frozen after wrapping, the first step of DDP goes well and the second raises.")
def frozen_after_raises() -> bool:
    return not _seen()["frozen after, one step"] and "finished reduction" in _seen()["frozen after"]


@probe("Frozen after wrapping, `find_unused_parameters=True` lets DDP go on, and the ranks agree.")
def unused_parameters_are_found() -> bool:
    return _seen()["frozen after, unused"] == {}


@probe("Unfrozen after wrapping, a layer differs between the ranks, and nothing is said.")
def unfrozen_after_differs() -> bool:
    return set(_seen()["unfrozen after"]) == {"0.weight", "0.bias"}


@probe("A part that takes no part in the loss makes DDP raise, unless it is told to find such parts.")
def unused_parts_raise() -> bool:
    return "finished reduction" in _seen()["unused"] and _seen()["unused found"] == ""


@probe("Under DDP each rank's batch norm has the statistics of its own images.")
def statistics_differ() -> bool:
    return _seen()["own part"] and {"running_mean", "running_var"} <= _seen()["statistics differ"]


@probe("With three all-reduced sums per channel, batch norm on several ranks is that of the whole batch.")
def sums_are_enough() -> bool:
    return _seen()["common is whole"] and not _seen()["own is whole"]


@probe("SyncBatchNorm refuses to train on the CPU.")
def synchronized_needs_a_gpu() -> bool:
    return "expected input tensor to be on GPU" in _seen()["synchronized"]


# --- one process


@contextmanager
def _alone():
    """Make a process group of this process only."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


@probe(
    "DataParallel and DistributedDataParallel put `module.` in front of every name, torch.compile `_orig_mod.`."
)
def wrappers_rename() -> bool:
    with _alone():
        first = [next(iter(wrap(_net()).state_dict())) for wrap in (DataParallel, DistributedDataParallel)]
    return (
        first == ["module.0.weight"] * 2
        and next(iter(torch.compile(_net()).state_dict())) == "_orig_mod.0.weight"
    )


@probe("What a wrapper wraps is the model itself, not a copy.")
def wrapper_holds_the_model() -> bool:
    model = _net()
    return DataParallel(model).module is model


@probe("Wrapping first and loading a file without prefixes afterwards raises.")
def wrap_then_load_raises() -> bool:
    return "Missing key" in _error(lambda: DataParallel(_net()).load_state_dict(_net().state_dict()))


@probe("With `strict=False` a file with the prefix loads nothing, and no error is raised.")
def not_strict_loads_nothing() -> bool:
    model = _net()
    before = copy.deepcopy(model.state_dict())
    other = DataParallel(copy.deepcopy(model).requires_grad_(False))
    for parameter in other.parameters():
        parameter += 1
    loaded = model.load_state_dict(other.state_dict(), strict=False)
    same = all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return same and len(loaded.missing_keys) == len(before)


@probe(
    "A model that was trained by DDP loads into a plain model if its inner model was saved: no wrapper is needed."
)
def no_wrapper_is_needed() -> bool:
    with _alone():
        saved = DistributedDataParallel(_net()).module.state_dict()
    return str(_net().load_state_dict(saved)) == "<All keys matched successfully>"


@probe("`model.module` of a model that is not wrapped raises, whatever the number of GPUs.")
def machine_is_the_wrong_question() -> bool:
    return "AttributeError" in _error(lambda: _net().module)


@probe("DDP refuses a model in which everything is frozen.")
def all_frozen_is_refused() -> bool:
    with _alone():
        return "any parameter that requires a gradient" in _error(
            lambda: DistributedDataParallel(_net().requires_grad_(False))
        )


@probe("A collective operation on gloo waits half an hour for a missing rank, unless it is told otherwise.")
def half_an_hour() -> bool:
    with _alone():
        group = dist.distributed_c10d._get_default_group()
        return group._get_backend(torch.device("cpu")).options._timeout == timedelta(minutes=30)


@probe("Without a GPU, DataParallel calls the model as it is, even if it is told of devices.")
def data_parallel_passes_through() -> bool:
    if torch.cuda.is_available():
        return True  # then there is nothing to pass through
    model = _net()
    return torch.equal(DataParallel(model, device_ids=[0, 1])(_batch()), model(_batch()))


@probe("The documentation of DataParallel itself recommends DistributedDataParallel.")
def documentation_recommends_ddp() -> bool:
    return "recommended to use :class:`~torch.nn.parallel.DistributedDataParallel`" in DataParallel.__doc__


@probe("Without `set_epoch`, DistributedSampler gives the same order in every epoch.")
def same_order_without_set_epoch() -> bool:
    sampler = DistributedSampler(range(20), num_replicas=2, rank=0)
    first = list(sampler)
    again = list(sampler)
    sampler.set_epoch(1)
    return first == again != list(sampler)


@probe("DistributedSampler gives 10 images to 4 ranks as 12: two of them twice.")
def sampler_pads() -> bool:
    given = [
        i for rank in range(4) for i in DistributedSampler(range(10), num_replicas=4, rank=rank, shuffle=False)
    ]
    return len(given) == 12 and len(set(given)) == 10


@probe(
    "After `fully_shard` the parameters have new objects: an optimizer that was made before holds the old ones."
)
def sharding_replaces_parameters() -> bool:
    from torch.distributed.fsdp import fully_shard

    with _alone():
        model = nn.Linear(2, 1)
        before = model.weight
        return (
            fully_shard(model) is model
            and model.weight is not before
            and list(model.state_dict()) == ["weight", "bias"]
        )
