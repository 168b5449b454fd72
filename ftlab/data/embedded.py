"""The data sets that are always here: emoji in two vendors' drawings, and handwritten digits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torchvision.datasets import VisionDataset

from ftlab.data.images import ClassTable, Images
from ftlab.data.splits import VAL_FRACTION, check_split, in_validation
from ftlab.nearest import nearest
from ftlab.paths import DATA

VENDORS = ("noto", "twemoji")


def emoji(split: str, vendor: str = "noto", transform: Callable | None = None) -> Images:
    """Return emoji in eight classes, 64 × 64 pixels, as one vendor draws them.

    An emoji is on the same side of the split for both vendors. So a network that was trained on one vendor's
    drawings can be tried on the other's, and has not seen the validation emoji in either.

    The trap: the classes differ in size (28 buildings, 122 animals). An accuracy over all images says little
    about the small classes.

    Args:
        split: "train" (70 % of each class), "val" (the rest) or "all".
        vendor: "noto" (Google's drawings, Apache 2.0) or "twemoji" (Twitter's, CC-BY 4.0).
        transform: Called with each PIL image; for a pretrained model its `weights.transforms()`.

    Raises:
        ValueError: The split or the vendor is not one of these.

    Example:
        >>> emoji("val")
        emoji, noto, val: 152 images
        class       images
        --------  --------
        animal          37
        building         8
        clothing        12
        face            32
        food            31
        plant            8
        sport            8
        vehicle         16
    """
    check_split(split)
    if vendor not in VENDORS:
        raise ValueError(f"no emoji of vendor {vendor!r} are here; {nearest(vendor, VENDORS)}")
    root = DATA / "emoji" / vendor
    paths = sorted(root.glob("*/*.png"), key=lambda path: (path.parent.name, path.name))
    classes = sorted({path.parent.name for path in paths})
    targets = [classes.index(path.parent.name) for path in paths]
    sides = in_validation([_first_code_point(path) for path in paths], targets)
    samples = [
        (str(path), target)
        for path, target, is_val in zip(paths, targets, sides, strict=True)
        if split in ("all", "val" if is_val else "train")
    ]
    return Images(root, classes, samples, title=f"emoji, {vendor}, {split}", transform=transform)


def _first_code_point(path: Path) -> str:
    # 1f408.png is a cat, and 1f408-200d-2b1b.png the same cat in black.
    return path.stem.partition("-")[0]


class Digits(ClassTable, VisionDataset):
    """Handwritten digits in memory.

    Attributes:
        data: The pixels, 0 (paper) to 16 (ink): an array of shape (images, 8, 8).
        classes: "0" to "9"; `class_to_idx` has their numbers.
        targets: The digit of each image.
    """

    def __init__(self, data: np.ndarray, targets: list[int], title: str, transform: Callable | None) -> None:
        super().__init__(str(DATA / "digits"), transform=transform)
        self.data = data
        self.targets = targets
        self.classes = [str(digit) for digit in range(10)]
        self.class_to_idx = {name: number for number, name in enumerate(self.classes)}
        self.title = title

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        pixels = np.rint(self.data[index] * (255 / 16)).astype(np.uint8)
        image = Image.fromarray(pixels).convert("RGB")
        return (self.transform(image) if self.transform else image), self.targets[index]


def digits(split: str, transform: Callable | None = None) -> Digits:
    """Return handwritten digits, 8 × 8 pixels, white ink on black: far from the photographs of ImageNet.

    The images are RGB with three equal channels, since pretrained models want three. The first 70 % of each
    class are for training, in the order of the original, which goes from writer to writer.

    The trap: a shuffled split looks better than it is, because it has the same hands on both sides. One nearest
    neighbour is right on 96.1 % of this validation side, and on 98.1 to 99.4 % of five shuffled ones.

    Args:
        split: "train", "val" or "all".
        transform: Called with each PIL image.

    Raises:
        ValueError: The split is not one of these.

    Example:
        >>> image, digit = digits("val")[0]
        >>> image.size, image.mode, digit
        ((8, 8), 'RGB', 3)
    """
    check_split(split)
    rows = np.loadtxt(DATA / "digits" / "digits.csv", delimiter=",", dtype=np.uint8)
    pixels, targets = rows[:, :-1].reshape(-1, 8, 8), rows[:, -1]
    is_val = np.zeros(len(rows), bool)
    for digit in range(10):
        (places,) = np.nonzero(targets == digit)
        is_val[places[round(len(places) * (1 - VAL_FRACTION)) :]] = True
    keep = {"train": ~is_val, "val": is_val, "all": np.full(len(rows), True)}[split]
    return Digits(pixels[keep], targets[keep].tolist(), f"digits, {split}", transform)
