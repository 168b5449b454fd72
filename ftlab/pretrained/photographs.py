"""Five photographs that are on every machine, and which of ImageNet's classes are right for them."""

from dataclasses import dataclass

import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from ftlab.random_state import keep_random_state

# The photographs come with scikit-image. ImageNet has no class "cat" and none "rocket": all that fit are right.
_RIGHT = {
    "cat": {281, 282, 285},  # tabby, tiger cat, Egyptian cat
    "coffee": {504, 967, 968},  # coffee mug, espresso, cup
    "rocket": {657, 744},  # missile, projectile
    "motorcycle": {665, 670},  # moped, motor scooter
    "photographer": {732, 759, 872},  # Polaroid camera, reflex camera, tripod
}


@dataclass(frozen=True)
class Photograph:
    """A photograph, and the numbers of all of ImageNet's classes that are right for it."""

    name: str
    image: Image.Image
    right: set[int]


def photographs() -> list[Photograph]:
    """Return five photographs that no network of ImageNet was trained on.

    Example:
        >>> [photograph.name for photograph in photographs()]
        ['cat', 'coffee', 'rocket', 'motorcycle', 'photographer']
    """
    from skimage import data

    arrays = [data.chelsea(), data.coffee(), data.rocket(), data.stereo_motorcycle()[0], data.camera()]
    images = [Image.fromarray(array).convert("RGB") for array in arrays]
    return [Photograph(name, image, right) for (name, right), image in zip(_RIGHT.items(), images, strict=True)]


def views(count: int = 8, *, seed: int = 0) -> list[tuple[Image.Image, set[int]]]:
    """Return `count` cuttings of each photograph, each at least half of it, with the classes that are right.

    One photograph says little about a network: single pictures go either way. The random state is as before.

    Example:
        >>> len(views(2))
        10
    """
    cut = RandomResizedCrop(320, scale=(0.5, 1.0))
    with keep_random_state(seed), torch.no_grad():
        return [(cut(each.image), each.right) for each in photographs() for _ in range(count)]
