"""Copies: what a messenger makes of a picture is the same picture; what only resembles it is not."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ftlab import capstone, data
from ftlab.capstone.copies import listed
from ftlab.data.images import Images, read_image


def images(root: Path, *files: str) -> Images:
    return Images(root, ["a", "b"], [(str(root / file), int(file[0] == "b")) for file in files], title="test")


@pytest.fixture
def emoji() -> list[str]:
    return [file for file, _ in data.emoji("val").samples[::12]]


@pytest.mark.parametrize(("size", "quality"), [(48, 75), (128, 85), (64, 60)])
def test_a_picture_that_was_sent_is_found(emoji, tmp_path, size, quality):
    found = []
    for number, file in enumerate(emoji):
        shutil.copy(file, tmp_path / f"a{number}.png")
        read_image(file).resize((size, size)).save(tmp_path / f"b{number}.jpg", quality=quality)
        found += capstone.find_copies(all=images(tmp_path, f"a{number}.png", f"b{number}.jpg"))
    assert len(found) >= 0.8 * len(emoji)
    assert not any(copy.exact for copy in found)


def test_pictures_that_only_resemble_each_other_are_none():
    assert capstone.find_copies(one=data.emoji("all", "noto"), other=data.emoji("all", "twemoji")) == []


def test_two_pages_of_text_are_none(tmp_path):
    noise = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        page = np.full((160, 160), 255, np.uint8)
        page[10:150:10, 10:150] = np.where(noise.random((14, 140)) < 0.5, 120, 255)
        Image.fromarray(page).save(tmp_path / name)
    assert capstone.find_copies(all=images(tmp_path, "a.png", "b.png")) == []


def test_equal_files_are_exact_and_each_pair_is_named_once(emoji, tmp_path):
    for name in ("a1.png", "a2.png", "b.png"):
        shutil.copy(emoji[0], tmp_path / name)
    found = capstone.find_copies(left=images(tmp_path, "a1.png", "a2.png"), right=images(tmp_path, "b.png"))
    assert [str(copy) for copy in found] == ["a1.png = a2.png", "a1.png = b.png", "a2.png = b.png"]
    assert found[1].first == ("left", "a", "a1.png")
    assert found[1].second == ("right", "b", "b.png")
    assert listed(found, 1) == "a1.png = a2.png; and 2 more"


def test_no_pictures_have_no_copies(tmp_path):
    assert capstone.find_copies(all=images(tmp_path)) == []
