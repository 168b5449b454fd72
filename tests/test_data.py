"""The data sets: what is in them, and what they say when something is wrong."""

import functools
import hashlib
import importlib.util
import io
import os
import pickle
import random
import shutil
import tarfile
import threading
import warnings
import zipfile
from collections import Counter
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor

from ftlab import data
from ftlab.data import downloads, own
from ftlab.data.images import read_image
from ftlab.data.splits import in_validation
from ftlab.paths import DATA

VENDORS = ("noto", "twemoji")


@pytest.fixture(scope="module")
def make():
    spec = importlib.util.spec_from_file_location("make", DATA / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names(images) -> set[str]:
    return {Path(path).name for path, _ in images.samples}


# What is here ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_emoji_is_rgb_and_64_pixels_wide(vendor):
    images = data.emoji("all", vendor)
    for path, _ in images.samples:
        with Image.open(path) as image:
            image.load()
            assert (image.mode, image.size, image.format) == ("RGB", (64, 64), "PNG"), path


def test_both_vendors_draw_the_same_emoji_in_different_ways():
    noto, twemoji = (data.emoji("all", vendor) for vendor in VENDORS)
    assert [Path(p).name for p, _ in noto.samples] == [Path(p).name for p, _ in twemoji.samples]
    assert noto.targets == twemoji.targets
    contents = [{Path(p).read_bytes() for p, _ in images.samples} for images in (noto, twemoji)]
    assert not contents[0] & contents[1]
    assert len(contents[0]) == len(contents[1]) == 504, "no image is there twice"


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_readme_has_the_class_counts_of_each_split(vendor):
    counts = {
        split: Counter(images.classes[t] for t in images.targets)
        for split in ("all", "train", "val")
        for images in [data.emoji(split, vendor)]
    }
    readme = (DATA / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(counts["all"]) == 8
    for name in counts["all"]:
        (row,) = [line for line in readme if line.startswith(f"| {name} |")]
        found = [int(cell) for cell in row.strip("| ").split(" | ")[2:]]
        assert found == [counts["all"][name], counts["train"][name], counts["val"][name]]


def test_the_readme_has_the_digit_counts_of_each_split():
    readme = (DATA / "README.md").read_text(encoding="utf-8").replace(",", "").splitlines()
    for split in ("train", "val"):
        digits = data.digits(split)
        count = Counter(digits.targets)
        (row,) = [line for line in readme if line.startswith(f"| {split} |")]
        assert [int(cell) for cell in row.strip("| ").split(" | ")[1:]] == [
            *[count[digit] for digit in range(10)],
            len(digits),
        ]


def test_the_files_are_those_of_the_checksums(make):
    assert make.differences() == []


def test_a_changed_a_missing_and_an_unknown_file_are_named(make, tmp_path):
    kept = tmp_path / "data"
    shutil.copytree(DATA, kept)
    (kept / "digits" / "digits.csv").write_text("1,2,3\n")
    (kept / "emoji" / "noto" / "food" / "1f347.png").unlink()
    (kept / "emoji" / "noto" / "food" / "new.png").write_bytes(b"?")
    assert sorted(make.differences(kept)) == [
        "digits/digits.csv is not the file that was made",
        "emoji/noto/food/1f347.png is missing",
        "emoji/noto/food/new.png is not in SHA256SUMS",
    ]
    with pytest.raises(SystemExit, match="1f347"):
        make.main(["--check", "--out", str(kept)])


def test_the_licences_and_the_attributions_are_named():
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    for needed in (
        "Apache License 2.0",
        "copyright Google LLC",
        "copyright Twitter, Inc and other contributors",
        "https://creativecommons.org/licenses/by/4.0/",
        "Alpaydin, E. and Kaynak, C. (1998)",
        "10.24432/C50P49",
    ):
        assert needed in readme
    assert "Apache License" in (DATA / "LICENSE-Apache-2.0.txt").read_text()


def test_the_data_stay_small():
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 6_000_000


def test_the_digits_are_made_again_byte_for_byte(make):
    for name, content in make.digits_files().items():
        assert (DATA / name).read_bytes() == content


@pytest.mark.skipif(
    "FTLAB_PACKAGES" not in os.environ, reason="FTLAB_PACKAGES names no folder with the npm packages"
)
def test_the_emoji_are_made_again_byte_for_byte(make):
    made = make.emoji_files(Path(os.environ["FTLAB_PACKAGES"]))
    assert {DATA / name for name in made} == set((DATA / "emoji").rglob("*.png"))
    for name, content in made.items():
        if PIL.__version__ == make.MADE_WITH:
            assert content == (DATA / name).read_bytes(), name
        again, here = (np.asarray(Image.open(file)) for file in (io.BytesIO(content), DATA / name))
        assert np.array_equal(again, here), name


def test_another_package_of_the_same_name_is_refused(make, tmp_path):
    with pytest.raises(SystemExit, match="npm pack emoji-datasource-google"):
        make.emoji_files(tmp_path)
    (tmp_path / "emoji-datasource-google-16.0.0.tgz").write_bytes(b"something else")
    with pytest.raises(SystemExit, match="sha512"):
        make.emoji_files(tmp_path)


# Splits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", VENDORS)
def test_train_and_val_are_all_and_share_no_code_point(vendor):
    train, val, everything = (data.emoji(split, vendor) for split in ("train", "val", "all"))
    assert len(train) + len(val) == len(everything) == 504
    assert names(train) | names(val) == names(everything)
    beginnings = [{Path(n).stem.split("-")[0] for n in names(side)} for side in (train, val)]
    assert not beginnings[0] & beginnings[1], "cat and black cat are one drawing in two colours"
    assert train.classes == val.classes == everything.classes


def test_an_emoji_is_on_the_same_side_for_both_vendors():
    for split in ("train", "val"):
        assert names(data.emoji(split, "noto")) == names(data.emoji(split, "twemoji"))


def test_the_split_is_the_same_for_ever():
    # A changed split would quietly compare old results with new ones.
    text = " ".join(sorted(names(data.emoji("val"))))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "443b5cfaf0f9b5b1"


def test_the_order_of_the_files_does_not_matter():
    groups, targets = [f"{n}" for n in range(60)], [n % 3 for n in range(60)]
    sides = dict(zip(groups, in_validation(groups, targets), strict=True))
    assert Counter(n % 3 for n in range(60) if sides[f"{n}"]) == {0: 6, 1: 6, 2: 6}
    order = random.Random(1).sample(range(60), 60)
    again = in_validation([groups[n] for n in order], [targets[n] for n in order])
    assert again == [sides[groups[n]] for n in order]
    assert in_validation(groups, targets, seed=1) != list(sides.values())


def test_a_group_is_never_on_both_sides():
    groups = ["copy"] * 4 + [f"{n}" for n in range(6)]
    for seed in range(20):
        sides = in_validation(groups, [0] * 10, seed=seed)
        assert len(set(sides[:4])) == 1
        assert sum(sides) == 3


@pytest.mark.parametrize("fraction", [0, 1, -0.2, 30])
def test_a_fraction_that_leaves_a_side_empty_is_refused(fraction):
    with pytest.raises(ValueError, match="between 0 and 1"):
        in_validation(["a", "b"], [0, 0], fraction)


def test_the_digits_keep_the_order_of_their_writers():
    train, val, everything = (data.digits(split) for split in ("train", "val", "all"))
    assert (len(train), len(val), len(everything)) == (1258, 539, 1797)
    for digit in range(10):
        first = train.data[np.array(train.targets) == digit]
        last = val.data[np.array(val.targets) == digit]
        both = everything.data[np.array(everything.targets) == digit]
        assert np.array_equal(np.concatenate([first, last]), both)


def test_the_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    original, ours = load_digits(), data.digits("all")
    assert np.array_equal(original.images, ours.data)
    assert ours.targets == original.target.tolist()


def test_one_neighbour_finds_a_shuffled_split_easier_than_the_writers_split():
    from sklearn.neighbors import KNeighborsClassifier

    def accuracy(train, val):
        pixels, targets = everything.data.reshape(-1, 64), np.array(everything.targets)
        return KNeighborsClassifier(1).fit(pixels[train], targets[train]).score(pixels[val], targets[val])

    everything = data.digits("all")
    places = [np.flatnonzero(np.array(everything.targets) == digit) for digit in range(10)]

    def sides(order):
        parts = [np.split(order(part), [round(len(part) * 0.7)]) for part in places]
        return (np.concatenate(side) for side in zip(*parts, strict=True))

    shuffled = [accuracy(*sides(np.random.default_rng(seed).permutation)) for seed in range(5)]
    assert f"{accuracy(*sides(lambda part: part)):.1%}" == "96.1%"  # the sentence in the docstring and the README
    assert (f"{min(shuffled):.1%}", f"{max(shuffled):.1%}") == ("98.1%", "99.4%")


# The data sets as PyTorch knows them ----------------------------------------------------------------------------


def test_emoji_are_an_image_folder():
    images = data.emoji("val")
    assert isinstance(images, ImageFolder)
    image, target = images[0]
    assert (image.mode, image.size, target) == ("RGB", (64, 64), 0)
    assert images.class_to_idx == {name: number for number, name in enumerate(images.classes)}
    assert images.imgs is images.samples
    assert images.targets == [target for _, target in images.samples]
    assert len(images) == len(images.samples) == sum(row["images"] for row in images.to_dict())


def test_a_digit_is_scaled_to_the_full_range():
    digits = data.digits("all")
    image, target = digits[0]
    assert (image.mode, image.size, target) == ("RGB", (8, 8), 0)
    pixels = np.asarray(image)
    assert np.array_equal(pixels[..., 0], np.rint(digits.data[0] * (255 / 16)))
    assert np.array_equal(pixels[..., 0], pixels[..., 2])
    assert (pixels.min(), pixels.max()) == (0, 239)  # the most ink in this one is 15 of 16
    assert digits.classes[digits[5][1]] == "5"
    assert digits.class_to_idx["5"] == 5


def test_the_transform_is_called():
    assert data.emoji("val", transform=pil_to_tensor)[0][0].shape == (3, 64, 64)
    assert data.digits("val", pil_to_tensor)[0][0].shape == (3, 8, 8)


def test_the_repr_is_the_table_of_the_classes():
    assert "emoji, twemoji, train: 352 images" in repr(data.emoji("train", "twemoji"))
    assert "digits, all: 1,797 images" in repr(data.digits("all"))
    assert ">vehicle" in data.emoji("train")._repr_html_()
    assert str(DATA) not in repr(data.emoji("train")), "a stored notebook must not name this machine's folders"


def test_a_spawned_worker_gives_the_same_items():
    # Windows and macOS start their workers like this: the data set travels to a fresh process.
    images = ConcatDataset([data.emoji("val", transform=pil_to_tensor), data.digits("val", pil_to_tensor)])
    some = Subset(images, range(140, 170))
    here = list(DataLoader(some, batch_size=None))
    there = list(DataLoader(some, batch_size=None, num_workers=1, multiprocessing_context="spawn"))
    assert len(here) == len(there) == 30
    for (x, y), (x2, y2) in zip(here, there, strict=True):
        assert torch.equal(x, x2)
        assert y == y2


def test_data_sets_can_be_pickled():
    for images in (data.emoji("val"), data.digits("val")):
        again = pickle.loads(pickle.dumps(images))
        assert repr(again) == repr(images)
        assert np.array_equal(np.asarray(again[3][0]), np.asarray(images[3][0]))


def test_loading_touches_no_random_state_and_needs_no_folder(monkeypatch, tmp_path):
    before = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002 - the global one
    here = names(data.emoji("val"))
    monkeypatch.chdir(tmp_path)
    assert names(data.emoji("val")) == here
    assert len(data.digits("val")) == 539
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), str(np.random.get_state()))  # noqa: NPY002


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.emoji("test"), "split 'test' is not one of 'train', 'val', 'all'"),
        (lambda: data.emoji("train", "notto"), "'notto' are here; the nearest is 'noto'"),
        (lambda: data.digits("validation"), "'train', 'val', 'all'"),
        (lambda: data.folder(DATA, "dev"), "'train', 'val', 'all'"),
        (lambda: data.hymenoptera("test"), "'train', 'val', 'all'"),
        (lambda: data.flowers102("trainval"), "'train', 'val', 'test', 'all'"),
    ],
)
def test_a_wrong_word_is_answered_with_the_right_ones(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Reading images -------------------------------------------------------------------------------------------------


def saved(path: Path, image: Image.Image, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def test_a_photograph_is_turned_as_its_exif_says(tmp_path):
    image = Image.new("RGB", (40, 20), "blue")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right
    path = saved(tmp_path / "phone.jpg", image, exif=exif)
    assert Image.open(path).convert("RGB").size == (40, 20), "what torchvision's loader gives"
    assert read_image(path).size == (20, 40)


def test_transparent_pixels_become_white(tmp_path):
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    path = saved(tmp_path / "clear.png", clear)
    assert Image.open(path).convert("RGB").getpixel((0, 0)) == (255, 0, 0), "what torchvision's loader gives"
    assert read_image(path).getpixel((0, 0)) == (255, 255, 255)
    palette = clear.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE)
    path = saved(tmp_path / "palette.png", palette, transparency=palette.getpixel((0, 0)))
    assert read_image(path).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_are_scaled(tmp_path, suffix):
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16) * 256
    path = saved(tmp_path / f"ramp{suffix}", Image.fromarray(ramp))
    lost = np.asarray(Image.open(path).convert("RGB"))
    assert len(np.unique(lost)) == 2, "what torchvision's loader gives: black and white"
    assert np.array_equal(np.asarray(read_image(path))[..., 1], ramp >> 8)


@pytest.mark.parametrize(("mode", "name"), [("RGB", "photo.jpg"), ("CMYK", "print.jpg"), ("L", "grey.png")])
def test_an_image_is_shrunk_only_where_that_is_asked(tmp_path, mode, name):
    path = tmp_path / name
    Image.new(mode, (1600, 800)).save(path)
    assert read_image(path).size == (1600, 800)
    assert read_image(path, largest=200).size == (200, 100)
    assert read_image(path, largest=5000).size == (1600, 800)


def test_more_pixels_than_pillow_allows_are_an_error_like_any_other(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    Image.new("1", (100, 100)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match="save it with fewer pixels"):
        read_image(path)


@pytest.mark.parametrize(
    ("mode", "name"),
    [("CMYK", "a.jpg"), ("L", "a.png"), ("1", "a.png"), ("P", "a.gif"), ("LA", "a.png"), ("RGB", "a.webp")],
)
def test_every_usual_kind_of_image_becomes_rgb(tmp_path, mode, name):
    path = saved(tmp_path / name, Image.new("RGB", (8, 8), "white").convert(mode))
    image = read_image(path)
    assert image.mode == "RGB"
    assert min(image.getpixel((4, 4))) > 250


# The learner's own folder ---------------------------------------------------------------------------------------


def picture(number: int) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def pets(tmp_path) -> Path:
    for number in range(10):
        saved(tmp_path / "pets" / "cat" / f"{number}.jpg", picture(number))
        saved(tmp_path / "pets" / "dog" / f"{number}.PNG", picture(100 + number))
    return tmp_path / "pets"


def test_a_folder_of_class_folders(pets):
    images = data.folder(pets)
    assert isinstance(images, ImageFolder)
    assert images.classes == ["cat", "dog"]
    assert Counter(images.targets) == {0: 10, 1: 10}
    assert images.skipped == {}
    assert "pets, all: 20 images" in repr(images)
    assert images[0][0].size == (48, 48)
    assert len(pickle.loads(pickle.dumps(images))) == 20


def test_a_folder_is_split_by_class_and_by_content(pets, tmp_path):
    train, val = data.folder(pets, "train"), data.folder(str(pets), "val")
    assert Counter(train.targets) == {0: 7, 1: 7}
    assert Counter(val.targets) == {0: 3, 1: 3}
    assert {path for path, _ in train.samples} | {path for path, _ in val.samples} == {
        path for path, _ in data.folder(pets).samples
    }
    assert val.samples == data.folder(pets, "val").samples

    def contents(images):
        return {Path(path).read_bytes() for path, _ in images.samples}

    moved = tmp_path / "elsewhere"
    for file in pets.glob("*/*"):
        (moved / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, moved / file.parent.name / f"renamed-{hash(file.name)}{file.suffix}")
    assert contents(data.folder(moved, "val")) == contents(val)
    assert contents(data.folder(pets, "val", seed=1)) != contents(val)
    assert len(data.folder(pets, "val", val_fraction=0.5)) == 10


def test_copies_of_a_file_stay_on_one_side(pets):
    for seed in range(10):
        shutil.copy(pets / "cat" / "0.jpg", pets / "cat" / "0 (1).jpg")
        sides = [data.folder(pets, split, seed=seed) for split in ("train", "val")]
        assert sum({"0.jpg", "0 (1).jpg"} <= names(side) for side in sides) == 1


def test_what_the_system_left_is_passed_over(pets):
    before = data.folder(pets).samples
    (pets / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (pets / "cat" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (pets / "cat" / "._0.jpg").write_bytes(b"\0\5\x16\7")  # what macOS puts into archives
    (pets / "cat" / "Thumbs.db").write_bytes(b"\xd0\xcf")
    (pets / "dog" / "desktop.ini").write_text("[.ShellClassInfo]")
    (pets / "__MACOSX" / "cat").mkdir(parents=True)
    for place in (pets, pets / "cat"):
        saved(place / ".ipynb_checkpoints" / "0-checkpoint.jpg", picture(0))
    assert data.folder(pets).samples == before
    assert ".ipynb_checkpoints" in ImageFolder(str(pets), allow_empty=True).classes, (
        "what torchvision makes of it"
    )


def test_the_content_counts_and_not_the_name(pets):
    saved(pets / "cat" / "IMG_1.JPG", picture(50))
    saved(pets / "cat" / "really a png.jpg", picture(51), format="PNG")
    saved(pets / "cat" / "from the browser.jfif", picture(52), format="JPEG")
    saved(pets / "cat" / "holiday" / "inside.gif", picture(53))
    assert len(data.folder(pets)) == 24


def broken(pets: Path) -> dict[str, str]:
    """Put one bad file of each kind into the folder; return a part of the reason for each."""
    whole = (pets / "cat" / "0.jpg").read_bytes()
    png = (pets / "dog" / "0.PNG").read_bytes()
    (pets / "cat" / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (pets / "dog" / "half.png").write_bytes(png[: len(png) // 2])
    (pets / "cat" / "zero.jpg").touch()
    (pets / "dog" / "notes.txt").write_text("bought in May")
    (pets / "dog" / "page.jpg").write_text("<!DOCTYPE html>")
    (pets / "dog" / "IMG_7.HEIC").write_bytes(b"\0\0\0\x24ftypheic\0\0\0\0")
    saved(pets / "cat" / "scan.tif", Image.new("F", (8, 8)))
    saved(pets / "loose.jpg", picture(60))
    bomb = io.BytesIO()
    Image.new("1", (14_000, 14_000)).save(bomb, "PNG")
    (pets / "dog" / "huge.png").write_bytes(bomb.getvalue())
    return {
        "cat/half.jpg": "truncated",
        "dog/half.png": "truncated",
        "cat/zero.jpg": "0 bytes",
        "dog/notes.txt": "no image; it begins with b'bought in Ma'",
        "dog/page.jpg": "<!DOCTYPE ht",
        "dog/IMG_7.HEIC": "HEIC photo",
        "cat/scan.tif": "32 bit",
        "loose.jpg": "beside the class folders",
        "dog/huge.png": "exceeds limit",
    }


def test_every_bad_file_is_listed_in_one_error(pets):
    reasons = broken(pets)
    with pytest.raises(ValueError, match="not ready for training") as caught:
        data.folder(pets, "train")
    lines = str(caught.value).splitlines()
    assert "bad files (9)" in str(caught.value)
    assert "skip_bad=True" in lines[-1]
    for name, reason in reasons.items():
        (line,) = [line for line in lines if name in line]
        assert reason in line


def test_bad_files_are_left_out_on_request_and_named(pets):
    before = data.folder(pets, "val").samples
    reasons = broken(pets)
    with pytest.warns(UserWarning, match=r"bad files in .* are left out \(9\)") as caught:
        images = data.folder(pets, "val", skip_bad=True)
    assert images.samples == before, "bad files change nothing for the good ones"
    assert {Path(file).relative_to(pets).as_posix() for file in images.skipped} == set(reasons)
    assert all(name in str(caught[0].message) for name in reasons)
    assert caught[0].filename == __file__, "the warning points at the learner's line"
    assert "bad files left out: 9" in repr(images)
    assert all(Path(file).exists() for file in images.skipped), "nothing is deleted"


def test_a_repaired_file_is_looked_at_again(pets):
    (pets / "cat" / "0.jpg").write_bytes(b"oops")
    with pytest.raises(ValueError, match=r"cat/0\.jpg"):
        data.folder(pets)
    saved(pets / "cat" / "0.jpg", picture(0))
    assert len(data.folder(pets)) == 20


def test_a_link_to_nowhere_is_named(pets):
    (pets / "cat" / "link.jpg").symlink_to(pets / "gone.jpg")
    with pytest.raises(ValueError, match=r"cat/link\.jpg: a link to a file that does not exist"):
        data.folder(pets)


@pytest.mark.parametrize("skip_bad", [False, True])
def test_an_empty_class_is_named(pets, skip_bad):
    (pets / "bird").mkdir()
    (pets / "bird" / "notes.txt").write_text("none yet")
    with pytest.raises(ValueError, match="class 'bird' has no readable image"):
        data.folder(pets, skip_bad=skip_bad)


def test_a_folder_that_does_not_exist_is_answered_with_the_nearest(pets):
    with pytest.raises(FileNotFoundError, match="has no 'pet'; the nearest is 'pets'"):
        data.folder(pets.parent / "pet")
    with pytest.raises(FileNotFoundError, match="has no 'pest'; the nearest is 'pets'"):
        data.folder(pets.parent / "pest" / "train")
    (pets.parent / "void").mkdir()
    with pytest.raises(FileNotFoundError, match="that folder is empty"):
        data.folder(pets.parent / "void" / "pets")


def test_a_relative_path_is_taken_from_where_python_is(pets, monkeypatch):
    monkeypatch.chdir(pets.parent)
    images = data.folder("pets")
    monkeypatch.chdir("/")
    assert images[0][0].mode == "RGB", "and then kept"


def test_an_archive_is_no_folder(pets):
    archive = shutil.make_archive(str(pets), "zip", pets)
    with pytest.raises(NotADirectoryError, match="unpack it first"):
        data.folder(archive)
    with pytest.raises(NotADirectoryError, match="pass the folder that holds the class folders"):
        data.folder(pets / "cat" / "0.jpg")


def test_images_without_class_folders_are_explained(pets):
    with pytest.raises(ValueError, match=r"has no class folders; it holds '0\.jpg', .*make one folder per class"):
        data.folder(pets / "cat")
    (pets.parent / "void").mkdir()
    with pytest.raises(ValueError, match="it is empty"):
        data.folder(pets.parent / "void")


def test_one_folder_too_high_is_recognised(pets):
    with pytest.raises(ValueError, match=r"holds the folders 'cat', 'dog': did you mean '.*pets'"):
        data.folder(pets.parent)
    shutil.rmtree(pets / "dog")
    with pytest.raises(ValueError, match="only one class folder, 'cat', so there is nothing to tell"):
        data.folder(pets)


def test_a_class_that_is_too_small_to_split_is_named(pets):
    saved(pets / "bird" / "0.png", picture(70))
    assert len(data.folder(pets)) == 21
    shutil.copy(pets / "bird" / "0.png", pets / "bird" / "copy.png")
    with pytest.raises(ValueError, match=r"class 'bird' has 2 image.*copies count once"):
        data.folder(pets, "train")


@pytest.fixture
def sides(pets) -> Path:
    root = pets.parent / "sides"
    for number, file in enumerate(sorted(pets.glob("*/*"))):
        side = "Train" if number % 10 < 6 else "validation"
        (root / side / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, root / side / file.parent.name)
    return root


def test_ready_made_sides_are_kept(sides):
    (sides / "test" / "cat").mkdir(parents=True)
    train, val, everything = (data.folder(sides, split) for split in ("train", "val", "all"))
    assert (len(train), len(val), len(everything)) == (12, 8, 20)
    assert all("Train" in path for path, _ in train.samples)
    assert all("validation" in path for path, _ in val.samples)
    assert train.classes == val.classes == ["cat", "dog"]


def test_a_class_on_one_side_only_is_named(sides):
    (sides / "Train" / "dog").rename(sides / "Train" / "hound")
    with pytest.raises(ValueError, match="'dog' only in 'validation', 'hound' only in 'Train'"):
        data.folder(sides, "train")


def test_a_bad_file_on_either_side_is_named(sides):
    (sides / "validation" / "dog" / "zero.jpg").touch()
    with pytest.raises(ValueError, match=r"validation/dog/zero\.jpg: empty"):
        data.folder(sides, "train")


def test_a_validation_image_that_is_in_train_too_is_named(sides):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.folder(sides, "val")
    copy = shutil.copy(sides / "Train" / "cat" / "0.jpg", sides / "validation" / "cat" / "again.jpg")
    with pytest.warns(
        UserWarning, match=r"validation images that are in train too \(1\).*\n.*again\.jpg: the same"
    ):
        images = data.folder(sides, "val")
    assert copy in [Path(path) for path, _ in images.samples]


def test_train_without_val_is_not_taken_for_two_classes(sides):
    (sides / "validation").rename(sides / "test")
    with pytest.raises(
        ValueError, match=r"has 'Train' and 'test', but not both 'train' and 'val'; pass '.*Train'"
    ):
        data.folder(sides)
    shutil.rmtree(sides / "test")
    with pytest.raises(ValueError, match=r"did you mean '.*Train'"):
        data.folder(sides)


def test_the_check_finds_a_jpeg_that_breaks_off_anywhere(tmp_path):
    whole = saved(tmp_path / "a.jpg", picture(1).resize((640, 480)), quality=90).read_bytes()
    assert own._problem(whole) == ""
    for part in (0.2, 0.5, 0.8, 0.95):
        assert "truncated" in own._problem(whole[: int(len(whole) * part)])


# Downloads ------------------------------------------------------------------------------------------------------


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; what `server.truncated` names breaks off half way, as on a bad line."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.asked.append(self.path)
        content = Path(self.translate_path(self.path))
        if self.path not in self.server.truncated or not content.exists():
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Length", str(content.stat().st_size))
        self.end_headers()
        self.wfile.write(content.read_bytes()[: content.stat().st_size // 2])
        return None


@pytest.fixture
def server(tmp_path):
    place = tmp_path / "server"
    place.mkdir()
    http = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(place)))
    http.place, http.truncated, http.asked = place, set(), []
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    yield http
    http.shutdown()
    http.server_close()
    thread.join()


def zipped(folder: Path) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder.parent))
    return content.getvalue()


def tarred(folder: Path) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        archive.add(folder, folder.name)
    return content.getvalue()


def serve(server, monkeypatch, name: str, files: dict[str, bytes]) -> None:
    """Let a data set come from the local server: its real code, other addresses and their hashes."""
    source = downloads.SOURCES[name]
    assert set(files) == {url.rpartition("/")[2] for url in source.files}, "the same file names as the real set"
    addresses = {}
    for file, content in files.items():
        (server.place / file).write_bytes(content)
        (algorithm,) = {digest.partition(":")[0] for digest in source.files.values()}
        digest = hashlib.new(algorithm, content).hexdigest()
        addresses[f"http://127.0.0.1:{server.server_port}/{file}"] = f"{algorithm}:{digest}"
    monkeypatch.setitem(
        downloads.SOURCES, name, downloads.Source(source.folder, source.holds, addresses, source.megabytes)
    )


@pytest.fixture
def ants(server, monkeypatch, tmp_path):
    """A small hymenoptera on the server."""
    root = tmp_path / "made" / "hymenoptera_data"
    for side, count in (("train", 3), ("val", 2)):
        for name in ("ants", "bees"):
            for number in range(count):
                saved(root / side / name / f"{number}.jpg", picture(number))
    (root / "train" / "ants" / "imageNotFound.gif").write_bytes(b"as in the real one")
    serve(server, monkeypatch, "hymenoptera", {"hymenoptera_data.zip": zipped(root)})
    return tmp_path / "cache"


def test_a_download_is_unpacked_and_kept(server, ants):
    train = data.hymenoptera("train", root=ants, download=True)
    assert (len(train), train.classes) == (6, ["ants", "bees"])
    assert train[0][0].mode == "RGB"
    assert [path.name for path in ants.iterdir()] == ["hymenoptera_data"], (
        "no archive and no temporary folder stay"
    )
    assert len(data.hymenoptera("val", root=str(ants))) == 4
    assert len(data.hymenoptera("all", root=ants, download=True)) == 10
    assert server.asked == ["/hymenoptera_data.zip"], "fetched once"


def test_without_data_the_error_says_what_is_missing_and_what_works(server, ants):
    with pytest.raises(FileNotFoundError) as caught:
        data.hymenoptera("train", root=ants)
    message = str(caught.value)
    assert str(ants / "hymenoptera_data.zip") in message
    assert f"http://127.0.0.1:{server.server_port}/hymenoptera_data.zip" in message
    assert "download=True to fetch 47 MB" in message
    for works in ("ftlab.data.emoji", "ftlab.data.digits", "ftlab.data.folder"):
        assert works in message
    assert not ants.exists(), "asking makes no folders"


def test_without_a_network_the_error_says_the_same(server, ants):
    server.shutdown()
    server.server_close()
    with pytest.raises(FileNotFoundError, match=r"fetching it failed: .*refused") as caught:
        data.hymenoptera("train", root=ants, download=True)
    assert str(ants / "hymenoptera_data.zip") in str(caught.value)
    assert "ftlab.data.emoji" in str(caught.value)
    assert list(ants.iterdir()) == []


def test_a_download_that_breaks_off_leaves_nothing_and_can_be_repeated(server, ants):
    server.truncated.add("/hymenoptera_data.zip")
    with pytest.raises(FileNotFoundError, match="the connection ended after"):
        data.hymenoptera("train", root=ants, download=True)
    assert list(ants.iterdir()) == []
    server.truncated.clear()
    assert len(data.hymenoptera("train", root=ants, download=True)) == 6


def test_a_file_with_another_hash_is_refused(server, ants):
    (server.place / "hymenoptera_data.zip").write_bytes(b"<html>please log in to the school's network</html>")
    with pytest.raises(FileNotFoundError, match=r"sha256.*<html>please log in"):
        data.hymenoptera("train", root=ants, download=True)
    assert list(ants.iterdir()) == []


def test_an_archive_that_was_put_there_by_hand_is_used(server, ants):
    ants.mkdir()
    shutil.copy(server.place / "hymenoptera_data.zip", ants)
    assert len(data.hymenoptera("train", root=ants)) == 6
    assert server.asked == []
    assert (ants / "hymenoptera_data.zip").exists(), "what somebody brought stays"


def test_half_an_archive_that_was_put_there_by_hand_is_named(server, ants):
    ants.mkdir()
    (ants / "hymenoptera_data.zip").write_bytes((server.place / "hymenoptera_data.zip").read_bytes()[:1000])
    with pytest.raises(OSError, match=r"hymenoptera_data\.zip has sha256 .* delete it and fetch it again"):
        data.hymenoptera("train", root=ants)
    assert not (ants / "hymenoptera_data").exists()


def test_half_a_data_set_is_named(ants):
    (ants / "hymenoptera_data" / "train").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="has no 'val': delete it"):
        data.hymenoptera("train", root=ants)


def test_a_power_cut_while_unpacking_leaves_no_data_set(ants, monkeypatch):
    def cut(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(downloads, "_look_whole", cut)  # everything is unpacked, the last step is not done
    with pytest.raises(KeyboardInterrupt):
        data.hymenoptera("train", root=ants, download=True)
    monkeypatch.undo()
    assert not (ants / "hymenoptera_data").exists()


@pytest.mark.parametrize("name", ["../../outside.txt", "/ftlab-outside.txt"])
def test_a_zip_with_a_member_outside_is_refused(server, monkeypatch, tmp_path, name):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("hymenoptera_data/train/ants/a.jpg", b"fine")
        archive.writestr(name, b"not fine")
    serve(server, monkeypatch, "hymenoptera", {"hymenoptera_data.zip": content.getvalue()})
    with pytest.raises(OSError, match=r"member outside its folder: .*outside\.txt"):
        data.hymenoptera("train", root=tmp_path / "cache", download=True)
    assert not (tmp_path / "cache" / "hymenoptera_data").exists()
    assert not list(tmp_path.rglob("*outside.txt"))
    assert not Path(name).is_absolute() or not Path(name).exists()


def test_a_tar_with_a_member_outside_is_refused(server, monkeypatch, tmp_path):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        member = tarfile.TarInfo("../../outside.txt")
        archive.addfile(member, io.BytesIO())
    serve(
        server,
        monkeypatch,
        "oxford_iiit_pet",
        {"images.tar.gz": content.getvalue(), "annotations.tar.gz": content.getvalue()},
    )
    with pytest.raises(OSError, match=r"is refused: .*outside"):
        data.oxford_iiit_pet("train", root=tmp_path / "cache", download=True)
    assert not list(tmp_path.rglob("*outside.txt"))
    assert not (tmp_path / "cache" / "oxford-iiit-pet").exists()


def test_pets_are_read_by_torchvision_and_the_test_side_stays_apart(server, monkeypatch, tmp_path):
    made = tmp_path / "made"
    lines = {"trainval": [], "test": []}
    for number, breed in enumerate(["Abyssinian", "basset_hound"], 1):
        for index in range(15):
            name = f"{breed}_{index}"
            saved(made / "images" / f"{name}.jpg", picture(index + 20 * number))
            lines["trainval" if index < 10 else "test"].append(f"{name} {number} 1 1")
    (made / "annotations").mkdir()
    for side, text in lines.items():
        (made / "annotations" / f"{side}.txt").write_text("\n".join(text) + "\n")
    files = {"images.tar.gz": tarred(made / "images"), "annotations.tar.gz": tarred(made / "annotations")}
    serve(server, monkeypatch, "oxford_iiit_pet", files)
    load = functools.partial(data.oxford_iiit_pet, root=tmp_path / "cache", download=True)
    train, val, test = load("train"), load("val"), load("test")
    assert train.classes == ["Abyssinian", "Basset Hound"]
    assert [Counter(images.targets) for images in (train, val, test)] == [
        {0: 7, 1: 7},
        {0: 3, 1: 3},
        {0: 5, 1: 5},
    ]
    assert not names(train) & names(val)
    assert {int(Path(path).stem.rpartition("_")[2]) for path, _ in test.samples} == set(range(10, 15))
    assert test[0][0].mode == "RGB"
    assert len(load("all")) == 30


def test_flowers_are_read_by_torchvision(server, monkeypatch, tmp_path):
    from scipy.io import savemat

    made = tmp_path / "made"
    for number in range(1, 7):
        saved(made / "jpg" / f"image_{number:05d}.jpg", picture(number))
    savemat(made / "imagelabels.mat", {"labels": [[1, 2, 1, 2, 102, 1]]})
    savemat(made / "setid.mat", {"trnid": [[1, 2]], "valid": [[3, 4]], "tstid": [[5, 6]]})
    # The originals' hashes stand in torchvision too; the files here are others.
    hashes = {
        key: (name, hashlib.md5((made / name).read_bytes()).hexdigest())
        for key, name in (("label", "imagelabels.mat"), ("setid", "setid.mat"))
    }
    theirs = downloads.Flowers102._file_dict
    monkeypatch.setattr(downloads.Flowers102, "_file_dict", {**theirs, **hashes})
    files = {name: (made / name).read_bytes() for _, name in [*enumerate(["imagelabels.mat", "setid.mat"])]}
    serve(server, monkeypatch, "flowers102", {"102flowers.tgz": tarred(made / "jpg"), **files})
    load = functools.partial(data.flowers102, root=tmp_path / "cache", download=True)
    assert load("train").targets == [0, 1]
    assert load("test").targets == [101, 0]
    assert len(load("all")) == 6
    assert load("val").classes[load("val").targets[1]] == "hard-leaved pocket orchid"
    assert load("val")[0][0].mode == "RGB"


def test_the_files_are_those_that_the_authors_published():
    # Written out, so that a torchvision that fetches other files, or files without a hash, is noticed.
    assert {url.rpartition("/")[2]: md5 for url, md5 in downloads.SOURCES["flowers102"].files.items()} == {
        "102flowers.tgz": "md5:52808999861908f626f3c1f4e79d11fa",
        "imagelabels.mat": "md5:e0620be6f572b9609742df49c70aed4d",
        "setid.mat": "md5:a5357ecc9cb78c4bef273ce3793fc85c",
    }
    assert {url.rpartition("/")[2]: md5 for url, md5 in downloads.SOURCES["oxford_iiit_pet"].files.items()} == {
        "images.tar.gz": "md5:5c4f3ee8e5d25df40f4fd59a7f44e54c",
        "annotations.tar.gz": "md5:95a8c909bbe2e81eed6a22bccdf3f68f",
    }
    for name in ("flowers102", "oxford_iiit_pet"):
        assert all(url.startswith("https://") for url in downloads.SOURCES[name].files)


def test_data_sets_are_kept_beside_torch_hub(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    assert downloads.cache_folder() == tmp_path / "ftlab"
    with pytest.raises(FileNotFoundError) as caught:
        data.hymenoptera("train")
    assert str(tmp_path / "ftlab" / "hymenoptera_data.zip") in str(caught.value)
    (rows,) = [row for row in data.available().to_dict() if row["data set"] == "hymenoptera"]
    assert (rows["here"], rows["to download"]) == ("no", "47 MB")
    (tmp_path / "ftlab" / "hymenoptera_data").mkdir(parents=True)
    assert [row["here"] for row in data.available().to_dict()] == ["yes"] * 4 + ["no"] * 2


def test_the_table_of_what_is_available_counts_right():
    rows = {row["data set"]: row for row in data.available().to_dict()}
    for vendor in VENDORS:
        images = data.emoji("all", vendor)
        assert (rows[f"emoji, {vendor}"]["images"], rows[f"emoji, {vendor}"]["classes"]) == (len(images), 8)
    assert (rows["digits"]["images"], rows["digits"]["classes"]) == (len(data.digits("all")), 10)
