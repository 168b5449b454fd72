"""What is written: plain, with bare names, without a byte too many; and what loading says about a bad file."""

import argparse
import copy
import datetime
import random
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

from ftlab import checkpoints
from ftlab.checkpoints.random_states import random_state, set_random_state
from ftlab.exercises.behaviour import same_model


def trained(model=None):
    model = model or nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = StepLR(optimizer, 2)
    model(torch.randn(4, 3)).square().mean().backward()
    optimizer.step()
    scheduler.step()
    return {"model": model, "optimizer": optimizer, "scheduler": scheduler}


def test_the_plain_safe_loader_reads_every_part(tmp_path):
    path = tmp_path / "last.pt"
    extra = {
        "epoch": 3,
        "best": np.float32(0.5),
        "history": np.arange(3.0),
        "path": Path("a/b"),
        "classes": ["cat", "dog"],
        "nested": {"flag": np.bool_(True), "sizes": (torch.Size([2]), np.int64(7)), "none": None},
    }
    checkpoints.save(path, **trained(), scaler=torch.amp.GradScaler("cpu"), extra=extra, gradients=True)
    found = torch.load(path)
    assert found["extra"]["best"] == 0.5
    assert type(found["extra"]["best"]) is float
    assert torch.equal(found["extra"]["history"], torch.arange(3.0, dtype=torch.double))
    assert found["extra"]["path"] == str(Path("a/b"))
    assert found["extra"]["nested"] == {"flag": True, "sizes": ((2,), 7), "none": None}
    assert set(found) >= {"model", "optimizer", "scheduler", "scaler", "gradients", "random_state", "torch"}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (argparse.Namespace(lr=1), r"extra\['x'\] is a Namespace.*vars\(\)"),
        (datetime.date(2026, 1, 1), r"extra\['x'\] is a date"),
        (range(3), r"extra\['x'\] is a range"),
        ([{"deep": {1: lambda: 0}}], r"extra\['x'\]\[0\]\['deep'\]\[1\] is a function"),
        (nn.Linear(1, 1), r"is a Linear.*its state_dict\(\)"),
        (np.array(["a"]), r"is a ndarray"),
        (torch.empty(2, device="meta"), "meta device and has no values"),
    ],
)
def test_what_the_safe_loader_would_refuse_is_named_and_the_old_file_stays(tmp_path, value, says):
    path = tmp_path / "last.pt"
    path.write_bytes(b"old")
    with pytest.raises((TypeError, ValueError), match=says):
        checkpoints.save(path, model=nn.Linear(1, 1), extra={"x": value})
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_lazy_model_is_told_to_run_a_batch(tmp_path):
    with pytest.raises(ValueError, match="run one batch through the model"):
        checkpoints.save(tmp_path / "x.pt", model=nn.LazyLinear(2))


def test_saving_changes_nothing(tmp_path):
    parts = trained()
    before = copy.deepcopy(parts["model"])
    for one, other in zip(before.parameters(), parts["model"].parameters(), strict=True):
        one.grad = other.grad
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    checkpoints.save(tmp_path / "last.pt", **parts)
    assert same_model(before, parts["model"]) == []
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (random.getstate(), str(np.random.get_state()))  # noqa: NPY002


def wrap(model, kind):
    if kind == "compile inside":
        return nn.Sequential(torch.compile(model[0]), *model[1:])
    return {
        "DataParallel": lambda: nn.DataParallel(model),
        "twice": lambda: nn.DataParallel(nn.DataParallel(model)),
        "compile": lambda: torch.compile(model),
        "compiled DataParallel": lambda: torch.compile(nn.DataParallel(model)),
        "DataParallel of a compiled": lambda: nn.DataParallel(torch.compile(model)),
    }[kind]()


@pytest.mark.parametrize(
    "kind",
    ["DataParallel", "twice", "compile", "compiled DataParallel", "DataParallel of a compiled", "compile inside"],
)
def test_the_names_are_those_of_the_model_whatever_wraps_it(tmp_path, kind):
    model = trained()["model"]
    wrapped = wrap(model, kind)
    checkpoints.save(tmp_path / "last.pt", model=wrapped)
    state = torch.load(tmp_path / "last.pt")["model"]
    again = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    again.load_state_dict(state)
    assert state._metadata.keys() == model.state_dict()._metadata.keys()
    other = wrap(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), kind)
    checkpoints.restore(tmp_path / "last.pt", model=other)
    for one, another in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(one, another)


def test_a_layer_that_is_called_module_keeps_its_name(tmp_path):
    model = nn.ModuleDict({"module": nn.Linear(1, 1)})
    checkpoints.save(tmp_path / "last.pt", model=model)
    assert "module.weight" in torch.load(tmp_path / "last.pt")["model"]


def test_a_slice_is_saved_alone(tmp_path):
    memory = torch.zeros(1_000_000)
    saved = checkpoints.save(
        tmp_path / "last.pt", model=nn.Linear(1, 1), extra={"slice": memory[:3], "step": memory[::1000]}
    )
    assert saved.size < 20_000
    assert torch.equal(checkpoints.load(tmp_path / "last.pt")["extra"]["step"], memory[::1000])
    torch.save({"slice": memory[:3]}, tmp_path / "plain.pt")
    assert (tmp_path / "plain.pt").stat().st_size > 4_000_000


def test_ties_stay_ties_also_of_slices(tmp_path):
    model = nn.ModuleDict({"a": nn.Linear(50, 50), "b": nn.Linear(50, 50)})
    model["b"].weight = model["a"].weight
    part = torch.randn(10_000)[:5000]
    checkpoints.save(tmp_path / "last.pt", model=model, extra={"one": part, "two": part, "none": torch.zeros(0)})
    found = checkpoints.load(tmp_path / "last.pt")
    one, two = found["model"]["a.weight"], found["model"]["b.weight"]
    assert one.untyped_storage().data_ptr() == two.untyped_storage().data_ptr()
    one, two = found["extra"]["one"], found["extra"]["two"]
    assert one.untyped_storage().data_ptr() == two.untyped_storage().data_ptr()


def test_the_result_holds_no_tensor_and_shows_the_parts(tmp_path):
    saved = checkpoints.save(tmp_path / "last.pt", **trained(), extra={"epoch": 4}, sha256=True)
    assert saved.parts[:2] == ["model", "optimizer"]
    assert saved.size == (tmp_path / "last.pt").stat().st_size
    assert "epoch = 4" in repr(saved)
    assert saved.sha256 in saved._repr_html_()
    assert not any(isinstance(value, torch.Tensor) for row in saved.contents.rows for value in row)
    assert saved.to_dict()["parts"][0]["tensors"] == 9


def test_the_sum_beside_the_file_is_compared(tmp_path):
    path = tmp_path / "last.pt"
    for _ in range(2):
        checkpoints.save(path, model=nn.Linear(20, 20), sha256=True)
        checkpoints.load(path)
    assert (tmp_path / "last.pt.sha256").read_text().count("last.pt") == 1
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # one bit, in a tensor
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"last.pt has sha256 .* but last.pt.sha256 says .* damaged"):
        checkpoints.load(path)
    checkpoints.save(path, model=nn.Linear(20, 20))  # without a sum: the old one would be wrong
    checkpoints.load(path)


def test_load_says_what_is_wrong(tmp_path):
    path = tmp_path / "x.pt"
    with pytest.raises(FileNotFoundError, match=r"there is no file .*x.pt.*looked in"):
        checkpoints.load(path)
    with pytest.raises(FileNotFoundError, match="it is a folder"):
        checkpoints.load(tmp_path)
    torch.save(nn.Linear(1, 1), path)
    with pytest.raises(TypeError, match=r"torch.nn.modules.linear.Linear.*save the state_dict"):
        checkpoints.load(path)
    torch.save({"w": torch.randn(1000)}, path)
    whole = path.read_bytes()
    for cut in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(
            ValueError, match=f"cannot be read as a checkpoint. It has {cut:,} bytes, begins with"
        ):
            checkpoints.load(path)
    path.write_bytes(b"<!DOCTYPE html><html>404")
    with pytest.raises(ValueError, match="<!DOCTYPE html>"):
        checkpoints.load(path)


def test_load_runs_nothing_of_the_file(tmp_path):
    path, trap = tmp_path / "evil.pt", tmp_path / "sprung"

    class Evil:
        def __reduce__(self):
            return Path.touch, (trap,)

    torch.save({"w": Evil()}, path)
    with pytest.raises(TypeError, match="code would have to be run"):
        checkpoints.load(path)
    assert not trap.exists()
    torch.load(path, weights_only=False)  # the trap does work
    assert trap.exists()


def test_a_file_of_another_device_comes_to_the_cpu(tmp_path):
    torch.save({"w": torch.ones(3)}, tmp_path / "cpu.pt")
    path = tmp_path / "hpu.pt"
    with zipfile.ZipFile(tmp_path / "cpu.pt") as cpu, zipfile.ZipFile(path, "w") as hpu:
        for name in cpu.namelist():
            content = cpu.read(name)
            if name.endswith("data.pkl"):
                assert b"X\x03\x00\x00\x00cpu" in content
                content = content.replace(b"X\x03\x00\x00\x00cpu", b"X\x03\x00\x00\x00hpu")
            hpu.writestr(name, content)
    assert torch.equal(checkpoints.load(path)["w"], torch.ones(3))
    with pytest.raises(ValueError, match="cannot be loaded to 'its own device'"):
        checkpoints.load(path, map_location=None)


def test_a_list_or_a_tensor_alone_is_given_as_content(tmp_path):
    torch.save([1, torch.ones(2)], tmp_path / "x.pt")
    assert checkpoints.load(tmp_path / "x.pt")["content"][0] == 1


def test_safetensors_holds_the_model_alone_with_its_ties(tmp_path):
    pytest.importorskip("safetensors", reason="safetensors is optional")
    model = nn.ModuleDict({"a": nn.Linear(5, 5), "b": nn.Linear(5, 5)})
    model["b"].weight = model["a"].weight
    path = tmp_path / "x.safetensors"
    checkpoints.save(path, model=model, sha256=True)
    again = nn.ModuleDict({"a": nn.Linear(5, 5), "b": nn.Linear(5, 5)})
    checkpoints.restore(path, model=again)
    assert torch.equal(again["b"].weight, model["a"].weight)
    torch.save(1, tmp_path / "x.pt")
    assert path.stat().st_mode == (tmp_path / "x.pt").stat().st_mode
    with pytest.raises(ValueError, match="holds tensors only, not optimizer, extra"):
        checkpoints.save(path, **{k: v for k, v in trained().items() if k != "scheduler"}, extra={"a": 1})


def test_without_the_package_safetensors_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ModuleNotFoundError, match="pip install safetensors"):
        checkpoints.save(tmp_path / "x.safetensors", model=nn.Linear(1, 1))
    (tmp_path / "x.safetensors").write_bytes(b"")
    with pytest.raises(ModuleNotFoundError, match="pip install safetensors"):
        checkpoints.load(tmp_path / "x.safetensors")


def draw():
    return torch.randn(3).tolist(), np.random.standard_normal(3).tolist(), random.gauss(0, 1)  # noqa: NPY002


def test_random_states_come_back_through_the_safe_loader(tmp_path):
    for _ in range(2):  # the second time each generator has another value in stock
        torch.save(random_state(), tmp_path / "x.pt")
        first = draw()
        set_random_state(torch.load(tmp_path / "x.pt"))
        assert draw() == first
