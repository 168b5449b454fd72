"""What every data set here shares: reading an image, the data set class, the table of its classes."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps
from torchvision.datasets import ImageFolder, VisionDataset

from ftlab.table import Table

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "AVIF")
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")


def read_image(file: str | Path | BinaryIO, *, largest: int | None = None) -> Image.Image:
    """Read an image file as RGB.

    The trap: torchvision's own loader calls only `convert("RGB")`. That leaves a phone's photograph lying on its
    side, shows the hidden colour under transparent pixels, and turns a 16 bit image white. Here a photograph is
    turned as its EXIF says, transparent pixels become white, and 16 bits are scaled to 8. Of an animation the
    first picture is read.

    Args:
        file: A path or an open file.
        largest: Shrink the image so that no side has more pixels; None keeps its size.

    Raises:
        OSError: The file is no image, or a part of it is missing.
        ValueError: The pixels are 32 bit numbers, of which nobody knows what white is; or there are so many that
            Pillow takes the file for an attack.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            if largest:
                image.draft(None, (largest, largest))  # a JPEG is decoded smaller, which is much faster
            found = as_rgb(image)
    except Image.DecompressionBombError as error:
        raise ValueError(f"{error}; save it with fewer pixels, or raise PIL.Image.MAX_IMAGE_PIXELS") from error
    if largest:
        found.thumbnail((largest, largest))
    return found


def as_rgb(image: Image.Image) -> Image.Image:
    """Return `image` upright, opaque and RGB."""
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are 32 bit numbers (mode {image.mode}): save it with 8 or 16 bits")
    image = ImageOps.exif_transpose(image)
    if image.mode in SIXTEEN_BITS:
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


class ClassTable:
    """A data set whose repr is the table of its classes; it has `title`, `classes` and `targets`."""

    title: str
    classes: list[str]
    targets: list[int]
    note = ""

    def _table(self) -> Table:
        count = Counter(self.targets)
        rows = [[name, count[number]] for number, name in enumerate(self.classes)]
        title = f"{self.title}: {len(self.targets):,} images"
        return Table(["class", "images"], rows, title=title, note=self.note)

    def __repr__(self) -> str:
        return repr(self._table())

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()

    def to_dict(self) -> list[dict[str, Any]]:
        """Return one dictionary per class: its name and its number of images."""
        return self._table().to_dict()


class Images(ClassTable, ImageFolder):
    """A data set of image files: an `ImageFolder` whose list of files is chosen, not everything below `root`.

    Attributes:
        classes: The class names, sorted.
        class_to_idx: The number of each class.
        samples: (path, class number) of each image; `imgs` is the same list, as in torchvision.
        targets: The class number of each image.
        skipped: Why each file was left out, by its path; empty unless `folder(..., skip_bad=True)` made it.
    """

    def __init__(
        self,
        root: Path,
        classes: Sequence[str],
        samples: Sequence[tuple[str, int]],
        *,
        title: str,
        transform: Callable | None = None,
        skipped: dict[str, str] | None = None,
    ) -> None:
        # Not ImageFolder's own constructor: it would collect every file below root.
        VisionDataset.__init__(self, str(root), transform=transform)
        self.loader = read_image
        self.extensions = None
        self.classes = list(classes)
        self.class_to_idx = {name: number for number, name in enumerate(self.classes)}
        self.samples = self.imgs = list(samples)
        self.targets = [target for _, target in self.samples]
        self.title = title
        self.skipped = skipped or {}
        if self.skipped:
            self.note = f"bad files left out: {len(self.skipped)}, see .skipped"
