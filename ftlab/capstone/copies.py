"""Copies: the same picture twice, byte for byte or only to the eye, and which side of which split it is on."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ftlab.data.images import Images, read_image

SIDE = 16  # pixels: what a messenger does to a picture is not seen at this size
ALIKE = 0.25  # of the contrast, over the whole picture: two pages of a text are both white
SPOT = 36  # grey levels, at the worst place: two faces differ at the mouth. Of our emoji, none are nearer than 40
ROWS = 1000  # compared with all others at a time


@dataclass(frozen=True)
class Copy:
    """Two files with the same picture.

    Attributes:
        first: Where one is: (part, class, path below the part's folder).
        second: Where the other is.
        exact: Whether the files are equal, byte for byte; else the pictures look the same.
    """

    first: tuple[str, str, str]
    second: tuple[str, str, str]
    exact: bool

    def __str__(self) -> str:
        return f"{self.first[2]} {'=' if self.exact else 'looks like'} {self.second[2]}"


def find_copies(**parts: Images) -> list[Copy]:
    """Return the pairs of images that are the same picture, also where one was saved again or made smaller.

    Nothing is changed. The trap: a picture that was turned, mirrored, cut or made very small is not found, and
    neither is the same scene photographed twice.

    Args:
        **parts: Images by the name of their part, for example `train=`, `val=`.

    Example:
        >>> from ftlab import data
        >>> find_copies(train=data.emoji("train"), val=data.emoji("val"))  # faces are alike, and no copies
        []
    """
    places = [place for part, images in parts.items() for place in _places(part, images)]
    files = [file for images in parts.values() for file, _ in images.samples]
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(lambda file: sha256(Path(file).read_bytes()).digest(), files))
        small = list(pool.map(_thumbnail, files))
    return [
        Copy(places[one], places[other], digests[one] == digests[other])
        for one, other in _pairs(torch.stack(small) if small else torch.zeros(0, 1))
    ]


def _places(part: str, images: Images) -> Iterator[tuple[str, str, str]]:
    root = Path(images.root)
    for file, target in images.samples:
        name = Path(file).relative_to(root) if Path(file).is_relative_to(root) else Path(file)
        yield part, images.classes[target], name.as_posix()


def _thumbnail(file: str) -> Tensor:
    small = read_image(file).resize((SIDE, SIDE), Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(small, dtype=np.float32).reshape(-1))


def _pairs(small: Tensor) -> Iterator[tuple[int, int]]:
    """Yield the positions of two thumbnails that differ by little, compared with their contrast."""
    contrast = small.std(1).clamp_min(2.0) if len(small) else small
    root = max(small.shape[1], 1) ** 0.5
    for start in range(0, len(small), ROWS):
        block = slice(start, start + ROWS)
        away = torch.cdist(small[block], small, compute_mode="donot_use_mm_for_euclid_dist") / root
        near = away < ALIKE * torch.maximum(contrast[block, None], contrast[None])
        for one, other in near.nonzero().tolist():
            if start + one < other and _worst_spot(small[start + one], small[other]) < SPOT:
                yield start + one, other


def _worst_spot(one: Tensor, other: Tensor) -> float:
    return (one - other).abs().reshape(-1, 3).mean(1).max().item()


def listed(copies: Sequence[Copy], most: int = 3) -> str:
    """Return the first few copies as a text."""
    return "; ".join(map(str, copies[:most])) + (f"; and {len(copies) - most} more" if len(copies) > most else "")
