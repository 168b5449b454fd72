"""`ftlab fetch`: weights for a classroom, over a real connection, and nothing is lost on the way."""

import hashlib
import io
import os
import subprocess
import sys

import pytest
import torch
from torchvision import models

from ftlab.cli import main
from ftlab.pretrained import load
from ftlab.pretrained.fetching import _entry
from ftlab.pretrained.loading import _build
from tests.fileserver import serving

SMALL, OTHER = "shufflenet_v2_x0_5", "squeezenet1_1"
ENTRIES = {SMALL: models.ShuffleNet_V2_X0_5_Weights.DEFAULT, OTHER: models.SqueezeNet1_1_Weights.DEFAULT}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of torch."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture(scope="module")
def bodies():
    """The files of two models, as they are on a server."""
    found = {}
    for name in ENTRIES:
        buffer = io.BytesIO()
        torch.save(_build(name, weights=None).state_dict(), buffer)
        found[name] = buffer.getvalue()
    return found


@pytest.fixture
def server(bodies, monkeypatch):
    """Serve both files; their entries point here. `files` can be changed, `asked` says what was wanted."""
    with serving() as running:
        for name, entry in ENTRIES.items():
            path = f"/{name}-{hashlib.sha256(bodies[name]).hexdigest()[:8]}.pth"
            running.files[path] = bodies[name]
            monkeypatch.setattr(entry.value, "url", running.url + path)
        yield running


def files_in(folder):
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def served(server):
    return {path[1:] for path in server.files}


def test_both_are_fetched_and_what_to_do_with_them_is_said(server, hub, capsys):
    assert main(["fetch", SMALL, OTHER]) == 0
    assert files_in(hub) == served(server)
    said = capsys.readouterr().out
    for name in ENTRIES:
        assert f"{name}: fetched, " in said
    assert str(hub) in said
    assert "TORCH_HOME" in said


def test_what_is_there_is_not_fetched_again(server, hub, capsys):
    main(["fetch", SMALL])
    assert main(["fetch", SMALL]) == 0
    assert len(server.asked) == 1
    assert f"{SMALL}: was there already, " in capsys.readouterr().out


def test_the_folder_is_what_a_student_sets_as_torch_home(server, hub, tmp_path, monkeypatch, bodies):
    stick = tmp_path / "a stick"
    assert main(["fetch", SMALL, "--to", str(stick)]) == 0
    assert files_in(hub) == set()
    server.files.clear()
    copied = tmp_path / "student"
    stick.rename(copied)
    monkeypatch.setenv("TORCH_HOME", str(copied))
    expected = torch.load(io.BytesIO(bodies[SMALL]), weights_only=True)["fc.weight"]
    assert torch.equal(load(SMALL).fc.weight, expected)
    assert len(server.asked) == 1


def test_a_file_of_the_teachers_own_cache_is_copied(server, hub, tmp_path, capsys):
    main(["fetch", SMALL])
    assert main(["fetch", SMALL, "--to", str(tmp_path / "stick")]) == 0
    assert len(server.asked) == 1
    assert "copied from the cache of this machine" in capsys.readouterr().out
    assert len(files_in(tmp_path / "stick" / "hub" / "checkpoints")) == 1


def test_a_damaged_file_is_fetched_again(server, hub, capsys, bodies):
    main(["fetch", SMALL])
    (file,) = hub.iterdir()
    file.write_bytes(b"half")
    assert main(["fetch", SMALL]) == 0
    assert file.read_bytes() == bodies[SMALL]
    assert "was damaged, fetched again" in capsys.readouterr().out


def test_a_damaged_file_is_kept_if_the_network_is_gone(server, hub, capsys):
    main(["fetch", SMALL])
    (file,) = hub.iterdir()
    file.write_bytes(b"half")
    server.files.clear()
    assert main(["fetch", SMALL]) == 1
    assert file.read_bytes() == b"half"
    assert "is damaged, and fetching it again failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet81", "'resnet81' is no classification model of torchvision; the nearest"),
        ("ResNet50_Weights.V9", "has no 'V9'; write ResNet50_Weights.IMAGENET1K_V1, ResNet50_Weights."),
        ("ResNet50_Weights", "has no ''; write ResNet50_Weights.IMAGENET1K_V1"),
        ("Resnet50_Weights.DEFAULT", "no weights 'Resnet50_Weights'; the nearest are 'ResNet50_Weights'"),
        ("ResNet50_Weights.DEFAULT.url", "has no 'DEFAULT.url'"),
        (SMALL, "404"),
    ],
)
def test_one_that_fails_is_named_and_the_others_are_fetched(server, hub, capsys, name, said):
    server.files = {path: body for path, body in server.files.items() if SMALL not in path}
    assert main(["fetch", name, OTHER]) == 1
    out = capsys.readouterr().out
    assert f"{name}: failed: " in out
    assert said in out
    assert f"{OTHER}: fetched" in out
    assert files_in(hub) == served(server)


def test_bytes_that_are_not_those_announced_leave_nothing_behind(server, hub, capsys):
    server.files = {path: body[:-1] + b"x" for path, body in server.files.items()}
    assert main(["fetch", SMALL]) == 1
    assert "has sha256" in capsys.readouterr().out
    assert files_in(hub) == set()


def test_an_entry_can_be_named(server, hub):
    assert main(["fetch", "ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1"]) == 0
    assert len(files_in(hub)) == 1


@pytest.mark.parametrize("name", ["fasterrcnn_resnet50_fpn", "SSD300_VGG16_Weights.DEFAULT"])
def test_detectors_are_known_too(name):
    assert _entry(name).url.endswith(".pth")


@pytest.mark.parametrize("name", ["efficientnet_lite0", "EfficientNet_Lite0_Weights.DEFAULT"])
def test_the_embedded_one_needs_nothing(hub, capsys, name):
    assert main(["fetch", name]) == 0
    assert "comes with ftlab" in capsys.readouterr().out
    assert files_in(hub) == set()


def test_a_folder_that_cannot_be_made_is_said_in_one_line(server, hub, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main(["fetch", SMALL, "--to", str(tmp_path / "file")]) == 1
    assert f"{SMALL}: failed: the folder {tmp_path / 'file'}" in (out := capsys.readouterr().out)
    assert "cannot be made (Not a directory); name another one" in out


def test_the_command_ends_with_1_and_no_traceback(tmp_path):
    environment = os.environ | {"TORCH_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "ftlab", "fetch", "resnet81"]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert ran.returncode == 1
    assert "resnet81: failed" in ran.stdout
    assert "Traceback" not in ran.stdout + ran.stderr
