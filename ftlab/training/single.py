"""One image to a batch: what was given, what had to be done to it, and what nobody can see."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ftlab.table import Table, Tabled

FIRST, LAST = "first", "last"


@dataclass(frozen=True, repr=False)
class BatchOfOne(Tabled):
    """An image as a batch of one, and how it came to that; the repr is the table.

    Attributes:
        batch: The tensor (1, 3, H, W).
        steps: Pairs of what was found and what was done.
    """

    batch: Tensor
    steps: list[tuple[str, str]]

    def table(self) -> Table:
        """Return what was found and what was done, row by row."""
        low, high = self.batch.min().item(), self.batch.max().item()
        note = f"now: a tensor {tuple(self.batch.shape)}, {self.batch.dtype}, from {low:.3g} to {high:.3g}"
        return Table(["found", "done"], self.steps, note=note)

    def to_dict(self) -> dict[str, Any]:
        """Return the shape, and what was found and done."""
        return {"shape": list(self.batch.shape), "steps": [list(step) for step in self.steps]}


def batch_of_one(
    image: Any,
    prepare: Callable[[Tensor], Tensor] | None = None,
    *,
    channels: str | None = None,
    bgr: bool = False,
) -> BatchOfOne:
    """Make of one image what a model takes: (1, 3, H, W), red first, from 0 to 1 or as `prepare` makes it.

    `image` is not changed; what comes out is a copy. The repr says what was found and what was done.

    The trap: two things stand in no tensor. OpenCV reads blue first, and nobody can see it: say `bgr=True`. And
    an image of height 3, or width 3, may be read in two ways: say `channels`.

    Args:
        image: A PIL image; or an array or tensor (H, W), (H, W, 3) or (3, H, W), also as a batch of one already,
            in whole numbers from 0 to 255 or in fractions from 0 to 1.
        prepare: The transforms that belong to the weights, such as `pretrained.preprocessing()`.
        channels: "first" or "last"; found out from the shape if None.
        bgr: Whether the first channel is blue.

    Raises:
        TypeError: It is no image. `cv2.imread` gives None for a file that it cannot read.
        ValueError: The shape has no three channels or more than one reading, or the numbers are not those of an
            image: normalised before, say.

    Example:
        >>> photo = np.full((40, 60, 3), 255, np.uint8)
        >>> batch_of_one(photo)
        found                        done
        ---------------------------  -----------------------
        ndarray (40, 60, 3), uint8   copied into a tensor
        channels last                moved to the front
        whole numbers from 0 to 255  divided by 255
        one image                    a batch dimension added
        now: a tensor (1, 3, 40, 60), torch.float32, from 1 to 1
    """
    if channels not in (None, FIRST, LAST):
        raise ValueError(f"channels is {FIRST!r} or {LAST!r}, not {channels!r}")
    steps: list[tuple[str, str]] = []
    pixels = _three_channels(_one_image(_tensor(image, steps), steps), channels, steps)
    if bgr:
        pixels = pixels.flip(0)
        steps.append(("blue first, as you said", "red and blue exchanged"))
    pixels = _fractions(pixels, steps)
    if prepare is not None:
        pixels = prepare(pixels)
        steps.append(("your preprocessing", "resized and normalised as it does"))
    steps.append(("one image", "a batch dimension added"))
    return BatchOfOne(pixels.unsqueeze(0), steps)


def _tensor(image: Any, steps: list) -> Tensor:
    kind = type(image).__name__
    if isinstance(image, Image.Image):
        steps.append(
            (
                f"PIL image, {image.width} wide, {image.height} high, {image.mode}",
                "made RGB, copied into a tensor",
            )
        )
        return torch.from_numpy(np.array(image.convert("RGB")))
    if isinstance(image, np.ndarray):
        steps.append((f"{kind} {image.shape}, {image.dtype}", "copied into a tensor"))
        return torch.from_numpy(image.copy())  # a copy: torch refuses the negative strides of image[..., ::-1]
    if isinstance(image, Tensor):
        steps.append((f"{kind} {tuple(image.shape)}, {image.dtype}", "copied"))
        return image.detach().clone()
    hint = "; cv2.imread gives None for a file it cannot read" if image is None else ""
    raise TypeError(f"an image is a PIL image, an array or a tensor, not {kind}{hint}")


def _one_image(pixels: Tensor, steps: list) -> Tensor:
    if pixels.ndim == 4 and len(pixels) == 1:
        steps.append(("a batch of one already", "taken apart"))
        return pixels[0]
    if pixels.ndim not in (2, 3) or not pixels.numel():
        raise ValueError(f"one image has 2 or 3 dimensions, and this has shape {tuple(pixels.shape)}")
    return pixels


def _three_channels(pixels: Tensor, channels: str | None, steps: list) -> Tensor:
    """Return the pixels as (3, H, W)."""
    if pixels.ndim == 2:
        steps.append(("no channels: grey", "the same three times"))
        return pixels.expand(3, -1, -1)
    readings = [side for side, place in ((FIRST, 0), (LAST, 2)) if pixels.shape[place] in (1, 3)]
    if channels is None and len(readings) == 2:
        raise ValueError(f"shape {tuple(pixels.shape)} may be read in two ways; say channels='first' or 'last'")
    side = channels or (readings[0] if readings else None)
    if side not in readings:
        four = "; leave out the transparency: image[..., :3]" if pixels.shape[2] == 4 else ""
        raise ValueError(f"no three channels, first or last, in shape {tuple(pixels.shape)}{four}")
    if side == LAST:
        steps.append(("channels last", "moved to the front"))
        pixels = pixels.permute(2, 0, 1)  # view would keep the memory's order and scramble the pixels
    if len(pixels) == 1:
        steps.append(("one channel: grey", "the same three times"))
    return pixels.expand(3, -1, -1)


def _fractions(pixels: Tensor, steps: list) -> Tensor:
    low, high = pixels.min().item(), pixels.max().item()
    if not 0 <= low <= high <= 255:
        raise ValueError(
            f"an image has numbers from 0 to 255, or from 0 to 1, and these go from {low:.3g} to {high:.3g}; if "
            "they are normalised already, image.unsqueeze(0) is all that is missing"
        )
    if not pixels.is_floating_point():
        steps.append(("whole numbers from 0 to 255", "divided by 255"))
        return pixels.float().div(255)
    if high > 1:
        steps.append((f"fractions up to {high:.3g}", "divided by 255"))
        return pixels.float().div(255)
    return pixels.float()
