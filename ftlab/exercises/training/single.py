"""A batch of one: from what OpenCV reads to what a model takes, and back without losing the batch."""

import numpy as np
import torch

from ftlab.exercises.core import Mistake, Raised, Wrong, exercise

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# --- to_batch


def check_to_batch(answer):
    """Two images of different shape: size, order of the channels, range, each pixel; the image afterwards."""
    for height, width in ((5, 8), (6, 4)):
        image = np.random.randint(0, 256, (height, width, 3), dtype=np.uint8)  # noqa: NPY002
        before = image.copy()
        value = _call_to_batch(answer, image)
        where = f"From an array of shape `{image.shape}`"
        _expect_batch(value, where, height, width)
        if not np.array_equal(image, before):
            raise Wrong("The image that was handed over has been changed.", ask="Which line works in place?")
        wanted = (torch.tensor(image[:, :, ::-1].transpose(2, 0, 1) / 255.0) - _column(MEAN)) / _column(STD)
        _expect_pixels(value[0].double(), wanted, torch.tensor(image), where)


def _call_to_batch(answer, image: np.ndarray):
    try:
        return answer(image)
    except Raised as raised:
        if "negative" in str(raised.error):
            ask = "Which copy of the array has its numbers in the order in which they are read?"
            raise Wrong(raised.message, ask=ask) from None
        raise


def _column(values: tuple) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None, None]


def _expect_batch(value: object, where: str, height: int, width: int) -> None:
    if not isinstance(value, torch.Tensor):
        raise Wrong(f"You gave a `{type(value).__name__}`, no tensor.", ask="What does a model of torch take?")
    if value.shape != (1, 3, height, width):
        ask = "Which order do N, C, H and W have for a model? One dimension is new, one has to move."
        raise Wrong(f"{where} you made `{tuple(value.shape)}`.", ask=ask)
    if not value.is_floating_point():
        raise Wrong(f"Your tensor has the type `{value.dtype}`.", ask="Can it hold a fraction?")


def _expect_pixels(value: torch.Tensor, wanted: torch.Tensor, image: torch.Tensor, where: str) -> None:
    if torch.allclose(value, wanted, atol=1e-4):
        return
    if value.abs().max() > 5:
        found = f"from {value.min().item():.3g} to {value.max().item():.3g}"
        raise Wrong(f"{where} the numbers go {found}.", ask="For which range are mean and deviation given?")
    if value.min() >= 0 and value.max() <= 1:
        text = f"{where} the numbers are those of an image from 0 to 1, not normalised."
        raise Wrong(text, ask="What is subtracted, and what is divided by?")
    blue_first = (image.double().permute(2, 0, 1) / 255 - _column(MEAN)) / _column(STD)
    if torch.allclose(value, blue_first, atol=1e-4):
        text = f"{where} the first channel of your batch is the first of the image, and that is blue."
        raise Wrong(text, ask="In which order does OpenCV read the colours?")
    if _is_only_rescaled(value, wanted):
        text = f"{where} each pixel is in its place, and its number is another: not `(pixel - mean) / deviation`."
        raise Wrong(
            text, ask="By what is divided first, what is subtracted then, and by what is divided at last?"
        )
    text = f"{where} the shape is right, and the pixels are not where they belong, or in other colours."
    raise Wrong(text, ask="Does your call move a dimension, or cut the same row of numbers in another way?")


def _is_only_rescaled(value: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Say whether each channel is the wanted one, multiplied by a number and moved by another."""
    return all(
        torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.9999
        for one, other in zip(value, wanted, strict=True)
    )


def _normalised(pixels: torch.Tensor) -> torch.Tensor:
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return (pixels - mean) / std


def _by_numpy(image):
    pixels = (image[:, :, ::-1].astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    return torch.tensor(pixels.transpose(2, 0, 1)[np.newaxis].copy())


def _by_stack(image):
    blue, green, red = torch.tensor(image).float().div(255).unbind(2)
    return torch.stack([_normalised(torch.stack([red, green, blue]))])


def _only_unsqueeze(image):
    return torch.tensor(image).unsqueeze(0).float()


def _view_instead(image):
    height, width, _ = image.shape
    pixels = torch.tensor(image[:, :, ::-1].copy()).view(3, height, width)
    return _normalised(pixels.float() / 255).unsqueeze(0)


def _blue_first(image):
    return _normalised(torch.from_numpy(image).permute(2, 0, 1).float() / 255).unsqueeze(0)


def _not_divided_by_255(image):
    return _normalised(torch.tensor(image[:, :, ::-1].copy()).permute(2, 0, 1).float()).unsqueeze(0)


def _not_normalised(image):
    return torch.tensor(image[:, :, ::-1].copy()).permute(2, 0, 1).float().div(255).unsqueeze(0)


def _negative_strides(image):
    return _normalised(torch.from_numpy(image[:, :, ::-1]).permute(2, 0, 1).float() / 255).unsqueeze(0)


def _transposed(image):
    return _normalised(torch.tensor(image[:, :, ::-1].copy()).permute(2, 1, 0).float() / 255).unsqueeze(0)


def _multiplied_by_the_deviation(image):
    pixels = torch.tensor(image[:, :, ::-1].copy()).permute(2, 0, 1) / 255
    return ((pixels - torch.tensor(MEAN).view(3, 1, 1)) * torch.tensor(STD).view(3, 1, 1)).unsqueeze(0)


def _divided_by_256(image):
    return _normalised(torch.tensor(image[:, :, ::-1].copy()).permute(2, 0, 1) / 256).unsqueeze(0)


def _no_batch(image):
    return _normalised(torch.tensor(image[:, :, ::-1].copy()).permute(2, 0, 1).float() / 255)


@exercise(
    check=check_to_batch,
    hints=[
        "Five things to do: the colours, the place of the channels, the range, the normalisation, the batch.",
        "`image[:, :, ::-1].copy()` has red first; `permute(2, 0, 1)` moves the channels, `view` would not.",
        "Mean and deviation are for numbers from 0 to 1, and need the shape `(3, 1, 1)`: `.view(3, 1, 1)`.",
    ],
    also_right=[_by_numpy, _by_stack],
    mistakes=[
        Mistake(_only_unsqueeze, says="you made `(1, 5, 8, 3)`"),
        Mistake(_view_instead, says="the pixels are not where they belong"),
        Mistake(_blue_first, says="and that is blue"),
        Mistake(_not_divided_by_255, says="the numbers go from"),
        Mistake(_not_normalised, says="not normalised"),
        Mistake(_multiplied_by_the_deviation, says="each pixel is in its place, and its number is another"),
        Mistake(_divided_by_256, says="each pixel is in its place, and its number is another"),
        Mistake(_negative_strides, says="negative"),
        Mistake(_transposed, says="you made `(1, 3, 8, 5)`"),
        Mistake(_no_batch, says="you made `(3, 5, 8)`"),
    ],
    remember="Red first, channels first, 0 to 1, normalised, and then the batch of one.",
)
def to_batch(image) -> torch.Tensor:
    """Write: make of `image`, as OpenCV reads it, the batch of one that a pretrained model takes.

    `image` is an array (H, W, 3) of whole numbers from 0 to 255, blue first. The model wants (1, 3, H, W), red
    first, divided by 255, then normalised: mean (0.485, 0.456, 0.406), deviation (0.229, 0.224, 0.225).
    """
    pixels = torch.tensor(image[:, :, ::-1].copy()).permute(2, 0, 1).float() / 255
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    return ((pixels - mean) / std).unsqueeze(0)


# --- cat_probabilities


def check_cat_probabilities(answer):
    """The result for batches of 5, 2 and 1 images: shape and numbers."""
    for count in (5, 2, 1):
        layer = torch.nn.Conv2d(3, 1, 4)
        pictures = torch.randn(count, 3, 4, 4)
        value = answer(layer, pictures)
        if not isinstance(value, torch.Tensor):
            raise Wrong(f"You gave a `{type(value).__name__}`, no tensor.", ask="What does the model give?")
        if value.shape != (count,):
            text = f"For a batch of {count} the result has the shape `{tuple(value.shape)}`."
            ask = "Which dimensions does `squeeze()` take away, and which of them should stay?"
            raise Wrong(text, ask=ask)
        if not value.is_floating_point():
            text = f"Your result has the type `{value.dtype}`, and a probability is a fraction."
            raise Wrong(text, ask="Was a decision asked for, or how sure the model is?")
        wanted = layer(pictures).detach().sigmoid().flatten()
        _expect_probabilities(value.detach(), f"For a batch of {count}")
        if not torch.allclose(value.detach().to(wanted.dtype), wanted, atol=1e-6):
            raise Wrong(f"For a batch of {count} the numbers are others.", ask="Is each image still its own?")


def _expect_probabilities(value: torch.Tensor, where: str) -> None:
    if value.min() < 0 or value.max() > 1:
        text = f"{where} your numbers go from {value.min():.2f} to {value.max():.2f}: no probabilities."
        raise Wrong(text, ask="Which function makes a number from 0 to 1 of a score?")
    if (value == 1).all():
        raise Wrong(f"{where} each of your numbers is 1.", ask="What is a softmax over a single number?")


def _squeeze_all(model, images):
    return model(images).sigmoid().squeeze()


def _by_flatten(model, images):
    return model(images).sigmoid().flatten()


def _by_index(model, images):
    return model(images).sigmoid()[:, 0, 0, 0]


def _by_view(model, images):
    return model(images).sigmoid().view(len(images))


def _squeeze_the_first(model, images):
    return model(images).sigmoid().squeeze(0)


def _squeeze_one(model, images):
    return model(images).sigmoid().squeeze(1)


def _special_case(model, images):
    scores = model(images).sigmoid().squeeze()
    return scores.unsqueeze(0) if scores.ndim == 0 else scores.unsqueeze(1)


def _scores(model, images):
    return model(images).flatten()


def _softmax_of_one(model, images):
    return model(images).softmax(1).flatten()


def _decisions(model, images):
    return (model(images).sigmoid() > 0.5).flatten()


def _mean_over_all(model, images):
    return model(images).sigmoid().mean().expand(len(images))


@exercise(
    check=check_cat_probabilities,
    broken=_squeeze_all,
    hints=[
        "Print the shape for a batch of two, and for a batch of one.",
        "`squeeze()` takes away every dimension of size 1, the batch too. Name the dimensions that shall go.",
    ],
    also_right=[_by_flatten, _by_index, _by_view],
    mistakes=[
        Mistake(_squeeze_the_first, says="the result has the shape `(5, 1, 1, 1)`"),
        Mistake(_squeeze_one, says="the result has the shape `(5, 1, 1)`"),
        Mistake(_special_case, says="the result has the shape `(5, 1)`"),
        Mistake(_scores, says="no probabilities"),
        Mistake(_softmax_of_one, says="each of your numbers is 1"),
        Mistake(_decisions, says="a probability is a fraction"),
        Mistake(_mean_over_all, says="the numbers are others"),
    ],
    remember="Name the dimension: squeeze() eats the batch when it is one.",
)
def cat_probabilities(model, images: torch.Tensor) -> torch.Tensor:
    """Repair: return one probability per image, (N,), for a batch of any size.

    `model(images)` has the shape (N, 1, 1, 1).
    """
    return model(images).sigmoid().squeeze((1, 2, 3))
