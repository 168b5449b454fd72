"""`ftlab doctor`: exit codes, words and JSON, and never a traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchvision import models

from ftlab.checkpoints import museum
from ftlab.checkpoints.doctor import examine, printable
from ftlab.cli import main

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    return museum(tmp_path_factory.mktemp("museum"))


def doctor(capsys, *arguments: object) -> tuple[int, str]:
    code = main(["doctor", *map(str, arguments)])
    return code, capsys.readouterr().out


def as_json(capsys, *arguments: object) -> tuple[int, dict]:
    code, out = doctor(capsys, *arguments, "--json")
    return code, json.loads(out)


def in_a_process(*arguments: object, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "ftlab", "doctor", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, env=environment, timeout=600, **options)


@pytest.fixture
def mobile(tmp_path) -> Path:
    """A small torchvision model with seven classes."""
    torch.save(models.squeezenet1_1(num_classes=7).state_dict(), tmp_path / "mobile.pt")
    return tmp_path / "mobile.pt"


def test_a_file_that_is_fine(mobile, capsys):
    for arguments in ([], ["--model", "squeezenet1_1", "--classes", 7]):
        code, out = doctor(capsys, mobile, *arguments)
        assert code == 0
        assert "52 tensors" in out
        assert f"torch.load({str(mobile)!r}, map_location='cpu', weights_only=True)" in out


def test_findings_give_1_and_their_fix_runs(mobile, capsys):
    torch.save({f"module.{k}": v for k, v in torch.load(mobile).items()}, mobile)
    code, found = as_json(capsys, mobile, "--model", "squeezenet1_1", "--classes", 4)
    assert code == 1
    assert [finding["kind"] for finding in found["findings"]] == ["prefix", "classes"]
    assert all(finding.keys() == {"kind", "seen", "means", "fix"} for finding in found["findings"])
    model = models.squeezenet1_1(num_classes=4)
    exec(found["fix"], {"model": model})
    state = torch.load(mobile)
    assert torch.equal(model.features[0].weight, state["module.features.0.weight"])


def test_without_a_model_the_names_alone_say_much(mobile, capsys):
    torch.save({f"_orig_mod.module.{k}": v.half() for k, v in torch.load(mobile).items()}, mobile)
    code, found = as_json(capsys, mobile)
    assert code == 1
    assert [finding["kind"] for finding in found["findings"]] == ["prefix", "half-precision"]


def test_every_exhibit_of_the_museum_has_its_code(rooms, capsys):
    unreadable = {"truncated", "empty", "html-page", "lfs-pointer", "foreign", "packed", "damaged", "dcp-shard"}
    for exhibit in rooms:
        code, found = as_json(capsys, exhibit.path)
        assert (code == 2) == bool(unreadable & set(exhibit.finds)), exhibit.name
        assert found["whole"] == (code != 2)
        assert bool(found["dangerous"]) == ("dangerous" in exhibit.finds)
        assert (code == 0) <= (not found["findings"])
        doctor(capsys, exhibit.path)
    assert not rooms.sprung


def test_json_has_what_a_program_needs(rooms, capsys):
    code, found = as_json(capsys, rooms["booby_trap"].path)
    assert code == 1
    assert found["whole"] is True
    assert len(found["tensors"]) == 22
    assert {"name", "shape", "dtype", "device", "bytes"} <= found["tensors"][0].keys()
    assert any("touch" in name or "getattr" in name for name in found["dangerous"])
    assert found["findings"][0]["kind"] == "dangerous"


def test_another_model_is_named(mobile, capsys):
    code, out = doctor(capsys, mobile, "--model", "resnet18")
    assert code == 1
    assert "squeezenet1_1" in out


def test_torch_is_not_loaded_without_a_model(rooms):
    code = (
        "import sys; from ftlab.cli import main\n"
        f"code = main(['doctor', {str(rooms['parallel'].path)!r}])\n"
        "print(code, 'torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert ran.stdout.splitlines()[-1] == "1 False", ran.stderr


# No input whatever gives a traceback


def strange(folder: Path) -> dict[str, object]:
    (folder / "a\nb\x1b[31m.pt").write_bytes(b"\x80\x02}q\x00.")
    (folder / "locked.pt").write_bytes(b"x")
    (folder / "locked.pt").chmod(0)
    (folder / "loop.pt").symlink_to(folder / "loop.pt")
    (folder / "lost.pt").symlink_to(folder / "nowhere.pt")
    (folder / "folder.pt").mkdir()
    (folder / "many").mkdir()
    (folder / "many" / ".metadata").mkdir()
    os.mkfifo(folder / "pipe.pt")
    return {
        "missing": folder / "none.pt",
        "a folder": folder / "folder.pt",
        "a folder in place of a file": folder / "many",
        "a device": "/dev/zero",
        "a pipe": folder / "pipe.pt",
        "no permission": folder / "locked.pt",
        "a link to itself": folder / "loop.pt",
        "a link to nothing": folder / "lost.pt",
        "a file as a folder": folder / "locked.pt" / "x.pt",
        "control characters": folder / "a\nb\x1b[31m.pt",
        "no text": os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.pt"),
        "nothing": "",
        "a zero byte": "a\0b",
        "very long": "x" * 5000,
        "a program": sys.executable,
        "this test": __file__,
        "/proc": "/proc/self/mem",
    }


STRANGE = ["missing", "a folder", "a folder in place of a file", "a device", "a pipe", "no permission",
           "a link to itself", "a link to nothing", "a file as a folder", "control characters", "no text",
           "nothing", "a zero byte", "very long", "a program", "this test", "/proc"]  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="the strange files are Linux's")
@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.parametrize("more", [[], ["--json"], ["--model", "squeezenet1_1"]])
def test_no_file_gives_a_traceback(kind, more, tmp_path, capsys):
    code, out = doctor(capsys, strange(tmp_path)[kind], *more)
    if kind != "control characters":
        assert code == 2 or os.geteuid() == 0  # root may read everything
    assert "Traceback" not in out
    assert out.strip()
    assert "\x1b" not in out
    if "--json" in more:
        assert json.loads(out)["whole"] is (kind == "control characters")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "resnet81"], "cannot be compared with 'resnet81'"),
        (["--model", ""], "52 tensors"),
        (["--model", "squeezenet1_1", "--classes", 10**15], ""),
    ],
)
def test_no_model_gives_a_traceback(arguments, says, mobile, capsys):
    _, out = doctor(capsys, mobile, *arguments)
    assert says in out
    assert "Traceback" not in out


@pytest.mark.parametrize(
    "arguments", [["--classes", "-1", "--model", "resnet18"], ["--classes", "3"], ["--classes", "x"]]
)
def test_arguments_that_make_no_sense_give_2(arguments, mobile):
    ran = in_a_process(mobile, *arguments, text=True)
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="names of files that are no text")
def test_a_name_that_is_no_text_and_a_terminal_that_knows_ascii_only(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff\xc3\xa9.pt"
    torch.save({"é\x1b[2J": torch.ones(1)}, tmp_path / "x.pt")
    (tmp_path / "x.pt").rename(os.fsdecode(path))
    for more in ([], [b"--json"]):
        command = [sys.executable, b"-X", b"utf8=0", b"-m", b"ftlab", b"doctor", path, *more]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
        ran = subprocess.run(command, capture_output=True, env=environment, timeout=600)
        assert ran.returncode == 0
        assert b"Traceback" not in ran.stderr
        assert b"\x1b" not in ran.stdout


@pytest.mark.skipif(os.name == "nt", reason="a pipe that is closed is Unix's")
def test_a_reader_that_has_seen_enough_is_no_error(rooms):
    command = f"{sys.executable} -m ftlab doctor {rooms['innocent'].path} | true"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment)
    assert ran.stderr == ""


def test_what_steers_a_terminal_is_written_out():
    assert printable("a\x1b[31mb\r\nc\u202e") == "a\\x1b[31mb\\r\nc\\u202e"


def test_whatever_breaks_inside_is_an_answer(mobile, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr("ftlab.checkpoints.doctor.inspect", broken)
    assert examine(str(mobile)) == (2, f"{mobile} cannot be read: a mistake of ours")
