"""The capstone: its folder has the usual dirt, and its judge notices what is wrong with a run."""

import shutil
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from ftlab import capstone, data, finetune
from ftlab.capstone import judging
from ftlab.checkpoints import load
from ftlab.checkpoints.replacing import NewFile
from ftlab.data.images import Images
from ftlab.finetune import rundir


def contents(root: Path) -> dict[str, str]:
    files = [file for file in root.rglob("*") if file.is_file()]
    return {file.relative_to(root).as_posix(): sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Some images of each class, without the dirt."""
    whole = capstone.make_folder(tmp_path_factory.mktemp("capstone") / "mine")
    few = whole.parent / "few"
    for name in capstone.CLASSES:
        (few / name).mkdir(parents=True)
        for file in sorted((whole / name).glob("IMG_00*.png"))[:8]:
            if "(1)" not in file.name:
                shutil.copy(file, few / name)
    return few


@pytest.fixture(scope="module")
def run(clean, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    finetune.run(clean, out, size=32, epochs=2, strategy="head", say=lambda line: None)
    return out


@pytest.fixture
def copied(run, tmp_path):
    """A copy of the run that a test may spoil."""
    return Path(shutil.copytree(run, tmp_path / "run"))


def failed(verdict: capstone.Verdict) -> list[str]:
    return [finding.check for finding in verdict.findings if not finding.passed]


def test_the_folder_is_the_same_each_time_and_has_its_dirt(tmp_path):
    first, second = (capstone.make_folder(tmp_path / name) for name in ("a", "b"))
    assert contents(first) == contents(second)
    with pytest.raises(ValueError, match="not ready for training") as caught:
        data.folder(first)
    for words in ("new folder", "animal/IMG_0901.png", "food/IMG_0900.png"):
        assert words in str(caught.value)


def test_the_hidden_images_are_not_in_the_folder(tmp_path):
    inside = set(contents(capstone.make_folder(tmp_path / "mine")).values())
    assert not {sha256(Path(file).read_bytes()).hexdigest() for file, _ in capstone.hidden().samples} & inside


def test_nothing_of_yours_is_overwritten(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty"):
        capstone.make_folder(tmp_path)
    assert [child.name for child in tmp_path.iterdir()] == ["mine.txt"]


def test_a_sound_run_passes_and_is_as_it_was(run):
    before = contents(run)
    verdict = capstone.judge(run, bar=0.2)
    assert failed(verdict) == []
    assert verdict.passed
    assert "the work is done" in repr(verdict)
    assert contents(run) == before


def test_a_bar_that_is_not_reached_names_the_weakest_class(run, monkeypatch):
    only(monkeypatch, "_accuracy")
    (finding,) = capstone.judge(run, bar=1.01).findings
    assert not finding.passed
    assert "the weakest class is" in finding.seen


def test_leaks_are_found(run, clean, tmp_path, monkeypatch):
    only(monkeypatch, "_leaks")
    assert failed(capstone.judge(run)) == []
    leaky = Path(shutil.copytree(clean, tmp_path / "leaky"))
    files = sorted((leaky / "food").iterdir())
    for file in files:
        shutil.copy(file, leaky / "animal" / f"x{file.name}")
    finetune.run(leaky, tmp_path / "run", size=32, epochs=1, strategy="head", say=lambda line: None)
    assert "no image in two classes" in failed(capstone.judge(tmp_path / "run"))


def test_a_frozen_tensor_that_moved_is_found(copied, monkeypatch):
    only(monkeypatch, "_frozen")
    spoil(copied, next(iter(load(copied / rundir.LAST)["model"])))
    assert failed(capstone.judge(copied)) == ["what is frozen held, what is trained moved"]


def test_a_resume_that_ends_elsewhere_is_found(copied, monkeypatch):
    only(monkeypatch, "_resume")
    spoil(copied, list(load(copied / rundir.LAST)["model"])[-1])
    (finding,) = capstone.judge(copied).findings
    assert (finding.passed, finding.seen[:10]) == (False, "1 of 296 t")


def test_a_process_that_cannot_load_it_is_found(copied, monkeypatch):
    only(monkeypatch, "_fresh")
    assert failed(capstone.judge(copied)) == []
    real = judging.subprocess.run

    def spoilt(command, **options):
        (copied / "best.pt").write_bytes(b"half")
        return real(command, **options)

    monkeypatch.setattr(judging.subprocess, "run", spoilt)
    (finding,) = capstone.judge(copied).findings
    assert not finding.passed
    assert "best.pt" in finding.advice


def test_what_cannot_be_judged_is_said(run, copied, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder of a run"):
        capstone.judge(tmp_path)
    strange = Images(tmp_path, ["cat"], [], title="strange")
    with pytest.raises(ValueError, match="knows no class 'cat'"):
        capstone.judge(run, strange)
    (copied / rundir.REPORT).unlink()
    with pytest.raises(FileNotFoundError, match="has not ended"):
        capstone.judge(copied)


def spoil(out: Path, name: str) -> None:
    """Change one number of a tensor in the last checkpoint."""
    content = dict(load(out / rundir.LAST))
    content["model"][name].view(-1)[0] += 1
    with NewFile(out / rundir.LAST) as file:
        torch.save(content, file)
        file.put_in_place()


def only(monkeypatch, wanted: str) -> None:
    """Leave the other, slow checks out."""
    for name in {"_leaks", "_frozen", "_fresh", "_resume", "_accuracy"} - {wanted}:
        monkeypatch.setattr(judging, name, lambda *args: iter(()))
