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
from ftlab.data.images import Images, read_image
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
    torch.manual_seed(0)
    state = torch.get_rng_state()
    verdict = capstone.judge(run, bar=0.2)
    assert torch.equal(torch.get_rng_state(), state)
    assert failed(verdict) == []
    assert verdict.passed
    assert "the work is done" in repr(verdict)
    assert contents(run) == before


def test_a_bar_that_is_not_reached_names_the_weakest_class(run, monkeypatch):
    only(monkeypatch, "_accuracy")
    (finding,) = capstone.judge(run, bar=1.01).findings
    assert not finding.passed
    assert "the weakest class is" in finding.seen


@pytest.fixture
def leaky(clean, tmp_path):
    """A copy of the images that a test may spoil."""
    return Path(shutil.copytree(clean, tmp_path / "leaky"))


def judged(folder: Path, pictures=None) -> dict[str, capstone.Finding]:
    """Train on a folder for a moment, and return what the judge says, by check."""
    out = folder.parent / "judged"
    finetune.run(folder, out, size=32, epochs=1, strategy="head", say=lambda line: None)
    return {finding.check: finding for finding in capstone.judge(out, pictures).findings}


def test_a_sound_folder_has_no_leaks(run, monkeypatch):
    only(monkeypatch, "_leaks")
    assert failed(capstone.judge(run)) == []


def test_a_picture_that_was_saved_again_is_found_in_two_classes(leaky, monkeypatch):
    only(monkeypatch, "_leaks")
    for file in (leaky / "food").iterdir():
        read_image(file).resize((48, 48)).save(leaky / "animal" / f"{file.stem}.jpg", quality=75)
    said = judged(leaky)
    assert not said["no image in two classes"].passed
    assert "looks like food/IMG_0001.png" in said["no image in two classes"].seen
    assert "which class is right" in said["no image in two classes"].advice


def test_a_picture_on_both_sides_is_found(leaky, monkeypatch):
    only(monkeypatch, "_leaks")
    for name in capstone.CLASSES:  # one side by hand
        files = sorted((leaky / name).iterdir())
        for side, chosen in {"train": files[:5], "val": files[4:]}.items():
            (leaky / side / name).mkdir(parents=True)
            for file in chosen:
                size = (64, 64) if side == "train" else (56, 56)
                read_image(file).resize(size).save(leaky / side / name / f"{side}-{file.name}")
        shutil.rmtree(leaky / name)
    said = judged(leaky)["no image on both sides of the split"]
    assert (said.passed, said.seen.split(":")[0]) == (False, "5 images are in train and in val")
    assert "too good" in said.advice


def test_a_hidden_image_that_was_trained_on_is_found(leaky, monkeypatch):
    only(monkeypatch, "_leaks")
    seen = capstone.hidden().samples[0][0]
    shutil.copy(seen, leaky / "animal" / "mine.png")
    said = judged(leaky)
    finding = said.pop("the hidden images are new to the run")
    assert not finding.passed
    assert "animal/mine.png" in finding.seen
    assert all(other.passed for other in said.values())


def test_a_frozen_tensor_that_moved_is_found(copied, monkeypatch):
    only(monkeypatch, "_frozen")
    spoil(copied, next(iter(load(copied / rundir.LAST)["model"])))
    assert failed(capstone.judge(copied)) == ["what is frozen held, what is trained moved"]


def test_a_resume_that_ends_elsewhere_is_found(copied, monkeypatch):
    only(monkeypatch, "_resume")
    spoil(copied, list(load(copied / rundir.LAST)["model"])[-1])
    (finding,) = capstone.judge(copied).findings
    assert (finding.passed, finding.seen[:10]) == (False, "1 of 296 t")


def test_a_frozen_plan_whose_head_did_not_move_is_found(copied, monkeypatch):
    only(monkeypatch, "_frozen")
    plan, classes = rundir.read_plan(copied)
    content = dict(load(copied / rundir.LAST))
    content["model"] = judging.planned_model(plan, classes)[0].state_dict()
    write(copied / rundir.LAST, content)
    (finding,) = capstone.judge(copied).findings
    assert not finding.passed
    assert "should learn and is as at the start" in finding.advice


def test_a_process_that_answers_otherwise_is_found(copied, monkeypatch):
    only(monkeypatch, "_fresh")
    real = judging.subprocess.run

    def spoilt(command, **options):
        (copied / "best.pt").write_bytes(b"half")
        return real(command, **options)

    monkeypatch.setattr(judging.subprocess, "run", spoilt)
    (finding,) = capstone.judge(copied).findings
    assert not finding.passed
    assert "best.pt" in finding.advice


@pytest.mark.parametrize("name", [rundir.BEST, rundir.LAST])
@pytest.mark.parametrize("content", [b"half", None, {"model": 1}], ids=["cut", "gone", "something else"])
def test_a_checkpoint_that_cannot_be_read_is_a_finding_and_ends_nothing(copied, monkeypatch, name, content):
    reads = {rundir.BEST: ["_fresh", "_accuracy"], rundir.LAST: ["_frozen", "_resume"]}[name]
    only(monkeypatch, *reads, "_leaks")
    if isinstance(content, dict):
        write(copied / name, content)
    elif content is None:
        (copied / name).unlink()
    else:
        (copied / name).write_bytes(content)
    *leaks, first, second = capstone.judge(copied).findings
    assert [finding.passed for finding in leaks] == [True] * 3
    for finding in (first, second):
        assert not finding.passed
        assert finding.seen.startswith("could not be checked")
        assert "run again" in finding.advice
        assert str(copied) not in finding.seen


def test_a_folder_that_changed_after_the_run_is_found(clean, tmp_path, monkeypatch):
    only(monkeypatch, "_resume")
    mine = Path(shutil.copytree(clean, tmp_path / "mine"))
    finetune.run(mine, tmp_path / "run", size=32, epochs=1, strategy="head", say=lambda line: None)
    next((mine / "food").iterdir()).unlink()
    (finding,) = capstone.judge(tmp_path / "run").findings
    assert not finding.passed
    assert "other images now" in finding.seen
    shutil.rmtree(mine)
    (finding,) = capstone.judge(tmp_path / "run").findings
    assert "could not be checked" in finding.seen
    assert "run again into another folder" in finding.advice


def test_a_class_that_is_not_measured_is_named(run, monkeypatch):
    only(monkeypatch, "_accuracy")
    few = capstone.hidden()
    some = [sample for sample in few.samples if few.classes[sample[1]] != "sport"]
    (finding,) = capstone.judge(run, Images(Path(few.root), few.classes, some, title="few"), bar=0.1).findings
    assert "no image of sport to measure with" in finding.seen


def test_the_surest_mistakes_are_drawn(run, monkeypatch):
    only(monkeypatch, "_accuracy")
    verdict = capstone.judge(run, bar=1.01)
    assert "said" in repr(verdict.mistakes(3))
    only_leaks = capstone.Verdict(verdict.findings)
    with pytest.raises(ValueError, match="no accuracy was measured"):
        only_leaks.mistakes()


def test_whoever_listens_may_end_it(run, monkeypatch):
    class Stopped(Exception):  # noqa: N818 - as the panel's
        pass

    def say(line):
        raise Stopped

    with pytest.raises(Stopped):
        capstone.judge(run, say=say)


def test_each_step_is_announced(run, monkeypatch):
    only(monkeypatch, "_accuracy")
    said = []
    capstone.judge(run, say=said.append)
    assert said == ["accuracy on hidden images"]


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
    write(out / rundir.LAST, content)


def write(path: Path, content: dict) -> None:
    """Save it whole."""
    with NewFile(path) as file:
        torch.save(content, file)
        file.put_in_place()


def only(monkeypatch, *wanted: str) -> None:
    """Leave the other, slow checks out."""
    kept = {check: step for check, step in judging.CHECKS.items() if step.__name__ in wanted}
    assert len(kept) == len(wanted)
    monkeypatch.setattr(judging, "CHECKS", kept)
