"""A learner's own folder in every layout that people have: nothing is lost in silence, and no layout hangs."""

import contextlib
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ftlab import data

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)


def picture(mode: str = "RGB", seed: int = 0) -> Image.Image:
    """A picture of noise: each seed gives another one."""
    noise = np.random.default_rng(seed)
    if mode == "I;16":
        return Image.fromarray(noise.integers(0, 65535, (24, 32)).astype(np.uint16))
    return Image.fromarray(noise.integers(0, 255, (24, 32, 3), dtype=np.uint8)).convert(mode)


def fill(place: Path, count: int = 4, seed: int = 0) -> None:
    place.mkdir(parents=True)
    for number in range(count):
        picture(seed=seed + number).save(place / f"{number}.png")


@pytest.fixture
def pets(tmp_path):
    """Two classes of four images."""
    fill(tmp_path / "pets" / "cat", seed=10)
    fill(tmp_path / "pets" / "dog", seed=20)
    return tmp_path / "pets"


def names(root: Path, split: str = "all", **options) -> set[str]:
    return {Path(file).relative_to(root).as_posix() for file, _ in data.folder(root, split, **options).samples}


FORMATS = {
    "PHOTO.JPG": "RGB",
    "Ü ñ 猫 (2).Png": "RGB",
    "print.jpeg": "CMYK",
    "transparent.png": "RGBA",
    "scan.png": "I;16",
    "drawing.gif": "P",
    "grey.webp": "L",
    "fax.TIFF": "1",
}


def test_every_usual_format_is_read_as_rgb(pets):
    for seed, (name, mode) in enumerate(FORMATS.items()):
        picture(mode, seed).save(pets / "cat" / name)
    images = data.folder(pets)
    read = {Path(file).name: images[place][0] for place, (file, _) in enumerate(images.samples)}
    assert read.keys() >= FORMATS.keys()
    assert {(image.mode, image.size) for image in read.values()} == {("RGB", (32, 24))}
    assert all(np.asarray(read[name]).std() > 10 for name in FORMATS)  # and is no white page
    assert images.skipped == {}


def test_what_cannot_be_read_is_counted_with_its_reason(pets):
    (pets / "cat" / "IMG_1.HEIC").write_bytes(HEIC)
    (pets / "cat" / "film.mov").write_bytes(b"\0\0\0\x14ftypqt  " + bytes(20))
    (pets / "dog" / "list.txt").write_text("eggs")
    (pets / "loose.heic").write_bytes(HEIC)
    (pets / "README.md").write_text("my pets")
    with pytest.raises(ValueError, match=r"bad files \(4\)") as caught:
        data.folder(pets)
    for words in ("cat/IMG_1.HEIC: a HEIC photo", "cat/film.mov: no image", "loose.heic: lies beside"):
        assert words in str(caught.value)
    with pytest.warns(UserWarning, match=r"left out \(4\)"):
        images = data.folder(pets, skip_bad=True)
    assert sorted(Path(file).name for file in images.skipped) == [
        "IMG_1.HEIC",
        "film.mov",
        "list.txt",
        "loose.heic",
    ]
    assert "bad files left out: 4" in repr(images)


def test_what_the_system_left_there_is_no_image(pets):
    before = names(pets)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png"):
        (pets / "cat" / name).write_bytes(b"x")
    (pets / "__MACOSX").mkdir()
    assert names(pets) == before


def test_folders_inside_a_class_belong_to_it(pets):
    fill(pets / "cat" / "2019 summer" / "June", 2, seed=50)
    assert {"cat/2019 summer/June/0.png", "cat/0.png"} <= names(pets)


@pytest.mark.parametrize(
    "target", [".", "..", "../..", "../../out"], ids=["itself", "the root", "above", "round, elsewhere"]
)
def test_a_link_that_leads_back_is_not_followed_for_ever(pets, target):
    fill(pets / "cat" / "more", 1, seed=60)
    (pets.parent / "out").mkdir()
    (pets.parent / "out" / "again").symlink_to(".")
    (pets / "cat" / "loop").symlink_to(target)
    with pytest.raises(ValueError, match=r"cat/loop.*read already"):
        data.folder(pets)
    with pytest.warns(UserWarning, match="read already"):
        images = data.folder(pets, skip_bad=True)
    of_cat = [Path(file).name for file, target in images.samples if target == 0]
    assert sorted(of_cat) == ["0.png", "0.png", "1.png", "2.png", "3.png"]  # each once


def test_a_link_to_a_folder_elsewhere_is_followed(pets, tmp_path):
    fill(tmp_path / "elsewhere", 2, seed=70)
    (pets / "cat" / "linked").symlink_to(tmp_path / "elsewhere")
    assert {"cat/linked/0.png", "cat/linked/1.png"} <= names(pets)


def test_a_picture_in_two_classes_is_named(pets):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.folder(pets)  # nothing to say
    (pets / "dog" / "same.png").write_bytes((pets / "cat" / "2.png").read_bytes())
    with pytest.warns(UserWarning, match=r"two classes \(1\)(.|\n)*dog/same\.png: the same file as cat/2\.png"):
        data.folder(pets, "train")


def test_two_images_of_a_class_are_one_for_each_side(tmp_path):
    fill(tmp_path / "few" / "cat", 2, seed=1)
    fill(tmp_path / "few" / "dog", 5, seed=11)
    sides = [names(tmp_path / "few", side) for side in ("train", "val")]
    assert [sum(name.startswith("cat") for name in side) for side in sides] == [1, 1]
    (tmp_path / "few" / "cat" / "1.png").write_bytes((tmp_path / "few" / "cat" / "0.png").read_bytes())
    with pytest.raises(ValueError, match=r"'cat' has 2 image\(s\), and copies count once"):
        data.folder(tmp_path / "few", "train")


@pytest.fixture
def sides(tmp_path):
    """Train and val folders, as some data sets come."""
    for number, side in enumerate(("Train", "val")):
        for offset, name in enumerate(("cat", "dog")):
            fill(tmp_path / "set" / side / name, 3, seed=100 * number + 10 * offset)
    return tmp_path / "set"


def test_what_lies_beside_train_and_val_is_named(sides):
    fill(sides / "test" / "cat", 1, seed=500)  # is allowed to be there
    before = names(sides)
    assert not any(name.startswith("test") for name in before)
    fill(sides / "bird", 2, seed=600)
    picture(seed=7).save(sides / "lost.jpg")
    (sides / "README.md").write_text("how it was made")
    with pytest.raises(ValueError, match=r"bird, lost\.jpg: lies beside 'train' and 'val'"):
        data.folder(sides)
    with pytest.warns(UserWarning, match=r"left out \(2\)"):
        assert names(sides, skip_bad=True) == before


def test_two_folders_for_one_side_are_refused(sides):
    fill(sides / "validation" / "cat", 1, seed=700)
    with pytest.raises(ValueError, match="'val' and 'validation', which both mean 'val'"):
        data.folder(sides)


def test_a_file_that_is_called_like_a_side_is_none(sides):
    (sides / "test").write_bytes(b"notes")
    assert len(data.folder(sides)) == 12


def test_nothing_is_changed_by_looking(pets):
    (pets / "cat" / "list.txt").write_text("eggs")
    before = {file: file.stat().st_mtime_ns for file in pets.rglob("*")}
    with contextlib.suppress(ValueError):
        data.folder(pets)
    assert {file: file.stat().st_mtime_ns for file in pets.rglob("*")} == before
