"""What needs no second process: unwrapping, DataParallel by hand, shares of the images, the preflight."""

import copy
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.utils.data import DistributedSampler

from ftlab.multi_gpu import (
    DataParallelByHand,
    EachOnceSampler,
    data_parallel_steps,
    preflight,
    shares,
    strip_prefixes,
    unwrap,
)
from ftlab.multi_gpu.data_parallel import gather, replicate, scatter
from ftlab.multi_gpu.preflight import _fork_hangs


@pytest.fixture
def alone():
    """A process group of this process only."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def net():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


# --- unwrap


def test_every_nesting_is_unwrapped_to_the_model_itself(alone):
    wrappers = [DataParallel, DistributedDataParallel, torch.compile]
    for outer in wrappers:
        for inner in wrappers:
            if outer is inner is torch.compile:
                continue  # that gives a plain function, which is no model any more
            model = net()
            wrapped = outer(inner(model))
            assert unwrap(wrapped) is model
            assert strip_prefixes(wrapped.state_dict()).keys() == model.state_dict().keys()
            del wrapped  # DDP's must be gone before the group


def test_a_sharded_model_is_no_wrapper(alone):
    from ftlab.multi_gpu.sharded import shard

    model = net()
    names = list(model.state_dict())
    assert shard(model) is model
    assert unwrap(model) is model
    assert unwrap(torch.compile(model)) is model
    assert list(model.state_dict()) == names


def test_a_model_with_a_part_called_module_is_left_alone():
    model = nn.Module()
    model.module = nn.Linear(2, 1)
    assert unwrap(model) is model


def test_a_compiled_layer_inside_loses_its_prefix_too():
    model = net()
    names = list(model.state_dict())
    model[0] = torch.compile(model[0])
    assert list(model.state_dict()) != names
    assert list(strip_prefixes(DataParallel(model).state_dict())) == names


def test_names_that_collide_are_refused_and_nothing_is_changed():
    given = {"module.fc.weight": 1, "fc.weight": 2}
    with pytest.raises(ValueError, match=r"both 'fc.weight' and another entry are 'fc.weight' without prefixes"):
        strip_prefixes(given)
    assert given == {"module.fc.weight": 1, "fc.weight": 2}


# --- DataParallel by hand


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_the_gradient_is_that_of_the_whole_batch(count):
    model = net()
    x, y = torch.randn(5, 4), torch.tensor([0, 1, 2, 1, 0])
    nn.functional.cross_entropy(model(x), y).backward()
    whole = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    nn.functional.cross_entropy(DataParallelByHand(model, ["cpu"] * count)(x), y).backward()
    for parameter, expected in zip(model.parameters(), whole, strict=True):
        torch.testing.assert_close(parameter.grad, expected)


def test_tied_parameters_get_the_gradients_of_both_places():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    x = torch.randn(4, 3)
    model(x).square().sum().backward()
    whole = model[0].weight.grad.clone()
    model.zero_grad()
    DataParallelByHand(model, ["cpu", "cpu"])(x).square().sum().backward()
    torch.testing.assert_close(model[0].weight.grad, whole)


def test_scatter_cuts_like_the_real_one():
    for length in range(1, 9):
        for count in range(1, 6):
            cut = scatter(torch.arange(length), ["cpu"] * count)
            assert [part.tolist() for part in cut] == [
                part.tolist() for part in torch.arange(length).chunk(count)
            ]
            assert torch.equal(gather(cut, "cpu"), torch.arange(length))


def test_only_the_first_part_moves_the_statistics_and_what_forward_writes_is_lost():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.calls = nn.BatchNorm1d(2, momentum=1.0), 0

        def forward(self, x):
            self.calls += 1
            return self.norm(x)

    model = Counting()
    batch = torch.cat([torch.randn(4, 2), torch.randn(4, 2) + 100])
    out = DataParallelByHand(model, ["cpu", "cpu"])(batch)
    torch.testing.assert_close(model.norm.running_mean, batch[:4].mean(0))
    assert model.calls == 0
    assert out.abs().max() < 3  # each part was normalised by its own mean
    assert model(batch).abs().max() < 3
    assert not torch.allclose(model(batch), out)  # so the batch as a whole gives something else


def test_no_grad_reaches_the_threads():
    with torch.no_grad():
        assert not DataParallelByHand(net(), ["cpu", "cpu"])(torch.randn(4, 4)).requires_grad


def test_a_copy_has_no_parameters_of_its_own():
    model = net()
    (replica,) = replicate(model, ["cpu"])
    assert list(replica.parameters()) == []
    assert not replica[0].weight.is_leaf


def test_the_steps_add_up_and_the_model_is_as_before():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    model[0].requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    x, y = torch.randn(5, 4), torch.tensor([0, 1, 2, 1, 0])
    steps = data_parallel_steps(model, x, y, ["cpu"] * 2)
    assert steps.parts == (3, 2)
    assert steps.total <= sum(steps.norms) + 1e-6
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    rows = steps.table().to_dict()
    assert [row["where"] for row in rows] == ["copy 0", "copy 1", "model on cpu"]
    assert rows[-1]["images"] == 5


def test_no_device_is_refused():
    with pytest.raises(ValueError, match=r"name at least one, as in \['cpu', 'cpu'\]"):
        DataParallelByHand(net(), [])


# --- shares of the images


def test_the_shares_are_those_of_the_sampler_and_are_counted():
    found = shares(10, 4, epochs=3)
    for epoch in range(3):
        for rank in range(4):
            sampler = DistributedSampler(range(10), num_replicas=4, rank=rank)
            sampler.set_epoch(epoch)
            assert found.epochs[epoch][rank] == tuple(sampler)
    assert found.padding == 2
    assert found.dropped == 0
    assert not found.same_order
    assert "2 of 10 images are gone through twice" in repr(found)


def test_without_set_epoch_every_epoch_has_the_same_order():
    found = shares(8, 2, epochs=3, set_epoch=False)
    assert found.same_order
    assert found.padding == 0
    assert "every epoch has the same order" in repr(found)


def test_drop_last_leaves_images_out():
    found = shares(10, 4, drop_last=True)
    assert (found.padding, found.dropped) == (0, 2)
    assert "2 of 10 images are left out" in repr(found)


@pytest.mark.parametrize(("length", "world_size"), [(1, 3), (5, 2), (6, 3), (10, 4)])
def test_each_once_gives_every_image_to_one_rank(length, world_size):
    samplers = [EachOnceSampler(length, rank, world_size) for rank in range(world_size)]
    assert sorted(index for sampler in samplers for index in sampler) == list(range(length))
    assert max(map(len, samplers)) - min(map(len, samplers)) <= 1


def test_shares_of_nothing_are_refused():
    with pytest.raises(ValueError, match="at least one image and one rank, not 0 and 2"):
        shares(0, 2)
    with pytest.raises(ValueError, match="rank is a number from 0 to 1, not 2"):
        EachOnceSampler(5, 2, 2)


# --- preflight


def test_preflight_changes_nothing_and_says_what_this_process_is():
    state = torch.get_rng_state()
    found = preflight()
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.cuda.is_initialized()
    assert found.torch_threads == torch.get_num_threads()
    assert "gloo" in found.backends
    assert found.to_dict()["ways"]["launch"]["works"]
    assert found.advice in repr(found)


FORK = """
import torch
from ftlab.multi_gpu import preflight
before = preflight()
torch.ones(1 << 20).add_(1)  # the threads begin here
after = preflight()
assert before.ways[0].works, before
assert not after.ways[0].works, after
assert "waits for them for ever" in after.advice
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it is GNU's thread library that a fork breaks")
def test_a_fork_hangs_once_the_threads_were_used(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    subprocess.run([sys.executable, "-c", FORK], check=True, timeout=600)
    assert not _fork_hangs()  # here torch has one thread


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="this system cannot wait for a process and leave it")
def test_a_fork_that_ends_while_this_process_waits_for_a_processor_does_not_hang(monkeypatch):
    fork, forked, now = os.fork, [], [0.0]

    def noted_fork():
        forked.append(fork())
        return forked[0]

    def sleep_too_long(seconds):
        os.waitid(os.P_PID, forked[0], os.WEXITED | os.WNOWAIT)
        now[0] += 1000

    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=sleep_too_long)
    monkeypatch.setattr(os, "fork", noted_fork)
    monkeypatch.setattr(sys.modules[_fork_hangs.__module__], "time", clock)
    assert not _fork_hangs()
