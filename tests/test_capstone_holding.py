"""Your own images, divided for the judge: nothing of yours is changed, and each file is copied or named."""

import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from ftlab import capstone, finetune
from ftlab.capstone import judging
from tests.test_capstone_own import HEIC, fill, picture


def contents(root: Path) -> dict[str, str]:
    return {
        file.relative_to(root).as_posix(): sha256(file.read_bytes()).hexdigest()
        for file in root.rglob("*")
        if file.is_file()
    }


@pytest.fixture
def pets(tmp_path):
    """Two classes, with what lies in such folders."""
    root = tmp_path / "my pets"
    fill(root / "cat" / "2019", 8, seed=10)
    fill(root / "dog", 8, seed=30)
    shutil.copy(root / "dog" / "0.png", root / "dog" / "0 (1).png")
    return root


def soil(root: Path) -> None:
    (root / "cat" / "IMG_1.HEIC").write_bytes(HEIC)
    (root / "cat" / ".DS_Store").write_bytes(b"x")
    shutil.copy(root / "cat" / "2019" / "1.png", root / "dog" / "cat.png")
    picture(seed=3).save(root / "lost.jpg")


def test_each_file_is_copied_or_named_and_yours_stay_as_they_are(pets, tmp_path):
    soil(pets)
    before = contents(pets)
    held = capstone.hold_back(pets, tmp_path / "divided")
    assert contents(pets) == before
    copied = {name.partition("/")[2]: digest for name, digest in contents(held.folder).items()}
    assert len(copied) == len(contents(held.folder))  # none is in two parts
    assert copied.keys() | held.left_out.keys() | set(held.passed_over) == before.keys()
    assert not copied.keys() & held.left_out.keys()
    assert all(before[name] == digest for name, digest in copied.items())
    assert held.left_out["cat/IMG_1.HEIC"].startswith("a HEIC photo")
    assert held.left_out["dog/cat.png"] == held.left_out["cat/2019/1.png"] == "the same file is in cat and dog"
    assert "lost.jpg: lies beside" in repr(held)
    assert "left out: 4" in repr(held)
    assert held.passed_over == ["cat/.DS_Store"]
    assert sum(sum(count.values()) for count in held.counts.values()) == len(copied)


def test_equal_files_stay_together_and_the_same_call_divides_in_the_same_way(pets, tmp_path):
    one, two = (capstone.hold_back(pets, tmp_path / name) for name in "ab")
    assert contents(one.folder) == contents(two.folder)
    parts = {name.partition("/")[0] for name in contents(one.folder) if name.endswith(("dog/0.png", "0 (1).png"))}
    assert len(parts) == 1
    other = capstone.hold_back(pets, tmp_path / "c", seed=12)
    assert contents(other.folder) != contents(one.folder)


def test_the_run_does_not_touch_it_and_the_judge_finds_it(pets, tmp_path, monkeypatch):
    held = capstone.hold_back(pets, tmp_path / "divided")
    finetune.run(held.folder, tmp_path / "run", size=32, epochs=1, strategy="head", say=lambda line: None)
    plan = judging.rundir.read_plan(tmp_path / "run")[0]
    trained = {file for side in ("train", "val") for file, _ in finetune.split(plan, side).samples}
    assert not any("/test/" in file for file in trained)
    monkeypatch.setattr(
        judging, "CHECKS", {name: step for name, step in judging.CHECKS.items() if step.__name__ == "_leaks"}
    )
    verdict = capstone.judge(tmp_path / "run")
    assert all(finding.passed for finding in verdict.findings)
    assert len(verdict.pictures) == sum(count["test"] for count in held.counts.values())


def test_what_cannot_be_divided_is_said_and_nothing_is_left(pets, tmp_path):
    with pytest.raises(FileNotFoundError, match="nearest"):
        capstone.hold_back(tmp_path / "my pet", tmp_path / "x")
    with pytest.raises(FileExistsError, match="there already"):
        capstone.hold_back(pets, tmp_path)
    with pytest.raises(ValueError, match="outside of"):
        capstone.hold_back(pets, pets / "divided")
    fill(pets / "bird", 2, seed=90)
    with pytest.raises(ValueError, match=r"'bird' has 2 image\(s\).*too few for three parts"):
        capstone.hold_back(pets, tmp_path / "x")
    held = capstone.hold_back(_without(pets, "bird"), tmp_path / "y")
    with pytest.raises(ValueError, match="divided already, into train and val and test; it can be trained on"):
        capstone.hold_back(held.folder, tmp_path / "x")
    assert sorted(child.name for child in tmp_path.iterdir()) == ["my pets", "y"]


def _without(root: Path, name: str) -> Path:
    shutil.rmtree(root / name)
    return root


def test_a_full_disk_leaves_nothing(pets, tmp_path, monkeypatch):
    real, done = shutil.copyfile, []

    def full(source, target):
        done.append(target)
        if len(done) == 5:
            raise OSError(28, "No space left on device")
        return real(source, target)

    monkeypatch.setattr(capstone.holding.shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        capstone.hold_back(pets, tmp_path / "divided")
    assert [child.name for child in tmp_path.iterdir()] == ["my pets"]
