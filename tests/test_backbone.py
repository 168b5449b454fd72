"""The lessons on another backbone than the embedded one: `FTLAB_BACKBONE=resnet18`, fetched over a connection.

Torchvision's own ResNet-18 cannot be had where there is no network. So a server on this machine has a file of the
same format, whose parameters are random: the address is that of the server, and the file's name has its own hash,
which is checked as always. Every lesson runs on it, in a fresh kernel, from top to bottom.

Random parameters know nothing of cats. What a lesson asserts about *knowledge* stands in cells of its own, with
the tag `learned`, and only those may find their assertion untrue here. Where torchvision's own file is in the
cache, the lessons run on that one too, and then every cell must hold.
"""

import hashlib
import io
import os
import re
import shutil
from pathlib import Path

import nbclient
import nbformat
import pytest
import torch
from nbclient.exceptions import CellExecutionError
from torchvision import models

from ftlab import data, pretrained
from ftlab.pretrained.catalogue import cached_file
from ftlab.training import loader
from ftlab.widgets.pretrained import PreprocessingPanel
from tests.fileserver import serving

LESSONS = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
ENTRY = models.ResNet18_Weights.DEFAULT
LEARNED = "learned"

every_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def resnet18() -> dict[str, torch.Tensor]:
    """The tensors of a ResNet-18 with random parameters, whose batch norms have seen images."""
    torch.manual_seed(0)
    model = models.resnet18()
    emoji = data.emoji("train", transform=pretrained.preprocessing("resnet18", size=64))
    torch.optim.swa_utils.update_bn([next(iter(loader(emoji, batch_size=64, shuffle=True)))[0]], model)
    return model.state_dict()


@pytest.fixture(scope="module")
def server(resnet18):
    """A server with that file, `server.weights`; its name ends in its hash, as torchvision's do."""
    buffer = io.BytesIO()
    torch.save(resnet18, buffer)
    body = buffer.getvalue()
    with serving() as running:
        running.weights = f"{running.url}/resnet18-{hashlib.sha256(body).hexdigest()[:8]}.pth"
        running.files[running.weights.removeprefix(running.url)] = body
        yield running


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty place for downloads, and ResNet-18 as the backbone."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("FTLAB_BACKBONE", "resnet18")
    yield tmp_path / "torch"
    shutil.rmtree(tmp_path / "torch", ignore_errors=True)  # 45 MB for each lesson


def run(lesson: Path, folder: Path) -> list[str]:
    """Run a lesson in a fresh kernel; return what each `learned` cell that was not true asserts.

    Whatever else a cell raises fails the test.
    """
    notebook = nbformat.read(lesson, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=900, startup_timeout=300, kernel_name="python3")
    untrue = []
    with client.setup_kernel(cwd=str(folder)):
        for index, cell in enumerate(notebook.cells):
            try:
                client.execute_cell(cell, index)
            except CellExecutionError as error:
                if LEARNED not in cell.metadata.get("tags", []) or error.ename != "AssertionError":
                    raise
                untrue.append(cell.source)
    return untrue


def at_this_address(url: str) -> str:
    """Return a line after which torchvision's entry has another address."""
    return f"from torchvision import models\nmodels.ResNet18_Weights.DEFAULT.value.url = {url!r}"


class OnResNet18:
    """One lesson; each has a class of its own, for xdist keeps a class together and spreads classes."""

    lesson: Path

    def test_it_runs_on_a_resnet18_that_is_fetched(self, server, home, tmp_path, monkeypatch):
        asked = len(server.asked)
        # In every process, for lessons start some; Python runs a file of this name as it starts.
        (tmp_path / "sitecustomize.py").write_text(at_this_address(server.weights))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
        run(self.lesson, tmp_path)
        fetched = [file.name for file in (home / "hub/checkpoints").glob("*")]
        assert len(fetched) == 1 or "pretrained.load(" not in self.lesson.read_text(encoding="utf-8")
        assert server.asked[asked:] == [f"/{name}" for name in fetched]  # once, and whole


globals().update(
    {f"Test_{path.stem}": type(f"Test_{path.stem}", (OnResNet18,), {"lesson": path}) for path in LESSONS}
)


def test_the_file_is_refused_if_its_bytes_are_not_those_of_its_name(server, home, monkeypatch):
    path = server.weights.removeprefix(server.url)
    other = re.sub(r"-\w{8}\.", "-00000000.", path)
    monkeypatch.setitem(server.files, other, server.files[path])
    monkeypatch.setattr(ENTRY.value, "url", server.url + other)
    with pytest.raises(FileNotFoundError, match="sha256"):
        pretrained.load()
    assert not list(home.rglob("*.pth"))


def test_the_panel_begins_with_the_backbone_once_its_file_is_here(server, home, monkeypatch):
    assert PreprocessingPanel().network.value == "efficientnet_lite0"
    monkeypatch.setattr(ENTRY.value, "url", server.weights)
    pretrained.fetch(ENTRY)
    panel = PreprocessingPanel()
    assert panel.network.value == "resnet18"
    assert panel.failure is None
    assert repr(panel).startswith("cat, resnet18: with the right preprocessing")


def test_the_runner_is_strict_but_for_assertions_in_learned_cells(tmp_path):
    def lesson(source, *tags):
        cell = nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)})
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "x.ipynb")
        return tmp_path / "x.ipynb"

    assert run(lesson("assert 1 > 2", LEARNED), tmp_path) == ["assert 1 > 2"]
    with pytest.raises(CellExecutionError, match="AssertionError"):
        run(lesson("assert 1 > 2"), tmp_path)
    with pytest.raises(CellExecutionError, match="NameError"):
        run(lesson("assert missing", LEARNED), tmp_path)


@every_lesson
def test_learned_cells_only_assert(lesson):
    """A cell that also makes something would leave the next ones on its ruins."""
    cells = nbformat.read(lesson, as_version=4).cells
    for cell in cells:
        if LEARNED in cell.metadata.get("tags", []):
            assert "assert " in cell.source
            assert "nbval-ignore-output" not in cell.metadata.tags
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    assert not re.search(r"pretrained\.load\([^\"'\n]*\)\.(features|classifier)\b", code)


@every_lesson
@pytest.mark.skipif(
    not cached_file(ENTRY).exists(), reason="torchvision's own resnet18 is not here: ftlab fetch resnet18"
)
def test_every_claim_holds_on_torchvisions_own_weights(lesson, monkeypatch, tmp_path):
    assert hashlib.sha256(cached_file(ENTRY).read_bytes()).hexdigest()[:8] == "f37072fd"
    monkeypatch.setenv("FTLAB_BACKBONE", "resnet18")
    assert run(lesson, tmp_path) == []


# The variable


def test_the_backbone_is_the_embedded_one_unless_the_variable_names_another(monkeypatch):
    monkeypatch.delenv("FTLAB_BACKBONE", raising=False)
    assert pretrained.backbone() == "efficientnet_lite0"
    monkeypatch.setenv("FTLAB_BACKBONE", "")
    assert pretrained.backbone() == "efficientnet_lite0"
    monkeypatch.setenv("FTLAB_BACKBONE", "resnet18")
    assert pretrained.backbone() == "resnet18"
    assert type(pretrained.load(weights=None)) is models.ResNet
    assert pretrained.preprocessing().mean == [0.485, 0.456, 0.406]
    assert pretrained.wrong_preprocessing("another normalisation").mean == [0.5] * 3
    assert type(pretrained.load("alexnet", weights=None)) is models.AlexNet  # a name that is said counts


def random():
    return pretrained.load(weights=None)


@pytest.mark.parametrize("call", [pretrained.backbone, pretrained.load, pretrained.preprocessing, random])
def test_a_wrong_name_is_an_error_that_names_the_nearest(call, monkeypatch):
    monkeypatch.setenv("FTLAB_BACKBONE", "resnet81")
    with pytest.raises(ValueError, match=r"FTLAB_BACKBONE is 'resnet81'.*nearest (is|are) 'resnet18'.*Without"):
        call()


def test_the_variable_is_not_read_when_a_name_is_said(monkeypatch):
    monkeypatch.setenv("FTLAB_BACKBONE", "resnet81")
    assert pretrained.load("efficientnet_lite0") is not None
