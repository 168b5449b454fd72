"""check_loop on ten good loops: no false alarm, read or watched, and nothing changed."""

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ftlab.training import check_loop
from ftlab.training.linter.arguments import small_model
from tests.loops import (
    accumulating,
    blitz,
    gan,
    learner,
    manual,
    micro,
    mixed,
    quickstart,
    references,
    transfer,
)

LOOPS = sorted(path for path in (Path(__file__).parent / "loops").glob("*.py") if path.stem != "__init__")


def loader():
    images = torch.randn(18, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(images, torch.arange(18) % 3), batch_size=4)


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


def batch(_=None):
    return next(iter(loader()))


@pytest.mark.parametrize("path", LOOPS, ids=lambda path: path.stem)
def test_nothing_is_wrong_with_what_is_read(path):
    report = check_loop(path.read_text())
    assert report.ok, report


def watched():
    """Yield functions of the loops with what they need to run."""
    model = small_model()
    yield quickstart.train, {"model": model, "dataloader": loader(), "optimizer": sgd(model)}
    yield quickstart.main, {"train_dataloader": loader(), "test_dataloader": loader()}
    model = small_model()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer := sgd(model), 1)
    loaders = {"train": loader(), "val": loader()}
    yield transfer.train_model, {
        "model": model, "optimizer": optimizer, "scheduler": scheduler, "dataloaders": loaders, "num_epochs": 2,
    }  # fmt: skip
    yield transfer.main, {"dataloaders": loaders}
    yield blitz.train, {}
    yield blitz.one_update_by_hand, {}
    yield blitz.accuracy, {}
    yield references.train_one_epoch, {}
    yield references.train_one_epoch, {"scaler": torch.amp.GradScaler("cpu"), "clip_grad_norm": 1.0}
    yield references.evaluate, {}
    arguments = SimpleNamespace(
        device="cpu", label_smoothing=0.1, lr=0.1, amp=False, lr_step_size=1, lr_gamma=0.1, start_epoch=0,
        epochs=2, clip_grad_norm=1.0,
    )  # fmt: skip
    yield references.main, {"data_loader": loader(), "data_loader_test": loader(), "args": arguments}
    yield accumulating.train_one_epoch, {}
    yield accumulating.train_one_epoch, {"loss_scaler": accumulating.NativeScaler()}
    yield accumulating.validate, {}
    yield micro.train, {"get_batch": batch}
    yield learner.Learner(loaders, small_model(), nn.CrossEntropyLoss()).fit, {}
    yield manual.Module(small_model()).training_step, {}
    yield manual.train_lbfgs, {}
    yield mixed.train, {}
    generator = nn.Sequential(nn.Linear(4, 12), nn.Unflatten(1, (3, 2, 2)))
    critic = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 1), nn.Sigmoid())
    yield gan.train, {"netG": generator, "netD": critic, "dataloader": loader()}


CASES = list(watched())


@pytest.mark.parametrize(
    ("function", "given"), CASES, ids=[f"{f.__module__[12:]}-{f.__name__}" for f, _ in CASES]
)
def test_nothing_is_wrong_with_what_is_seen_and_nothing_changes(function, given):
    owner = getattr(function, "__self__", None)
    before = copy.deepcopy(state(given, owner)), torch.get_rng_state()
    report = check_loop(function, **given)
    assert report.ok, report
    assert report.watched.startswith("one run was watched"), report.watched
    assert "ended in" not in report.watched
    assert same(state(given, owner), before[0])
    assert torch.equal(torch.get_rng_state(), before[1])
    assert report.steps or function.__name__ in ("accuracy", "evaluate", "validate", "one_update_by_hand")


def state(given, owner):
    """Return everything that a run may change, as plain data."""
    things = list(given.values()) + list(vars(owner).values() if owner is not None else [])
    if isinstance(owner, nn.Module):
        things.append(owner)
    found = []
    for thing in things:
        if isinstance(thing, nn.Module):
            found += [
                thing.state_dict(),
                [p.grad for p in thing.parameters()],
                [m.training for m in thing.modules()],
            ]
        elif hasattr(thing, "state_dict") and not isinstance(thing, type):
            found.append(thing.state_dict())
        elif isinstance(thing, list | int | float):
            found.append(thing)
    return found


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(map(same, one.values(), other.values()))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other
