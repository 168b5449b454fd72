"""The checkpoint doctor's panel: every piece of the museum, own files, own models; its code is run."""

import copy
import datetime

import pytest
import torch
from torch import nn

from ftlab import checkpoints
from ftlab.freezing.snapshot import same
from ftlab.widgets.checkpoints import CheckpointPanel
from ftlab.widgets.checkpoints.views import key_rows


@pytest.fixture(scope="module")
def museum(tmp_path_factory):
    return checkpoints.museum(tmp_path_factory.mktemp("museum"))


@pytest.fixture
def panel(museum):
    panel = CheckpointPanel(museum, {"mine": lambda: nn.Linear(3, 2)})
    yield panel
    panel.close()


def uploaded(name, content):
    now = datetime.datetime.now(tz=datetime.UTC)
    kind = {"name": name, "type": "", "size": len(content), "last_modified": now}
    return {**kind, "content": memoryview(content)}


def test_every_piece_is_examined_and_the_code_does_what_the_button_does(panel, museum):
    repaired = 0
    for piece in museum:
        panel.file.value = piece.name
        assert panel.failure is None
        assert repr(panel).startswith(piece.path.name)
        for kind in piece.finds:
            assert kind in panel.findings.value
        if not panel.code():
            assert panel.apply.disabled
            assert "Nothing can be loaded" in repr(panel)
            continue
        other = copy.deepcopy(panel.model)
        assert not panel.apply.disabled
        assert "names have a tensor of that name" in panel.keys.value
        names = {"model": other}
        exec(panel.code(), names)
        panel.apply.click()
        assert panel.failure is None, piece.name
        assert "The fix was applied" in repr(panel) or "The fix has built a" in repr(panel)
        for name, value in panel.model.state_dict().items():
            assert same(value.detach(), names["model"].state_dict()[name].detach()), (piece.name, name)
        repaired += piece.is_repaired(panel.model)
    assert repaired == sum(piece.truth is not None for piece in museum)
    assert not museum.sprung


def test_looking_changes_neither_the_model_nor_the_random_state(museum):
    model = nn.Linear(3, 2)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    panel = CheckpointPanel(museum, {"mine": lambda: model})
    panel.network.value = "mine"
    panel.file.value = "trainer"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    panel.close()


def test_a_fix_is_applied_once_and_another_file_begins_anew(panel):
    panel.file.value = "ten_classes"
    panel.apply.click()
    assert "20 of 22 tensors were loaded" in panel.done.value
    assert panel.apply.disabled
    panel.file.value = "half"
    assert panel.done.value == ""
    assert not panel.apply.disabled


def test_an_own_file_and_an_own_model(panel, tmp_path):
    theirs = nn.DataParallel(nn.Linear(3, 2))
    torch.save(theirs.state_dict(), tmp_path / "my.pt")
    panel.network.value = "mine"
    panel.upload.value = (uploaded("my.pt", (tmp_path / "my.pt").read_bytes()),)
    assert panel.failure is None
    assert repr(panel) == "my.pt: prefix. The fix loads 2 of the model's 2 tensors"
    panel.apply.click()
    assert torch.equal(panel.model.weight, theirs.module.weight)
    panel.upload.value = (uploaded("my.pt", b"<html><title>Log in</title></html>"),)
    assert "html-page" in repr(panel)


def test_a_file_by_its_path(panel, tmp_path, monkeypatch):
    monkeypatch.delenv("FTLAB_CI", raising=False)
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "parallel.pth")
    panel.path.value = str(tmp_path / "nowhere.pt")
    assert "there is no file" in str(panel.failure)
    assert repr(panel).startswith("parallel.pth: prefix")
    panel.network.value = "mine"
    panel.path.value = str(tmp_path / "parallel.pth")
    assert panel.failure is None
    assert panel.chosen_path == tmp_path / "parallel.pth"
    assert "nothing is wrong" in repr(panel)
    assert "A file of your own" in panel.story.value


def test_a_real_network_gets_a_file_of_its_own(panel, tmp_path):
    from ftlab import pretrained

    torch.save(
        {"state_dict": pretrained.load("mobilenet_v3_large", weights=None).state_dict()}, tmp_path / "x.pt"
    )
    panel.network.value = "mobilenet_v3_large"
    panel.path.value = str(tmp_path / "x.pt")
    assert panel.failure is None
    assert repr(panel).startswith("x.pt: nested. The fix loads 312 of the model's 312 tensors")
    assert "more rows" in panel.keys.value


def test_what_is_in_a_file_is_escaped(panel, tmp_path):
    torch.save({"<script>alert(1)</script>": torch.zeros(1)}, tmp_path / "x.pt")
    panel.path.value = str(tmp_path / "x.pt")
    assert "<script>" not in panel.keys.value + panel.findings.value + panel.to_html()


def test_a_stored_output_says_what_it_means_and_names_no_folder(panel, museum):
    panel.apply.click()
    html = panel.to_html()
    assert "The fix was applied" in html
    assert "parallel.pth" in html
    assert str(museum.folder) not in html


def test_every_control_has_a_name(panel):
    for control in (panel.file, panel.network, panel.upload, panel.path, panel.apply):
        assert control.description


def test_rows_put_what_differs_first():
    rows = key_rows({"a": (2, 3), "b": (), "z": (1,)}, {"a": (2, 3), "b": (4,), "y": (1,), "x": (1,)})
    assert rows == [
        ["z  1", "another name", "y  1"],
        ["", "only in the model", "x  1"],
        ["b  one number", "another shape", "b  4"],
        ["a  2×3", "same", "a  2×3"],
    ]
    assert key_rows({"z": (2,), "w": (1,)}, {"y": (3,)}) == [
        ["z  2", "another name and shape", "y  3"],
        ["w  1", "only in the file", ""],
    ]
