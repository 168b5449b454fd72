"""One image to a batch: every way that an image comes, and what cannot be known."""

import numpy as np
import pytest
import torch
from PIL import Image

from ftlab import pretrained
from ftlab.training import batch_of_one

rng = np.random.default_rng(0)
PIXELS = rng.integers(0, 256, (5, 8, 3), dtype=np.uint8)
WANTED = torch.tensor(PIXELS).permute(2, 0, 1).float().div(255)[None]

SAME = {
    "PIL": (Image.fromarray(PIXELS), {}),
    "array, channels last": (PIXELS, {}),
    "array, channels first": (PIXELS.transpose(2, 0, 1), {}),
    "tensor": (torch.tensor(PIXELS), {}),
    "tensor, channels first": (torch.tensor(PIXELS).permute(2, 0, 1), {}),
    "fractions": (WANTED[0].clone(), {}),
    "float numbers to 255": (PIXELS.astype(np.float32), {}),
    "a batch already": (PIXELS[None], {}),
    "as OpenCV reads it": (PIXELS[:, :, ::-1], {"bgr": True}),  # negative strides
    "with a graph": (WANTED[0].clone().requires_grad_(), {}),
}


@pytest.mark.parametrize("case", SAME)
def test_the_same_image_in_any_form_is_the_same_batch(case):
    image, options = SAME[case]
    found = batch_of_one(image, **options)
    assert found.batch.shape == (1, 3, 5, 8)
    assert torch.allclose(found.batch, WANTED, atol=1e-6)
    assert not found.batch.requires_grad


@pytest.mark.parametrize("case", ["array, channels last", "tensor", "fractions"])
def test_the_image_is_not_changed_and_not_shared(case):
    image, _ = SAME[case]
    before = image.clone() if isinstance(image, torch.Tensor) else image.copy()
    batch_of_one(image).batch.zero_()
    assert bool((image == before).all())


def test_blue_first_cannot_be_seen():
    blue_first = batch_of_one(PIXELS[:, :, ::-1])
    assert torch.allclose(blue_first.batch, WANTED.flip(1))  # taken for red first, and nothing is raised
    assert "blue" not in repr(blue_first)
    assert "red and blue exchanged" in repr(batch_of_one(PIXELS[:, :, ::-1], bgr=True))


@pytest.mark.parametrize("image", [PIXELS[:, :, 0], PIXELS[:, :, :1], PIXELS[:, :, 0][None]], ids=str)
def test_grey_is_three_times_the_same(image):
    batch = batch_of_one(image).batch
    assert batch.shape == (1, 3, 5, 8)
    assert torch.equal(batch[0, 0], batch[0, 2])


def test_preprocessing_gets_what_it_gets_from_a_photo():
    prepare = pretrained.preprocessing(size=32)
    photo = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    ours, usual = batch_of_one(photo, prepare).batch[0], prepare(photo)
    assert ours.shape == usual.shape
    assert (ours - usual).abs().mean() < 0.01  # a tensor is resized without the rounding to whole numbers


def test_height_three_has_two_readings():
    image = np.zeros((3, 40, 3), np.uint8)
    with pytest.raises(ValueError, match="may be read in two ways; say channels='first' or 'last'"):
        batch_of_one(image)
    assert batch_of_one(image, channels="last").batch.shape == (1, 3, 3, 40)
    assert batch_of_one(image, channels="first").batch.shape == (1, 3, 40, 3)


@pytest.mark.parametrize(
    ("image", "options", "error", "says"),
    [
        (None, {}, TypeError, "cv2.imread gives None for a file it cannot read"),
        ("cat.png", {}, TypeError, "an image is a PIL image, an array or a tensor, not str"),
        (np.zeros((2, 5, 8, 3)), {}, ValueError, r"2 or 3 dimensions, and this has shape \(2, 5, 8, 3\)"),
        (np.zeros((0, 8, 3)), {}, ValueError, r"shape \(0, 8, 3\)"),
        (np.zeros((5, 8, 4), np.uint8), {}, ValueError, r"leave out the transparency: image\[..., :3\]"),
        (np.zeros((5, 8, 2)), {}, ValueError, r"no three channels, first or last, in shape \(5, 8, 2\)"),
        (np.zeros((5, 8, 3)), {"channels": "first"}, ValueError, "no three channels"),
        (np.full((5, 8, 3), -2.0), {}, ValueError, "normalised already, image.unsqueeze"),
        (np.full((5, 8, 3), 300.0), {}, ValueError, "these go from 300 to 300"),
        (np.full((5, 8, 3), np.nan), {}, ValueError, "these go from nan to nan"),
        (PIXELS, {"channels": "hwc"}, ValueError, "'first' or 'last', not 'hwc'"),
    ],
    ids=lambda value: None,
)
def test_what_is_no_image_is_refused_with_the_next_step(image, options, error, says):
    with pytest.raises(error, match=says):
        batch_of_one(image, **options)


def test_the_result_is_a_table_and_a_dictionary():
    found = batch_of_one(PIXELS)
    assert found.to_dict()["steps"][1] == ["channels last", "moved to the front"]
    assert "now: a tensor (1, 3, 5, 8)" in repr(found)
    assert "<table>" in found._repr_html_()
