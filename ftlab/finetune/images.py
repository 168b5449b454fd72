"""The images of a run: in which order they come, and how each one looks in each epoch."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from ftlab.data.images import Images

READERS = 4  # threads: Pillow decodes and resizes without holding Python's lock


def order(count: int, seed: int, epoch: int) -> list[int]:
    """Return the positions of `count` images in the order of this epoch; no random state is touched.

    Example:
        >>> order(5, seed=0, epoch=0) == order(5, seed=0, epoch=0), order(5, 0, 0) == order(5, 0, 1)
        (True, False)
    """
    positions = list(range(count))
    random.Random(f"order {seed} {epoch}").shuffle(positions)
    return positions


def augmented(image: Image.Image, *key: int) -> Image.Image:
    """Return the image mirrored or not, and a part of it of at least 60 %; the same `key` gives the same one.

    What happens to an image depends on the seed, the epoch and the image alone. torchvision's random transforms
    draw from the state of the process, which differs with the number of processes and after a resume.

    Example:
        >>> image = Image.effect_noise((40, 30), 50)
        >>> augmented(image, 0, 1).tobytes() == augmented(image, 0, 1).tobytes()
        True
    """
    draw = random.Random(f"augment {key}")
    width, height = image.size
    scale = math.sqrt(draw.uniform(0.6, 1.0))
    wide, high = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = draw.randint(0, width - wide), draw.randint(0, height - high)
    mirror = draw.random() < 0.5
    part = F.crop(image, top, left, high, wide)
    return F.horizontal_flip(part) if mirror else part


class Reader:
    """Reads the images of one split, by position, a batch ahead of the training.

    Args:
        images: The split, without a transform.
        prepare: The preprocessing of the weights, image in, tensor (3, size, size) out.
        seed: See `augmented`.
        augment: Whether images look otherwise in each epoch.
    """

    def __init__(
        self, images: Images, prepare: Callable[[Image.Image], Tensor], *, seed: int = 0, augment: bool = False
    ) -> None:
        self.images, self.prepare, self.seed, self.augment = images, prepare, seed, augment

    def one(self, position: int, epoch: int = 0) -> Tensor:
        """Return one prepared image (3, size, size)."""
        image, _ = self.images[position]
        return self.prepare(augmented(image, self.seed, epoch, position) if self.augment else image)

    def batches(self, parts: Sequence[Sequence[int]], epoch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images (n, 3, size, size) and class numbers (n,) for each list of positions; n may be 0."""
        with ThreadPoolExecutor(READERS) as pool:
            waiting = [self._ask(pool, part, epoch) for part in parts[:1]]
            for number, part in enumerate(parts):
                waiting += [self._ask(pool, later, epoch) for later in parts[number + 1 : number + 2]]
                yield self._stack([future.result() for future in waiting.pop(0)]), self.targets(part)

    def targets(self, positions: Sequence[int]) -> Tensor:
        """Return the class numbers (n,)."""
        return torch.tensor([self.images.targets[position] for position in positions], dtype=torch.long)

    def _ask(self, pool: ThreadPoolExecutor, positions: Sequence[int], epoch: int) -> list:
        return [pool.submit(self.one, position, epoch) for position in positions]

    def _stack(self, tensors: list[Tensor]) -> Tensor:
        # An empty share needs the shape of the others.
        return torch.stack(tensors) if tensors else self.one(0)[None][:0]
