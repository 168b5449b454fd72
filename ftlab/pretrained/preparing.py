"""The preprocessing that belongs to the weights, the usual ways to get it wrong, and what each of them costs."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models._api import WeightsEnum
from torchvision.transforms import Compose

from ftlab.given import refuse_no_model
from ftlab.modes import keep_modes
from ftlab.nearest import nearest
from ftlab.pretrained.backbone import backbone
from ftlab.pretrained.catalogue import weights_of
from ftlab.pretrained.loading import sizes_of
from ftlab.random_state import keep_random_state
from ftlab.table import Table

Preparation = Callable[[Image.Image], Tensor]

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}  # what most of torchvision's entries use
HALVES = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
MISTAKES = ("another normalisation", "no normalisation", "0 to 255", "BGR", "too small", "too large")


def wrong_preprocessing(
    mistake: str,
    name: str | None = None,
    weights: str | WeightsEnum = "DEFAULT",
    *,
    size: int | None = None,
) -> Preparation:
    """Return the preprocessing of the weights with one mistake in it, image in, tensor out.

    Not one of them raises anything, neither here nor in the model: that is what makes them costly.

    Args:
        mistake: One of `MISTAKES`. "0 to 255" is an image that was neither divided by 255 nor normalised; "BGR"
            has red and blue exchanged, as OpenCV reads images; "too small" is a third of the size and "too
            large" the double.
        name: A name that `available()` lists; that of `backbone()` if None.
        weights: An entry, or its name.
        size: As in `preprocessing`; "too small" and "too large" are measured against it.

    Raises:
        ValueError: There is no such mistake, model or entry.

    Example:
        >>> round(wrong_preprocessing("0 to 255")(Image.new("RGB", (300, 300), "white")).max().item())
        255
    """
    entry = weights_of(name or backbone(), weights)
    sizes = sizes_of(size)
    prepare = entry.transforms(**{**sizes, **changes(mistake, entry, size=size)})
    return Compose([exchange_red_and_blue, prepare]) if mistake == "BGR" else prepare


def changes(mistake: str, entry: WeightsEnum, *, size: int | None = None) -> dict[str, tuple[float, ...] | int]:
    """Return the arguments of `entry.transforms(...)` that make the mistake; "right" needs none.

    Raises:
        ValueError: There is no such mistake.
    """
    right = entry.transforms()
    other = HALVES if tuple(right.mean) == IMAGENET["mean"] else IMAGENET
    known = {
        "right": {},
        "BGR": {},  # the image is changed, not the transforms
        "another normalisation": other,
        "no normalisation": {"mean": (0.0,) * 3, "std": (1.0,) * 3},
        "0 to 255": {"mean": (0.0,) * 3, "std": (1 / 255,) * 3},
        "too small": _sizes(right, size, 1 / 3),
        "too large": _sizes(right, size, 2),
    }
    if mistake not in known:
        raise ValueError(f"there is no mistake {mistake!r}; {nearest(mistake, known)}")
    return known[mistake]


def _sizes(right: nn.Module, size: int | None, factor: float) -> dict[str, int]:
    resize, crop = (size, size) if size else (right.resize_size[0], right.crop_size[0])
    return {"resize_size": round(resize * factor), "crop_size": round(crop * factor)}


def exchange_red_and_blue(image: Image.Image) -> Image.Image:
    """Return `image` (RGB) with red and blue exchanged.

    Example:
        >>> exchange_red_and_blue(Image.new("RGB", (1, 1), "red")).getpixel((0, 0))
        (0, 0, 255)
    """
    return Image.merge("RGB", image.split()[::-1])


def as_seen(tensor: Tensor, entry: WeightsEnum) -> Image.Image:
    """Return what the network sees in an input tensor (3, H, W): the image that would be right for these numbers.

    The normalisation of the weights is undone. What lies outside of black to white is cut off: no image has it.

    Example:
        >>> from ftlab.pretrained import EfficientNet_Lite0_Weights, preprocessing
        >>> grey = Image.new("RGB", (300, 300), (100, 100, 100))
        >>> as_seen(preprocessing()(grey), EfficientNet_Lite0_Weights.DEFAULT).getpixel((5, 5))
        (100, 100, 100)
    """
    right = entry.transforms()
    mean, std = (torch.tensor(values)[:, None, None] for values in (right.mean, right.std))
    values = (tensor * std + mean).clamp(0, 1) * 255
    return Image.fromarray(values.round().byte().permute(1, 2, 0).numpy().astype(np.uint8))


@torch.no_grad()
def top_classes(
    model: nn.Module, tensor: Tensor, categories: Sequence[str], *, count: int = 5
) -> dict[str, float]:
    """Return the most probable classes of one prepared image (3, H, W), the most probable first.

    The model is not changed: it is run in eval mode, and every module has its mode back.

    Raises:
        TypeError: It is no model, or `tensor` no tensor of floats; a PIL image must be prepared first.
        ValueError: `tensor` is no image (3, H, W), or the model has another number of classes than `categories`.

    Example:
        >>> from ftlab.pretrained import EfficientNet_Lite0_Weights, load
        >>> categories = EfficientNet_Lite0_Weights.DEFAULT.meta["categories"]
        >>> len(top_classes(load(), torch.zeros(3, 64, 64), categories, count=3))
        3
    """
    refuse_no_model(model)
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        found = f"a tensor of {tensor.dtype}" if isinstance(tensor, Tensor) else f"a {type(tensor).__name__}"
        raise TypeError(
            f"the image must be prepared: a tensor (3, H, W) of floats, not {found}; weights.transforms()(image) "
            "gives one, so does ftlab.pretrained.preprocessing()(image)"
        )
    if tensor.ndim != 3:
        raise ValueError(f"one image (3, H, W) is expected, not {tuple(tensor.shape)}; of a batch take batch[0]")
    probabilities = _probabilities(model, tensor[None])[0]
    if len(probabilities) != len(categories):
        raise ValueError(
            f"the model gives {len(probabilities)} scores, and there are {len(categories)} categories"
        )
    best = probabilities.topk(min(count, len(categories)))
    return {categories[place]: value for value, place in zip(*map(Tensor.tolist, best), strict=True)}


def preprocessing_cost(
    model: nn.Module, images: Sequence[tuple[Image.Image, set[int]]], preparations: Mapping[str, Preparation]
) -> Table:
    """Measure how often `model` is right, for each way to prepare the same images.

    The model is not changed; it is run in eval mode. The trap: on a few images every wrong way can look better
    than the right one by chance, so measure on many, and on the images that you care about.

    Args:
        model: Gives the scores of classes.
        images: Each with the numbers of all classes that are right for it.
        preparations: Image in, tensor out; by the name that stands in the table.

    Returns:
        Per way, in percent: how often the first class was right, how often one of the first five was, and the
        mean probability that the right classes got.

    Raises:
        ValueError: There is no image.

    Example:
        >>> from ftlab.pretrained import load, photographs, preprocessing
        >>> views = [(photograph.image, photograph.right) for photograph in photographs()]
        >>> small = {"small": preprocessing(size=96)}
        >>> preprocessing_cost(load(), views, small).to_dict()[0]["first is right %"]
        60.0
    """
    if not images:
        raise ValueError("there is no image to measure on")
    right = [sorted(classes) for _, classes in images]
    headers = ["preprocessing", "first is right %", "among five %", "probability %"]
    rows = []
    for name, prepare in preparations.items():
        batches = torch.stack([prepare(image) for image, _ in images]).split(8)
        probabilities = torch.cat([_probabilities(model, batch) for batch in batches])
        rows.append([name, *_shares(probabilities, right)])
    return Table(headers, rows, note=f"{len(images)} images")


def _shares(probabilities: Tensor, right: Sequence[Sequence[int]]) -> list[float]:
    places = probabilities.topk(5).indices.tolist()
    first = [row[0] in classes for row, classes in zip(places, right, strict=True)]
    five = [not set(row).isdisjoint(classes) for row, classes in zip(places, right, strict=True)]
    sure = [float(row[classes].sum()) for row, classes in zip(probabilities, right, strict=True)]
    return [100 * sum(values) / len(values) for values in (first, five, sure)]


@torch.no_grad()
def _probabilities(model: nn.Module, batch: Tensor) -> Tensor:
    device = next(model.parameters(), batch).device
    with keep_modes(model), keep_random_state():
        return model.eval()(batch.to(device)).float().softmax(1).cpu()
