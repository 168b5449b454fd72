"""Looking into checkpoint files: what is found, that nothing is run, and how little it takes."""

import argparse
import datetime
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ftlab.checkpoints import inspect
from ftlab.checkpoints.reading import verdicts

MAKERS = {
    "zip": lambda thing, path: torch.save(thing, path),
    "old": lambda thing, path: torch.save(thing, path, _use_new_zipfile_serialization=False),
    **{
        f"pickle {protocol}": lambda thing, path, p=protocol: path.write_bytes(pickle.dumps(thing, p))
        for protocol in range(6)
    },
}


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def equal(one: dict, other: dict) -> bool:
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in other)


def kinds(path) -> list[str]:
    return [problem.kind for problem in inspect(path, checksums=True).problems]


# What is found


@pytest.mark.parametrize("maker", MAKERS)
def test_a_state_dict_is_listed_and_read_back_bit_by_bit(maker, tmp_path):
    state = small().state_dict()
    MAKERS[maker](state, tmp_path / "a.pt")
    info = inspect(tmp_path / "a.pt", checksums=True)
    assert info.whole
    assert not info.dangerous
    assert [(t.name, t.shape, "torch." + t.dtype, t.device) for t in info.tensors] == [
        (name, tuple(t.shape), str(t.dtype), "cpu") for name, t in state.items()
    ]
    assert [t.bytes for t in info.tensors] == [t.nbytes for t in state.values()]
    assert equal(info.state_dict(), state)


@pytest.mark.parametrize("maker", MAKERS)
def test_a_whole_model_gives_the_names_of_its_state_dict(maker, tmp_path):
    model = small()
    model.register_buffer("passing", torch.ones(1), persistent=False)
    MAKERS[maker](model, tmp_path / "a.pt")
    info = inspect(tmp_path / "a.pt")
    assert equal(info.state_dict(), model.state_dict())
    assert not info.dangerous
    assert not info.loads_safely
    assert info.parts[0].about == "a whole torch.nn.modules.container.Sequential with 9 tensors"


@pytest.mark.parametrize("maker", ["zip", "old"])
def test_what_a_training_run_saved_is_told_apart(maker, tmp_path):
    model = small()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 3, 3, 3)).sum().backward()
    optimizer.step()
    held = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 3).state_dict(),
        "scaler": torch.amp.GradScaler("cpu").state_dict(),
        "epoch": 7,
        "rng": torch.get_rng_state(),
        "classes": ["cat", "dog"],
        "torch_version": "2.15.0",
    }
    MAKERS[maker](held, tmp_path / "a.pt")
    info = inspect(tmp_path / "a.pt")
    assert {part.keys[0]: part.kind for part in info.parts} == {
        "model": "model",
        "optimizer": "optimizer",
        "scheduler": "scheduler",
        "scaler": "scaler",
        "epoch": "epoch",
        "rng": "random state",
        "classes": "other",
        "torch_version": "other",
    }
    assert info.torch_version == "2.15.0"
    assert equal(info.state_dict("model"), model.state_dict())
    assert "state.0.exp_avg" in info.state_dict("optimizer")
    assert info.loads_safely
    torch.load(tmp_path / "a.pt", weights_only=True)


def test_tied_tensors_and_views_share_a_storage(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    torch.save(
        {"a": whole, "b": whole, "row": whole[1], "turned": whole.T, "other": whole.clone()}, tmp_path / "a.pt"
    )
    info = inspect(tmp_path / "a.pt")
    assert info.shared == [["a", "b", "row", "turned"]]
    state = info.state_dict()
    assert torch.equal(state["row"], whole[1])
    assert torch.equal(state["turned"], whole.T)
    state["a"].zero_()
    assert state["row"].sum() == 0
    assert state["other"].sum() == whole.sum()


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.int8, torch.bool, torch.complex64, torch.uint16]
)
@pytest.mark.parametrize("maker", ["zip", "old"])
def test_every_type_is_read(dtype, maker, tmp_path):
    state = {
        "a": torch.arange(6).reshape(2, 3).to(dtype),
        "empty": torch.empty(0, 3, dtype=dtype),
        "one": torch.ones((), dtype=dtype),
    }
    MAKERS[maker](state, tmp_path / "a.pt")
    assert equal(inspect(tmp_path / "a.pt").state_dict(), state)


@pytest.mark.parametrize("protocol", range(6))
def test_numpys_arrays_are_read_too(protocol, tmp_path):
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "f": np.asfortranarray(np.arange(600.0).reshape(20, 30)),
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"model": arrays}, protocol))
    info = inspect(tmp_path / "a.pkl")
    assert {tensor.kind for tensor in info.tensors} == {"array"}
    assert all((info.state_dict()[name].numpy() == array).all() for name, array in arrays.items())


def test_a_device_that_is_not_here_is_named(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pt")
    rewrite(tmp_path / "a.pt", b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:3")
    info = inspect(tmp_path / "a.pt")
    assert info.tensors[0].device == "cuda:3"
    assert torch.equal(info.state_dict()["a"], torch.ones(2))


def test_parameters_sparse_and_meta_tensors_are_listed(tmp_path):
    held = {
        "parameter": nn.Parameter(torch.ones(2)),
        "meta": torch.empty(5, 6, device="meta"),
        "sparse": torch.eye(3).to_sparse(),
    }
    torch.save(held, tmp_path / "a.pt")
    found = {tensor.name: (tensor.kind, tensor.shape) for tensor in inspect(tmp_path / "a.pt").tensors}
    assert found == {"parameter": ("dense", (2,)), "meta": ("meta", (5, 6)), "sparse": ("sparse", (3, 3))}


def rewrite(path: Path, old: bytes, new: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {one.filename: archive.read(one) for one in archive.infolist()}
    assert any(old in data for data in members.values())
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data.replace(old, new))


# safetensors


def safetensors(path: Path, table: dict, data: bytes, length: int | None = None) -> Path:
    text = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


ENTRY = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


def test_safetensors_are_read_without_the_library(tmp_path):
    values = np.arange(6, dtype=np.float32)
    table = {"__metadata__": {"format": "pt"}, "fc.weight": ENTRY}
    path = safetensors(tmp_path / "a.safetensors", table, values.tobytes())
    info = inspect(path)
    assert (info.format, info.whole, info.tensors[0].dtype) == ("safetensors", True, "float32")
    assert info.state_dict()["fc.weight"].flatten().tolist() == values.tolist()


@pytest.mark.parametrize(
    ("table", "size", "length", "kind"),
    [
        ({"a": ENTRY}, 23, None, "truncated"),
        ({"a": ENTRY}, 25, None, "damaged"),
        ({"a": {**ENTRY, "shape": [2, 4]}}, 24, None, "damaged"),
        ({"a": {**ENTRY, "shape": [2, -3]}}, 24, None, "damaged"),
        ({"a": ENTRY, "b": ENTRY}, 24, None, "damaged"),
        ({"a": {**ENTRY, "data_offsets": [0, 1 << 60], "shape": [1 << 58]}}, 24, None, "truncated"),
        ({"a": "nonsense"}, 24, None, "damaged"),
        ({"a": ENTRY}, 24, 1 << 39, "too-large"),
        ({"a": ENTRY}, 24, 10_000, "truncated"),
        ({"a": ENTRY}, 24, 12, "damaged"),
    ],
)
def test_broken_safetensors_are_named(table, size, length, kind, tmp_path):
    assert kinds(safetensors(tmp_path / "a.safetensors", table, bytes(size), length)) == [kind]


def test_a_table_that_is_nested_deeply_is_no_error_of_python(tmp_path):
    text = b'{"a":' + b"[" * 200_000
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    assert kinds(tmp_path / "a.safetensors") == ["damaged"]


# Folders of torch.distributed.checkpoint


@pytest.fixture
def folder(tmp_path) -> Path:
    import torch.distributed.checkpoint as dcp

    with pytest.warns(UserWarning, match="single process"):
        dcp.save({"model": small().state_dict(), "epoch": 3}, checkpoint_id=tmp_path / "run")
    return tmp_path / "run"


def test_a_folder_of_shards_is_listed_and_read(folder):
    info = inspect(folder)
    assert (info.format, info.whole) == ("torch distributed", True)
    assert equal(info.state_dict("model"), dict(small().state_dict()))
    assert not info.dangerous


def test_a_shard_alone_is_named(folder):
    (shard,) = folder.glob("*.distcp")
    assert kinds(shard) == ["dcp-shard"]
    (folder / ".metadata").unlink()
    assert kinds(folder) == ["dcp-shard"]


def test_a_shard_that_is_missing_or_cut_is_named(folder):
    (shard,) = folder.glob("*.distcp")
    shard.write_bytes(shard.read_bytes()[:-2000])
    assert kinds(folder) == ["truncated"]
    shard.unlink()
    assert kinds(folder) == ["truncated"]


# What is damaged, or no checkpoint


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty"),
        (bytes(1000), "empty"),
        (b"<!DOCTYPE html><html><title>Log in</title>", "html-page"),
        (b"\n <HTML>", "html-page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 12\n", "lfs-pointer"),
        (b"\x1f\x8b\x08\x00", "foreign"),
        (b"404: Not Found", "foreign"),
        (b"PK\x03\x04 and so on", "truncated"),
        (b"\x89HDF\r\n", "foreign"),
        (b"GGUF", "foreign"),
        (b"\x80\x02}q\x00.", None),  # an empty dictionary
        (b"\x80", "foreign"),
        (b"\xff\xfe\xfd", "foreign"),
    ],
)
def test_what_is_no_checkpoint_is_named(data, kind, tmp_path):
    (tmp_path / "model.pt").write_bytes(data)
    assert kinds(tmp_path / "model.pt") == ([kind] if kind else [])


def test_a_changed_number_is_seen_by_its_checksum_and_torch_load_does_not_see_it(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"a": torch.arange(100.0)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(struct.pack("<f", 50.0)) + 2] ^= 0x10
    path.write_bytes(data)
    assert not torch.equal(torch.load(path)["a"], torch.arange(100.0))  # without a word
    assert inspect(path).whole  # nothing is missing
    assert kinds(path) == ["damaged"]


def test_storages_that_are_missing_or_of_another_size_are_named(tmp_path):
    torch.save({"first": torch.ones(3), "second": torch.ones(5)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        members = {one.filename: archive.read(one) for one in archive.infolist()}
    for change in ({"a/data/0": None}, {"a/data/0": members["a/data/1"], "a/data/1": members["a/data/0"]}):
        with zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
            for name, data in {**members, **change}.items():
                if data is not None:
                    archive.writestr(name, data)
        (problem,) = inspect(tmp_path / "b.pt").problems
        assert problem.kind == "damaged"
        assert "first" in problem.seen


def test_files_that_cannot_be_looked_at_raise_the_error_of_python(tmp_path):
    with pytest.raises(FileNotFoundError):
        inspect(tmp_path / "none.pt")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(OSError, match="is no file"):
            inspect(tmp_path / "pipe")


# Names that a pickle asks for


def test_the_plain_names_are_those_of_pytorchs_safe_loader():
    from torch._weights_only_unpickler import _get_allowed_globals

    assert _get_allowed_globals().keys() == verdicts._PLAIN


@pytest.mark.parametrize(
    "thing",
    [
        np.float64(1),
        np.arange(3),
        argparse.Namespace(a=1),
        Path("a"),
        datetime.datetime(2020, 1, 1),
        Fraction(1, 2),
        range(3),
        slice(1),
        frozenset({1}),
    ],
)
def test_harmless_things_that_torch_refuses_are_neither_plain_nor_dangerous(thing, tmp_path):
    torch.save({"model": small().state_dict(), "thing": thing}, tmp_path / "a.pt")
    info = inspect(tmp_path / "a.pt")
    assert not info.dangerous
    assert not info.loads_safely
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "a.pt")
    assert equal(info.state_dict("model"), small().state_dict())


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "posix.system",
        "builtins.eval",
        "__builtin__.eval",
        "builtins.getattr",
        "torch.load",
        "torch.hub.load",
        "torch.nn.modules.module.os",
        "torch.nn.modules.container.Sequential.forward",
        "torchvision.models._api.inspect.os.system",
        "numpy.load",
        "numpy.testing._private.utils.runstring",
        "functools.partial",
        "__main__.Net",
        "never.heard.of",
        "pathlib.Path.write_text",
        "copyreg.<extension 1>",
        "",
    ],
)
def test_everything_that_is_not_known_to_be_good_is_dangerous(name):
    assert verdicts.verdict(name)[0] in verdicts.DANGEROUS


# What it costs


LOOK = """
import re, sys
from ftlab.checkpoints import inspect

def peak():
    with open("/proc/self/status") as file:
        return int(re.search(r"VmHWM:\\s+(\\d+)", file.read())[1])

inspect(sys.argv[1])
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the highest memory is counted from here
before = peak()
info = inspect(sys.argv[2])
print(info.whole, info.tensors[0].bytes, "torch" in sys.modules, "numpy" in sys.modules, peak() - before)
"""
LARGE = 5 * 2**30  # bytes; the files are sparse: they have the size, and take no room on the disk


def large_safetensors(path: Path) -> None:
    table = json.dumps({"a": {"dtype": "F32", "shape": [LARGE // 4], "data_offsets": [0, LARGE]}}).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(table)) + table)
        file.truncate(8 + len(table) + LARGE)


def large_archive(path: Path) -> None:
    with torch.serialization.skip_data():
        torch.save({"a": torch.empty(LARGE // 4)}, path)


@pytest.mark.skipif(sys.platform != "linux", reason="the memory is measured as Linux counts it")
@pytest.mark.parametrize("make", [large_safetensors, large_archive])
def test_torch_is_not_imported_and_five_gigabytes_take_a_few_megabytes(make, tmp_path):
    torch.save(small().state_dict(), tmp_path / "small.pt")
    make(tmp_path / "large")
    assert (tmp_path / "large").stat().st_size > LARGE
    command = [sys.executable, "-c", LOOK, tmp_path / "small.pt", tmp_path / "large"]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert ran.returncode == 0, ran.stderr
    *said, rise = ran.stdout.split()
    assert said == ["True", str(LARGE), "False", "False"]
    assert int(rise) < 4 * 1024  # KiB


def test_a_file_that_was_saved_without_checksums_is_not_called_damaged(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(3)}, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert zipfile.ZipFile(tmp_path / "a.pt").getinfo("a/data/0").CRC == 0
    assert inspect(tmp_path / "a.pt", checksums=True).whole


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


# What is shown


def test_the_table_and_the_dictionary_say_the_same(tmp_path):
    torch.save({"model": small().state_dict(), "epoch": 3}, tmp_path / "a.pt")
    info = inspect(tmp_path / "a.pt")
    text = repr(info)
    assert "a.pt: torch zip" in text
    assert "9 tensors" in text
    assert len(info.tensor_table()) == len(info.to_dict()["tensors"]) == 9
    assert "<table" in info._repr_html_()
    json.dumps(info.to_dict(), default=str)


def test_the_random_state_is_not_touched(tmp_path):
    torch.save(small().state_dict(), tmp_path / "a.pt")
    before = torch.get_rng_state()
    inspect(tmp_path / "a.pt", checksums=True).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
