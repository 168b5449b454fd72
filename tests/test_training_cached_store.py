"""Activations on disk are found again when nothing has changed, and only then; half of them are never used."""

import errno
import gc
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from ftlab.training import cached, loader
from ftlab.training.caching import cache, store
from ftlab.training.caching.images import digest


class Pictures(Dataset):
    def __init__(self, count=6):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(count, 3, 8, 8, generator=generator)
        self.targets = [place % 2 for place in range(count)]
        self.asked = 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, place):
        self.asked += 1
        return self.images[place], self.targets[place]


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    model[:3].requires_grad_(False).eval()
    return model


def quick(folder=None, model=None, images=None, **settings):
    batches = loader(images or Pictures(), batch_size=4)
    return cached(model or network(), batches, folder=folder, progress=False, **settings)


def values_of(found):
    return found.train.dataset.values[0]


def test_what_is_in_the_folder_is_found_again(tmp_path):
    folder = tmp_path / "new" / "folder"
    first = quick(folder)
    assert first.where == f"in {folder}"
    images = Pictures()
    again = quick(folder, images=images)
    assert again.where == f"found in {folder}"
    assert torch.equal(values_of(first), values_of(again))
    assert torch.equal(values_of(first), values_of(quick()))
    assert torch.equal(first.train.dataset.targets, again.train.dataset.targets)
    assert len(list(folder.iterdir())) == 2


def other_weights(model, images):
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] += 1


def other_statistics(model, images):
    model[1].running_var[0] = 2


def other_layer(model, images):
    model[2] = nn.LeakyReLU(0.5)


def other_preparation(model, images):
    images.images = images.images * 2


def other_targets(model, images):
    images.targets[3] = 0


def more_images(model, images):
    images.images, images.targets = torch.cat([images.images, images.images[:1]]), [*images.targets, 1]


CHANGES = [other_weights, other_statistics, other_layer, other_preparation, other_targets, more_images]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_after_a_change_they_are_computed_anew(tmp_path, change):
    quick(tmp_path)
    model, images = network(), Pictures()
    change(model, images)
    found = quick(tmp_path, model, images)
    assert found.where == f"in {tmp_path}"
    expected = quick(model=model, images=images)
    assert torch.equal(values_of(found), values_of(expected))
    assert torch.equal(found.train.dataset.targets, expected.train.dataset.targets)


def test_an_image_file_that_changed_is_noticed(tmp_path):
    for number, colour in enumerate(["red", "green", "blue", "white"]):
        file = tmp_path / "images" / str(number % 2) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        _picture(colour).save(file)
    before = _digest(tmp_path / "images")
    assert before == _digest(tmp_path / "images")
    _picture("black").resize((9, 9)).save(tmp_path / "images" / "0" / "2.png")
    assert before != _digest(tmp_path / "images")


def _picture(colour):
    return Image.new("RGB", (8, 8), colour)


def _digest(folder):
    prepare = v2.Compose([v2.CenterCrop(8), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    images = ImageFolder(str(folder), transform=prepare)
    return digest(Subset(images, range(len(images))), count=1)  # the one that is looked at does not change


def flip_a_byte(values, note):
    content = bytearray(values.read_bytes())
    content[7] ^= 1
    values.write_bytes(bytes(content))


def cut_off(values, note):
    values.write_bytes(values.read_bytes()[:-4])


def half_a_note(values, note):
    note.write_text(note.read_text()[:20])


def no_values(values, note):
    values.unlink()


def another_fingerprint(values, note):
    about = json.loads(note.read_text())
    note.write_text(json.dumps({**about, "fingerprint": about["fingerprint"][::-1]}))


def another_class(values, note):
    about = json.loads(note.read_text())
    note.write_text(json.dumps({**about, "targets": [*about["targets"][1:], 0]}))


def another_shape(values, note):
    about = json.loads(note.read_text())
    note.write_text(json.dumps({**about, "shape": [*about["shape"][::-1]]}))


def no_dictionary(values, note):
    note.write_text("[1, 2]")


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_byte,
        cut_off,
        half_a_note,
        no_values,
        another_fingerprint,
        another_class,
        another_shape,
        no_dictionary,
    ],
    ids=lambda each: each.__name__,
)
def test_damaged_files_are_replaced(tmp_path, damage):
    expected = values_of(quick(tmp_path)).clone()
    damage(next(tmp_path.glob("*.bin")), next(tmp_path.glob("*.json")))
    found = quick(tmp_path)
    assert found.where == f"in {tmp_path}"
    assert torch.equal(values_of(found), expected)
    assert quick(tmp_path).where == f"found in {tmp_path}"


def test_the_targets_of_a_folder_are_those_of_the_images(tmp_path):
    expected = quick(tmp_path).train.dataset.targets
    another_class(next(tmp_path.glob("*.bin")), next(tmp_path.glob("*.json")))
    assert torch.equal(quick(tmp_path).train.dataset.targets, expected)


def test_whoever_writes_over_activations_does_not_write_into_the_file(tmp_path):
    for _ in ("computed", "found"):
        values_of(quick(tmp_path)).zero_()
    found = quick(tmp_path)
    assert found.where == f"found in {tmp_path}"
    assert values_of(found).abs().max() > 0


def test_the_disk_is_reserved_before_anything_is_computed(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match="No space left"):
        quick(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_in_the_memory_of_the_dataset_each_image_counts(tmp_path):
    kinds = {
        "tensors": lambda values: TensorDataset(values, torch.zeros(40)),
        "arrays": lambda values: Arrays(values.numpy()),
    }
    for name, kind in kinds.items():
        values = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        before = digest(kind(values))
        assert before == digest(kind(values.clone())), name
        values[5] += 1  # none of those that are looked at
        assert before != digest(kind(values)), name


class Arrays(Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, place):
        return torch.from_numpy(self.images[place]), 0


def test_a_stop_halfway_leaves_no_file(tmp_path, monkeypatch):
    asked = []

    def stop():
        asked.append(1)
        return len(asked) == 2

    monkeypatch.setattr(cache, "BATCH", {"cpu": 2})
    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path, should_stop=stop)
    assert len(asked) == 2
    assert list(tmp_path.iterdir()) == []


def test_without_memory_temporary_files_are_used_and_taken_away(monkeypatch):
    expected = values_of(quick())
    monkeypatch.setattr(store, "MEMORY_SHARE", 0)
    found = quick()
    folder = Path(found.where.removeprefix("in "))
    assert torch.equal(values_of(found), expected)
    assert len(list(folder.iterdir())) == 2
    del found
    gc.collect()
    assert not folder.exists()


def test_a_disk_that_is_too_small_is_said_before(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(store.psutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"activations need .* GiB, and .* has 0.0 GiB free. Give another folder"):
        quick(tmp_path)
    assert list(tmp_path.iterdir()) == []


def change_weights(model, images):
    with torch.no_grad():
        model[0].weight += 1


def unfreeze(model, images):
    model[0].requires_grad_(True)


def train_mode(model, images):
    model.train()


def longer(model, images):
    images.images, images.targets = torch.cat([images.images] * 2), images.targets * 2


def prepared_otherwise(model, images):
    images.images = images.images / 2


STALE = {
    change_weights: "0.weight has changed",
    unfreeze: "0.weight has changed",
    train_mode: "1 has changed",
    longer: "the Pictures of the images has changed",
    prepared_otherwise: "the Pictures of the images has changed",
}


@pytest.mark.parametrize("change", STALE, ids=lambda change: change.__name__)
def test_activations_that_are_no_longer_right_are_not_given(change):
    model, images = network(), Pictures()
    found = quick(model=model, images=images)
    assert len(list(found.train)) == 2
    change(model, images)
    with pytest.raises(RuntimeError, match=STALE[change] + r" since .* Call training.cached\(...\) again"):
        list(found.train)


def test_what_the_head_learns_is_no_change():
    model = network()
    found = quick(model=model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for activations, targets in found.train:
        nn.functional.cross_entropy(found.model(activations), targets).backward()
        optimizer.step()
    assert len(list(found.train)) == 2


def test_a_file_where_the_folder_should_be_is_said_before_anything_is_computed(tmp_path):
    file, images = tmp_path / "activations", Pictures()
    file.write_text("mine")
    with pytest.raises(NotADirectoryError, match="activations is a file; activations are kept in a folder"):
        quick(file, images=images)
    assert file.read_text() == "mine"
