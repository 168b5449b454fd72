"""Broken files by the thousand: always a finding or a result, never an exception, a hang or a changed model."""

import contextlib
import io
import json
import pickle
import pickletools
import random
import struct
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from ftlab.checkpoints import diagnose, inspect
from ftlab.checkpoints.reading import archive, bounds, pickles

STATE = {"weight": torch.arange(6.0).reshape(3, 2), "bias": torch.tensor([0.5, -1.0, 2.0])}
NAMES = {"weight": (3, 2), "bias": (3,)}


def saved(thing, **options) -> bytes:
    stream = io.BytesIO()
    torch.save(thing, stream, **options)
    return stream.getvalue()


def safetensors() -> bytes:
    table, data = {}, b""
    for name, tensor in STATE.items():
        numbers = tensor.numpy().tobytes()
        table[name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(numbers)],
        }
        data += numbers
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text + data


FILES = {
    "zip": saved(STATE),
    "old": saved(STATE, _use_new_zipfile_serialization=False),
    "pickle 2": pickle.dumps(STATE, 2),
    "pickle 5": pickle.dumps(STATE, 5),
    "safetensors": safetensors(),
    "whole": saved(nn.Linear(2, 3), _use_new_zipfile_serialization=False),
    "training": saved({"model": STATE, "optimizer": {"state": {}, "param_groups": []}, "epoch": 3}),
}


def looked_at(data: bytes, folder: Path):
    """Return what `inspect` says; it may say anything, but it has to say it."""
    path = folder / "file.pt"
    path.write_bytes(data)
    info = inspect(path, checksums=True)
    assert info.whole == (not info.problems)
    assert all(problem.kind and problem.seen and problem.means for problem in info.problems)
    return info


def same(found: dict) -> bool:
    return found.keys() == STATE.keys() and all(torch.equal(found[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_cut_at_any_byte_is_not_whole(kind, tmp_path):
    data = FILES[kind]
    assert looked_at(data, tmp_path).whole
    step = 1 if len(data) < 1000 else 3
    for end in range(len(data) - 1, -1, -step):
        assert not looked_at(data[:end], tmp_path).whole, end


@pytest.mark.parametrize("kind", ["zip", "training"])
def test_a_flipped_bit_of_an_archive_is_found_or_changes_nothing(kind, tmp_path):
    data, chance = FILES[kind], random.Random(kind)
    found = 0
    for place in range(0, len(data), 3):
        changed = bytearray(data)
        changed[place] ^= 1 << chance.randrange(8)
        info = looked_at(bytes(changed), tmp_path)
        found += not info.whole
        assert not info.whole or same(info.state_dict()), place
    assert found > 50


@pytest.mark.parametrize("code", [b"ctorch\\Vnn\nLinear\n.", b"Vtext\n0S'a\\Vb'\n."])
def test_a_backslash_in_a_name_or_text_is_read_without_a_warning(code, tmp_path):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert list(pickletools.genops(code))  # Python's own reader warns
    assert seen
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        looked_at(code, tmp_path)
    assert not seen


@pytest.mark.parametrize("kind", ["old", "pickle 2", "pickle 5", "safetensors", "whole"])
def test_a_flipped_bit_of_another_file_is_never_an_exception(kind, tmp_path):
    """These formats have no checksums: a changed number stays unseen, a changed structure does not."""
    data, chance = FILES[kind], random.Random(kind)
    for place in range(0, len(data), 1 if len(data) < 1000 else 3):
        changed = bytearray(data)
        changed[place] ^= 1 << chance.randrange(8)
        info = looked_at(bytes(changed), tmp_path)
        if info.whole and info.tensors:
            read_or_refused(info)


def read_or_refused(info) -> None:
    with contextlib.suppress(ValueError):
        info.state_dict()


@st.composite
def broken(draw) -> bytes:
    """Return a file with some pieces removed, doubled, moved, overwritten, or taken from another file."""
    data = bytearray(draw(st.sampled_from(list(FILES.values()))))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(len(data) - 1, 0)))
        end = min(len(data), start + draw(st.sampled_from([1, 2, 4, 8, 64, 500])))
        change = draw(st.sampled_from(["remove", "double", "move", "random", "numbers", "other"]))
        if change == "remove":
            del data[start:end]
        elif change == "double":
            data[start:start] = data[start:end]
        elif change == "move":
            piece = data[start:end]
            del data[start:end]
            to = draw(st.integers(0, len(data)))
            data[to:to] = piece
        elif change == "random":
            data[start:end] = draw(st.binary(min_size=1, max_size=9))
        elif change == "numbers":
            data[start : start + 8] = struct.pack(
                "<Q", draw(st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]))
            )
        else:
            other = draw(st.sampled_from(list(FILES.values())))
            data[start:end] = other[start:end]
    return bytes(data)


@settings(
    max_examples=800, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True
)
@given(broken())
def test_whatever_the_file_is_there_is_an_answer_and_the_model_is_as_it_was(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    info = looked_at(data, folder)
    model = nn.Linear(2, 3)
    before = [tensor.clone() for tensor in model.state_dict().values()]
    diagnosis = diagnose(info.path, model)
    assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))
    try:
        receipt = diagnosis.apply()
    except ValueError:
        assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))
    else:
        loaded = {tensor.name for tensor in receipt.tensors if tensor.done == "loaded"}
        for name, old in zip(NAMES, before, strict=True):
            assert name in loaded or torch.equal(model.state_dict()[name], old)


@settings(max_examples=400, deadline=None, database=None, derandomize=True)
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\x80\x02", b"\x80\x04", b"(", b"PK\x03\x04", b"\x20" + bytes(7) + b"{"]),
)
def test_noise_is_never_an_exception(tmp_path_factory, noise, beginning):
    looked_at(beginning + noise, tmp_path_factory.getbasetemp())


# Claims without end


def number(value: int, width: int) -> bytes:
    return value.to_bytes(width, "little")


def bombs() -> dict[str, bytes]:
    many = 20_000
    laughs = b"\x80\x02]q\x00" + b"".join(
        b"](" + b"h" + bytes([level]) * 1 + (b"h" + bytes([level])) * 9 + b"eq" + bytes([level + 1])
        for level in range(60)
    )
    return {
        "bytes of 2**60": b"\x80\x04\x8e" + number(1 << 60, 8),
        "text of 2**60": b"\x80\x04\x8d" + number(1 << 60, 8),
        "bytearray of 2**63": b"\x80\x05\x96" + number(1 << 63, 8),
        "text of 2**31": b"\x80\x02X" + number(1 << 31, 4),
        "negative length": b"\x80\x02T" + number(0xFFFFFFFF, 4),
        "long of 2**31": b"\x80\x02\x8b" + number((1 << 31) - 1, 4),
        "long that is there": b"\x80\x02\x8b" + number(70_000, 4) + bytes(70_000) + b".",
        "digits": b"I" + b"9" * 60_000 + b"\n.",
        "memo of 2**32": b"\x80\x02Nr" + number(0xFFFFFFFF, 4) + b".",
        "frame of 2**60": b"\x80\x04\x95" + number(1 << 60, 8) + b"N.",
        "nested lists": b"\x80\x02" + b"]" * many + b"a" * (many - 1) + b".",
        "nested tuples": b"\x80\x02)" + b"\x85" * many + b".",
        "nested dictionaries": b"\x80\x02" + b"}N" * many + b"}" + b"s" * many + b".",
        "marks": b"\x80\x02" + b"(" * many + b"t" * many + b".",
        "laughs": laughs + b".",
        "stack that is empty": b"\x80\x020.",
        "itself": b"\x80\x02]q\x00h\x00a.",
        "calls of calls": b"\x80\x02cos\nsystem\n" + b")R" * many + b".",
        "archive with a large table": b"PK\x03\x04" + b"PK\x05\x06" + bytes(8) + number(2**31, 4) + bytes(6),
        "archive with a larger table": b"PK\x03\x04" + bytes(60) + b"PK\x06\x06" + b"\xff" * 60 + b"PK\x05\x06"
        + b"\xff" * 16 + bytes(2),
    }  # fmt: skip


@pytest.mark.parametrize("kind", bombs())
def test_a_file_that_claims_too_much_takes_little_and_is_answered(kind, tmp_path):
    data = bombs()[kind]
    (tmp_path / "a.pt").write_bytes(data)
    tracemalloc.start()
    info = inspect(tmp_path / "a.pt", checksums=True)
    repr(info), info.to_dict()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 400 * len(data) + (8 << 20)
    diagnose(tmp_path / "a.pt", nn.Linear(2, 3))


def test_tensors_larger_than_the_file_are_refused(tmp_path):
    torch.save({"weight": torch.ones(1).expand(1 << 30, 1 << 20)}, tmp_path / "a.pt")
    assert [problem.kind for problem in inspect(tmp_path / "a.pt").problems] == ["too-large"]


def test_a_packed_pickle_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "PICKLE", 1 << 20)
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/data.pkl", b"\x80\x02" + b"N0" * (1 << 20) + b"N.")
    assert (tmp_path / "a.pt").stat().st_size < 1 << 15
    assert [problem.kind for problem in inspect(tmp_path / "a.pt").problems] == ["too-large"]


def test_a_pickle_with_instructions_or_texts_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "OPERATIONS", 1000)
    (tmp_path / "a.pt").write_bytes(b"\x80\x02" + b"N0" * 1000 + b"N.")
    (problem,) = inspect(tmp_path / "a.pt").problems
    assert "1,000 instructions" in problem.seen
    monkeypatch.undo()
    monkeypatch.setattr(pickles, "MEMORY", 1000)
    (tmp_path / "a.pt").write_bytes(pickle.dumps(["x" * 300] * 2 + ["y" * 300, "z" * 300, "u" * 300]))
    assert "longer than 1,000 bytes" in inspect(tmp_path / "a.pt").problems[0].seen


def test_the_limits_are_far_from_what_real_files_need(tmp_path):
    """The partner: ten thousand tensors are well inside of them."""
    state = {f"block.{number}.weight": torch.ones(1) for number in range(10_000)}
    torch.save(state, tmp_path / "a.pt")
    info = inspect(tmp_path / "a.pt")
    assert info.whole
    assert len(info.tensors) == 10_000
    with zipfile.ZipFile(tmp_path / "a.pt") as file:
        operations = sum(1 for _ in __import__("pickletools").genops(file.read("a/data.pkl")))
    assert operations < bounds.OPERATIONS / 4


def test_swapped_members_are_seen(tmp_path):
    with zipfile.ZipFile(io.BytesIO(FILES["zip"])) as file:
        members = {one.filename: file.read(one) for one in file.infolist()}
    names = list(members)
    for one in names:
        for other in names:
            if one < other and members[one] != members[other]:
                swapped = {**members, one: members[other], other: members[one]}
                with zipfile.ZipFile(tmp_path / "a.pt", "w") as file:
                    for name, data in swapped.items():
                        file.writestr(name, data)
                info = inspect(tmp_path / "a.pt", checksums=True)
                assert not info.whole or same(info.state_dict()), (one, other)
