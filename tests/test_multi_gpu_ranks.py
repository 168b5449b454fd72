"""Training with several processes, and checkpoints that other numbers of processes read."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from ftlab.multi_gpu import EachOnceSampler, agreement, device, launch, sharded, unwrap

IMAGES = torch.randn(12, 5, generator=torch.Generator().manual_seed(1))
TARGETS = torch.arange(12) % 3


def net(frozen=True):
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    model[0].requires_grad_(not frozen)
    return model


def adam(model):
    return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)


def steps(model, optimizer, count, rank, world_size):
    for _ in range(count):
        optimizer.zero_grad()
        logits = model(IMAGES[rank::world_size].to(next(model.parameters()).device))
        nn.functional.cross_entropy(logits.cpu(), TARGETS[rank::world_size]).backward()
        optimizer.step()


def values(model):
    return {name: value.cpu() for name, value in model.state_dict().items()}


# --- DDP, three processes


def ddp_rank(path):
    rank, world_size = dist.get_rank(), dist.get_world_size()
    model = net().to(device())
    wrapper = DistributedDataParallel(model)
    optimizer = adam(model)
    steps(wrapper, optimizer, 4, rank, world_size)
    apart = agreement(wrapper).differing
    if rank == 0:
        torch.save(unwrap(wrapper).state_dict(), path)
    dist.barrier()  # nobody reads before it is written
    loaded = torch.load(path)
    dataset = TensorDataset(torch.arange(10))
    sampler = DistributedSampler(dataset)
    epochs = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        epochs.append([int(i) for (batch,) in DataLoader(dataset, batch_size=2, sampler=sampler) for i in batch])
    count = torch.tensor([0, 0], device=device())
    with torch.no_grad():
        for i in EachOnceSampler(len(IMAGES) - 1, rank, world_size):
            count += torch.tensor(
                [int(unwrap(wrapper)(IMAGES[i : i + 1].to(device())).argmax() == TARGETS[i]), 1]
            )
    dist.all_reduce(count)
    dist.barrier()
    trained = copy.deepcopy(values(model))
    with torch.no_grad():
        model[2].bias[0] = rank
    return trained, apart, list(loaded), epochs, count.tolist(), agreement(model).differing


def test_three_processes_train_as_one_does(tmp_path):
    results = launch(ddp_rank, tmp_path / "model.pt", nproc=3, show=None)
    alone = net()
    steps(alone, adam(alone), 4, 0, 1)
    for name, value in values(alone).items():
        mine = results[0][0][name]
        torch.testing.assert_close(mine, value, msg=name)
        if name.startswith("0."):
            assert torch.equal(mine, net().state_dict()[name])  # frozen
    assert [apart for _, apart, *_ in results] == [{}] * 3
    assert results[0][2] == list(alone.state_dict())  # no prefix in the file
    for epoch in range(2):
        given = sorted(i for result in results for i in result[3][epoch])
        assert len(given) == 12
        assert set(given) == set(range(10))
    assert results[0][3][0] != results[0][3][1]
    with torch.no_grad():
        right = int((alone(IMAGES[:-1]).argmax(1) == TARGETS[:-1]).sum())
    assert [result[4] for result in results] == [[right, 11]] * 3
    assert [result[5] for result in results] == [{"2.bias": 2.0}] * 3  # the largest difference between two ranks


# --- FSDP2, and its checkpoints


def save_sharded(folder):
    model = sharded.shard(net().to(device()))
    optimizer = adam(model)
    steps(model, optimizer, 3, dist.get_rank(), dist.get_world_size())
    sharded.save(folder, model, optimizer)
    return sharded.whole_state_dict(model), sharded.rows_here(model).to_dict()


def load_sharded(folder, more):
    model = sharded.shard(net().to(device()))
    optimizer = adam(model)
    sharded.load(folder, model, optimizer)
    loaded = sharded.whole_state_dict(model)
    steps(model, optimizer, more, dist.get_rank(), dist.get_world_size())
    return loaded, sharded.whole_state_dict(model)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Train 3 steps with two processes and save; also, the same steps in one."""
    folder = tmp_path_factory.mktemp("sharded") / "checkpoint"
    results = launch(save_sharded, folder, show=None)
    alone = net()
    optimizer = adam(alone)
    steps(alone, optimizer, 3, 0, 1)
    after_3 = copy.deepcopy(alone.state_dict())
    steps(alone, optimizer, 2, 0, 1)
    return folder, results, after_3, alone.state_dict()


def assert_same(got, expected):
    assert list(got) == list(expected)
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], msg=name)


def test_each_rank_has_some_rows_and_rank_0_can_have_all(saved):
    _, ((whole, rows_0), (nothing, rows_1)), after_3, _ = saved
    assert_same(whole, after_3)
    assert nothing == {}
    assert [row["whole"] for row in rows_0] == ["(7, 5)", "(7,)", "(3, 7)", "(3,)"]
    assert [row["here"] for row in rows_0] == ["(4, 5)", "(4,)", "(2, 7)", "(2,)"]
    assert [row["here"] for row in rows_1] == ["(3, 5)", "(3,)", "(1, 7)", "(1,)"]


def test_saved_by_two_processes_loaded_by_three(saved):
    folder, _, after_3, after_5 = saved
    loaded, went_on = launch(load_sharded, folder, 2, nproc=3, show=None)[0]
    assert_same(loaded, after_3)
    assert_same(went_on, after_5)


def test_saved_by_two_processes_loaded_by_a_plain_one(saved):
    folder, _, after_3, after_5 = saved
    model = net()
    optimizer = adam(model)
    sharded.load(folder, model, optimizer)
    assert_same(model.state_dict(), after_3)
    steps(model, optimizer, 2, 0, 1)
    assert_same(model.state_dict(), after_5)


def test_to_one_file_and_back(saved, tmp_path):
    folder, _, after_3, _ = saved
    sharded.to_file(folder, tmp_path / "one.pt")
    file = torch.load(tmp_path / "one.pt")
    assert_same(file["model"], after_3)
    assert list(file["optimizer"]["state"]) == ["2.weight", "2.bias"]  # by name; nothing of the frozen ones
    sharded.to_folder(tmp_path / "one.pt", tmp_path / "again")
    model = net()
    sharded.load(tmp_path / "again", model, adam(model))
    assert_same(model.state_dict(), after_3)


def test_a_model_thawed_meanwhile_is_told_what_is_missing(saved):
    model = net(frozen=False)
    before, optimizer = copy.deepcopy(model.state_dict()), adam(model)
    with pytest.raises(ValueError, match=r"has no 'optimizer.state.0.weight.step'. Were its parameters frozen"):
        sharded.load(saved[0], model, optimizer)
    assert_same(model.state_dict(), before)
    assert not optimizer.state


def test_another_model_is_told_what_is_missing(saved, tmp_path):
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 4))
    with pytest.raises(ValueError, match=r"does not fit: Size mismatch .* for model.2.weight"):
        sharded.load(saved[0], model, adam(model))
    with pytest.raises(FileNotFoundError, match=r"no checkpoint in .*nowhere"):
        sharded.load(tmp_path / "nowhere", model, adam(model))
