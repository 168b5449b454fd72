"""Files that would run something when they are loaded: none of it runs, and each is named."""

import copyreg
import functools
import io
import operator
import os
import pickle
import re
import struct
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ftlab.checkpoints import diagnose, inspect

MARKER = "the_payload_ran"
HERE = __name__


class Reduce:
    """An object that pickles as a call."""

    def __init__(self, call, *args) -> None:
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


class WithState:
    """An object whose `__setstate__` runs when it is loaded."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __getstate__(self):
        return {"path": self.path}

    def __setstate__(self, state):
        Path(state["path"]).touch()


class WithNew:
    """An object whose `__new__` runs, called with keywords."""

    def __new__(cls, *, path: str = ""):
        if path:
            Path(path).touch()
        return super().__new__(cls)

    def __getnewargs_ex__(self):
        return (), {"path": self.path}


def with_new(path: str) -> WithNew:
    made = WithNew()
    made.path = path
    return made


def touch(path: str) -> str:
    return f"__import__('pathlib').Path({path!r}).touch()"


PAYLOADS = {  # name: what makes the object from the path of the marker, what has to be named
    "os.system": (lambda p: Reduce(os.system, f"echo > {p}"), ".system"),
    "eval": (lambda p: Reduce(eval, touch(p)), "eval"),
    "exec": (lambda p: Reduce(exec, touch(p)), "exec"),
    "open": (lambda p: Reduce(Reduce, open, p), "open"),
    "subprocess": (lambda p: Reduce(subprocess.call, ["touch", p]), "call"),
    "pathlib": (lambda p: Reduce(Path.touch, Path(p)), ("touch", "getattr")),  # by the protocol
    "getattr": (lambda p: Reduce(Reduce, getattr, Path(p), "touch"), "getattr"),
    "functools.reduce": (lambda p: Reduce(functools.reduce, operator.add, [[], [p]]), "reduce"),
    "functools.partial": (lambda p: functools.partial(eval, touch(p)), "functools.partial"),
    "operator": (lambda p: Reduce(operator.methodcaller, "touch"), "methodcaller"),
    "map": (lambda p: Reduce(list, Reduce(map, eval, [touch(p)])), "map"),
    "numpy.load": (lambda p: Reduce(np.load, p), "numpy.load"),
    "numpy object array": (lambda p: np.array([Reduce(eval, touch(p))], dtype=object), "eval"),
    "torch.load": (lambda p: Reduce(torch.load, p), "torch.serialization.load"),
    "__setstate__": (lambda p: WithState(p), f"{HERE}.WithState"),
    "__new__": (with_new, f"{HERE}.WithNew"),
    "copyreg": (lambda p: Reduce(copyreg.add_extension, HERE, "Reduce", 9), "add_extension"),
    "nested archive": (lambda p: Reduce(torch.storage._load_from_bytes, archive(Reduce(eval, touch(p)))), "eval"),
    "in a parameter's hook": (lambda p: hooked(p), "eval"),
}  # fmt: skip
RUNS = {"os.system", "eval", "exec", "subprocess", "pathlib", "map", "numpy object array", "__setstate__",
        "__new__", "nested archive", "in a parameter's hook"}  # fmt: skip


def archive(thing) -> bytes:
    stream = io.BytesIO()
    torch.save(thing, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def hooked(path: str):
    return Reduce(torch._utils._rebuild_parameter, torch.ones(1), True, Reduce(eval, touch(path)))


FORMATS = {
    "zip": lambda thing, path: torch.save(thing, path),
    "old": lambda thing, path: torch.save(thing, path, _use_new_zipfile_serialization=False),
    "pickle 0": lambda thing, path: path.write_bytes(pickle.dumps(thing, 0)),
    "pickle 2": lambda thing, path: path.write_bytes(pickle.dumps(thing, 2)),
    "pickle 4": lambda thing, path: path.write_bytes(pickle.dumps(thing, 4)),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_payload_runs_and_each_is_named(payload, kind, tmp_path):
    make, name = PAYLOADS[payload]
    marker, path = tmp_path / MARKER, tmp_path / "a.pt"
    state = nn.Linear(2, 3).state_dict()
    FORMATS[kind]({"model": dict(state), "notes": make(str(marker))}, path)
    info = inspect(path, checksums=True)
    assert any(one.name.endswith(name) for one in info.dangerous), info.globals
    assert not info.loads_safely
    model = nn.Linear(2, 3)
    diagnosis = diagnose(path, model)
    assert "dangerous" in [finding.kind for finding in diagnosis.findings]
    assert any(one.name in str(diagnosis.to_dict()) for one in info.dangerous)
    repr(info), repr(diagnosis), info._repr_html_()
    diagnosis.apply()  # the tensors can be had all the same
    assert torch.equal(model.weight, state["weight"])
    assert not marker.exists()


@pytest.mark.parametrize("payload", sorted(RUNS))
def test_the_payloads_are_real(payload, tmp_path):
    """The partner: loaded without protection, it runs."""
    torch.save({"notes": PAYLOADS[payload][0](str(tmp_path / MARKER))}, tmp_path / "a.pt")
    torch.load(tmp_path / "a.pt", weights_only=False)
    assert (tmp_path / MARKER).exists()


# Written by hand, instruction by instruction


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def by_hand(path: str) -> dict[str, tuple[bytes, str | list[str]]]:
    call, code = b"c__builtin__\neval\n", text(touch(path))
    return {
        "INST": (b"(" + code + b"i__builtin__\neval\n.", "__builtin__.eval"),
        "OBJ": (b"(" + call + code + b"o.", "__builtin__.eval"),
        "REDUCE": (call + b"(" + code + b"tR.", "__builtin__.eval"),
        "STACK_GLOBAL": (
            b"\x80\x04" + text("builtins") + text("eval") + b"\x93(" + code + b"tR.",
            "builtins.eval",
        ),
        "NEWOBJ": (b"\x80\x02" + call + b"(" + code + b"t\x81.", "__builtin__.eval"),
        "NEWOBJ_EX": (b"\x80\x04" + call + b"(" + code + b"t}\x92.", "__builtin__.eval"),
        "a persistent id": (call + b"(" + code + b"tRQ.", "__builtin__.eval"),
        "a persistent id as text": (
            b"P" + path.encode() + b"\n" + call + b"(" + code + b"tR0.",
            "__builtin__.eval",
        ),
        "an extension": (b"\x80\x02\x82\x07.", "copyreg.<extension 7>"),
        "BUILD on a module": (
            b"cos\nenviron\n}" + text("a") + text("b") + b"sb.",
            ["os.environ", "os.environ.__dict__"],
        ),
        "a name out of a call": (
            call + b"(" + text("'os'") + b"tR" + text("system") + b"\x93.",
            ["__builtin__.eval", "<a name that the pickle works out>"],
        ),
        "in a key": (b"}" + call + b"(" + code + b"tRI1\ns.", "__builtin__.eval"),
        "thrown away": (call + b"(" + code + b"tR0N.", "__builtin__.eval"),
        "kept in the memo": (call + b"(" + code + b"tRp0\n0g0\n.", "__builtin__.eval"),
        "after the stop": (b"}.", ""),
        "a dotted name": (b"\x80\x04" + text("torch") + text("hub.os.system") + b"\x93.", "torch.hub.os.system"),
    }


@pytest.mark.parametrize("kind", by_hand(""))
def test_every_instruction_that_calls_is_seen(kind, tmp_path):
    data, name = by_hand(str(tmp_path / MARKER))[kind]
    (tmp_path / "a.pkl").write_bytes(data)
    names = [one.name for one in inspect(tmp_path / "a.pkl").dangerous]
    assert names == (name if isinstance(name, list) else [name] if name else [])
    diagnose(tmp_path / "a.pkl", nn.Linear(2, 3))
    assert not (tmp_path / MARKER).exists()


@pytest.mark.parametrize(
    "kind", ["INST", "OBJ", "REDUCE", "STACK_GLOBAL", "in a key", "thrown away", "kept in the memo"]
)
def test_what_is_written_by_hand_is_real(kind, tmp_path):
    data, _ = by_hand(str(tmp_path / MARKER))[kind]
    pickle.loads(data)
    assert (tmp_path / MARKER).exists()


def test_the_call_is_shown_in_a_few_words(tmp_path):
    torch.save({"a": Reduce(os.system, "rm -rf everything " * 100)}, tmp_path / "a.pt")
    (one,) = inspect(tmp_path / "a.pt").dangerous
    assert one.use.startswith(f"{one.name}('rm -rf everything")
    assert len(one.use) <= 120


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_code_in_torchscript_is_named(tmp_path):
    torch.jit.script(nn.Linear(2, 3)).save(tmp_path / "a.pt")
    info = inspect(tmp_path / "a.pt")
    assert info.format == "TorchScript"
    # The second such module that a process scripts is named linear/___torch_mangle_0.py.
    assert any(re.search(r"/linear\b.*\.py$", one.name) for one in info.dangerous)
    assert not info.loads_safely


def test_an_archive_in_an_archive_in_an_archive(tmp_path):
    inner = archive(Reduce(torch.storage._load_from_bytes, archive(Reduce(eval, touch(str(tmp_path / MARKER))))))
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": Reduce(torch.storage._load_from_bytes, inner)}))
    assert any(one.name.endswith("eval") for one in inspect(tmp_path / "a.pkl").dangerous)
    assert not (tmp_path / MARKER).exists()


def test_a_second_pickle_behind_the_first_is_not_taken_for_nothing(tmp_path):
    """A member of the archive that torch never reads is no danger; the pickle that it reads is."""
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt", "a") as file:
        file.writestr("a/other.pkl", pickle.dumps(Reduce(eval, "1")))
    assert not inspect(tmp_path / "a.pt").dangerous
    assert torch.load(tmp_path / "a.pt")["a"] == 1
