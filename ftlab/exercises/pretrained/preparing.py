"""Prepare an image as the weights want it, and read the answer."""

import functools
import reprlib

import torch
from PIL import Image
from torch import Tensor, nn

from ftlab.exercises.core import Mistake, Wrong, exercise
from ftlab.pretrained import load, photographs, preprocessing, preprocessing_cost, wrong_preprocessing


def check_from_opencv(answer):
    """The batch, number by number, for two random pictures with blue first, of different size."""
    prepare = preprocessing(size=32)
    for height, width in ((40, 60), (50, 50)):
        blue_first = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8).numpy()
        image = Image.fromarray(blue_first[:, :, ::-1].copy())
        _expect_batch(answer(blue_first.copy(), prepare), prepare(image), prepare(Image.fromarray(blue_first)))


def _expect_batch(given: object, wanted: Tensor, blue_first: Tensor) -> None:
    if not isinstance(given, Tensor):
        kind = type(given).__name__
        raise Wrong(f"What came back is of type `{kind}`, not a tensor.", ask="What does `prepare` return?")
    if given.shape == wanted.shape:
        text = f"The shape is {tuple(given.shape)}: an image, not a batch of one image."
        raise Wrong(text, ask="A network takes (N, C, H, W). Which dimension is missing, and where?")
    if given.shape != (1, *wanted.shape):
        text = f"The shape is {tuple(given.shape)}, for a batch of one image of {tuple(wanted.shape)}."
        raise Wrong(text, ask="Which dimension of the array is height, width, colour; which one is `prepare`'s?")
    if (given.float() - wanted).abs().mean() < 0.05:
        return
    if (given.float() - blue_first).abs().mean() < 0.05:
        raise Wrong(
            "The numbers are those of the picture with red and blue exchanged.", ask="In which order are they?"
        )
    low, high = given.min().item(), given.max().item()
    text = f"The numbers go from {low:.3g} to {high:.3g}; with the right picture, from {wanted.min():.3g} to "
    raise Wrong(
        f"{text}{wanted.max():.3g}.", ask="What does `prepare` do to a picture of bytes, and what to floats?"
    )


def _by_pillow(picture, prepare):
    from PIL import Image

    return prepare(Image.fromarray(picture[..., ::-1].copy())).unsqueeze(0)


def _by_channels(picture, prepare):
    from PIL import Image

    blue, green, red = Image.fromarray(picture).split()
    return torch.stack([prepare(Image.merge("RGB", (red, green, blue)))])


def _blue_first(picture, prepare):
    tensor = torch.from_numpy(picture).permute(2, 0, 1)
    return prepare(tensor)[None]


def _without_batch(picture, prepare):
    return prepare(torch.from_numpy(picture).flip(2).permute(2, 0, 1))


def _floats_of_255(picture, prepare):
    return prepare(torch.from_numpy(picture).flip(2).permute(2, 0, 1).float())[None]


def _divided_bytes(picture, prepare):
    tensor = torch.from_numpy(picture).flip(2).permute(2, 0, 1)
    return prepare((tensor / 255).byte())[None]


def _reshaped(picture, prepare):
    height, width, _ = picture.shape
    return prepare(torch.from_numpy(picture).flip(2).reshape(3, height, width))[None]


def _rows_flipped(picture, prepare):
    return prepare(torch.from_numpy(picture).flip(0).permute(2, 0, 1))[None]


def _not_prepared(picture, prepare):
    return torch.from_numpy(picture).flip(2).permute(2, 0, 1)[None]


@exercise(
    check=check_from_opencv,
    broken=_blue_first,
    hints=[
        "The code runs. Which of the three planes does the network take for red?",
        "`tensor.flip(dimension)` turns the order round. Which dimension are the colours, after `permute`?",
        "Leave the bytes as they are: `prepare` divides by 255 if it gets bytes, and does not if it gets floats.",
    ],
    also_right=[_by_pillow, _by_channels],
    mistakes=[
        Mistake(_without_batch, says="an image, not a batch"),
        Mistake(_floats_of_255, says="The numbers go from"),
        Mistake(_divided_bytes, says="The numbers go from"),
        Mistake(_reshaped, says="The numbers go from"),
        Mistake(_rows_flipped, says="The numbers go from"),
        Mistake(_not_prepared, says="The shape is (1, 3, 40, 60)"),
    ],
    remember="The network was trained on RGB. A wrong order raises nothing; it costs.",
)
def from_opencv(picture, prepare) -> torch.Tensor:
    """Repair: return the batch of one image that the network needs for `picture`.

    `picture` is what OpenCV's `imread` gives: an array of bytes (height, width, 3) with *blue* first.
    `prepare` is the preprocessing of the weights. It takes a PIL image or a tensor (3, height, width) of bytes.
    """
    tensor = torch.from_numpy(picture).permute(2, 0, 1).flip(0)
    return prepare(tensor)[None]


_CATEGORIES = ["ant", "bear", "cat", "dog", "eel", "fox"]


def check_top_names(answer):
    """The names for three pictures by a small network with batch norm and dropout, given in train mode."""
    front = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = nn.Sequential(*front, nn.Dropout(0.8), nn.Linear(16, len(_CATEGORIES)))
    model[1].running_mean.normal_()
    nn.init.normal_(model[-1].weight, std=3)
    model.requires_grad_(False)
    cases = {}
    for image in _images_told_apart(model):
        given, again = (answer(model.train(), image, list(_CATEGORIES)) for _ in range(2))
        if isinstance(given, torch.Tensor):
            text = f"You gave a tensor, `{reprlib.repr(given.tolist())}`, and no names."
            raise Wrong(text, ask="Which name does `categories` have at such a place?")
        if isinstance(given, list | tuple) and given != again:
            ask = "In which mode was the model handed over, and what does dropout do there?"
            raise Wrong(
                f"The same image twice, and two answers: `{reprlib.repr(given)}`, `{reprlib.repr(again)}`.",
                ask=ask,
            )
        cases[image] = given
    first, *others = cases.values()
    if isinstance(first, list) and all(given == first for given in others):
        text = f"For three images of which it says different things, always the same names: {first}."
        raise Wrong(text, ask="What are the six numbers that you sort? Print them.")
    for image, given in cases.items():
        _expect_names(given, *_names_and_scores(model, image))


def _images_told_apart(model: nn.Module) -> list[Tensor]:
    found = {}
    while len(found) < 3:
        image = torch.randn(3, 1, 1) + torch.randn(3, 16, 16)
        found.setdefault(tuple(_names_and_scores(model, image)[0]), image)
    return list(found.values())


@torch.no_grad()
def _names_and_scores(model: nn.Module, image: Tensor) -> tuple[list[str], Tensor]:
    scores = model.eval()(image[None])[0]
    return [_CATEGORIES[place] for place in scores.argsort(descending=True)[:3]], scores


def _expect_names(given: object, wanted: list[str], scores: Tensor) -> None:
    if isinstance(given, str) or not isinstance(given, list | tuple) or len(given) != 3:
        raise Wrong(
            f"Not three names: `{reprlib.repr(given)}`.",
            ask="How many classes does `topk` give, and of which image?",
        )
    names = [str(name) for name in given]
    if unknown := [name for name in names if name not in _CATEGORIES]:
        raise Wrong(
            f"`{unknown[0]}` is no name of a class.", ask="Which list turns a class number into its name?"
        )
    if names == wanted:
        return
    if names == [_CATEGORIES[place] for place in scores.argsort()[:3]]:
        raise Wrong("These are the three least probable classes.", ask="Which end of the order is the best?")
    if set(names) == set(wanted):
        raise Wrong("The three classes are right, their order is not.", ask="Is the most probable one the first?")
    text = f"For one image the names were {', '.join(names)}: not what the network says of it."
    raise Wrong(text, ask="What are the scores of the first image, before and after each of your steps?")


def _by_argsort(model, image, categories):
    model.eval()
    with torch.inference_mode():
        order = model(image.unsqueeze(0)).squeeze(0).argsort(descending=True)
    return [categories[int(place)] for place in order[:3]]


def _by_probability(model, image, categories):
    model.eval()
    with torch.no_grad():
        probabilities = model(image[None]).softmax(dim=1)[0].tolist()
    return [name for _, name in sorted(zip(probabilities, categories, strict=True), reverse=True)[:3]]


def _in_train_mode(model, image, categories):
    with torch.no_grad():
        scores = model(image[None])[0]
    return [categories[place] for place in scores.topk(3).indices]


def _without_batch_dimension(model, image, categories):
    scores = model.eval()(image)
    return [categories[place] for place in scores.topk(3).indices]


def _numbers_instead_of_names(model, image, categories):
    return model.eval()(image[None])[0].topk(3).indices.tolist()


def _the_worst(model, image, categories):
    scores = model.eval()(image[None])[0]
    return [categories[place] for place in scores.argsort()[:3]]


def _only_the_best(model, image, categories):
    return categories[model.eval()(image[None]).argmax()]


def _softmax_over_the_batch(model, image, categories):
    probabilities = model.eval()(image[None]).softmax(dim=0)[0]
    return [categories[place] for place in probabilities.topk(3).indices]


def _batch_as_answer(model, image, categories):
    places = model.eval()(image[None]).topk(3).indices
    return [categories[place] for place in places]


@exercise(
    check=check_top_names,
    hints=[
        "The model comes in train mode. Which call puts it into the mode for predicting?",
        "A network takes a batch: `image[None]` has the shape (1, 3, H, W). And it gives a batch of scores.",
        "`scores.topk(3).indices` are class numbers, the best first; `categories[number]` is the name.",
    ],
    also_right=[_by_argsort, _by_probability],
    mistakes=[
        Mistake(_in_train_mode, says="The same image twice, and two answers"),
        Mistake(_without_batch_dimension, says="It raised"),
        Mistake(_numbers_instead_of_names, says="is no name of a class"),
        Mistake(_the_worst, says="least probable"),
        Mistake(_only_the_best, says="Not three names"),
        Mistake(_softmax_over_the_batch, says="always the same names"),
        Mistake(_batch_as_answer, says="It raised"),
    ],
    remember="eval mode, a batch of one, the scores of its first image, `topk`, the names.",
)
def top_names(model: nn.Module, image: torch.Tensor, categories: list[str]) -> list[str]:
    """Return the names of the three most probable classes of `image`, the most probable first.

    `image` is prepared already, (3, H, W). `model` gives a score for each of `categories`; it has just been made,
    so it is in train mode.
    """
    model.eval()
    with torch.no_grad():
        scores = model(image[None])[0]
    return [categories[number] for number in scores.topk(3).indices]


_KINDS = ("another normalisation", "BGR", "0 to 255")
_REASONS = {
    "colour": "The shapes are still there: with the colours exchanged it was right more often.",
    "offset": "With another mean the numbers stay in the range that it knows, and it was right more often.",
    "range": "",
    "error": "Not one of the three raises anything: that is why nobody notices.",
}


def check_costliest_mistake(answer):
    """How sure the embedded network is of five photographs, 160 pixels, with each mistake; the reason."""
    value = answer()
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise Wrong(
            f"A choice and a reason were asked for, you gave `{reprlib.repr(value)}`.", ask="Are there two texts?"
        )
    choice, reason = value
    if choice not in _KINDS or reason not in _REASONS:
        ask = "Is the choice first, then the reason?"
        raise Wrong(f"`{choice!r}, {reason!r}` is not in the task's lists.", ask=ask)
    right = _measured()
    if right[choice] > min(right.values()):
        text = f'With "{choice}" it put {right[choice]:.0f} % of its probability on the right classes'
        raise Wrong(f"{text}; with another of the three, far less.", ask="What do the first layers get to see?")
    if _REASONS[reason]:
        raise Wrong(
            f'The choice is right, "{reason}" is not why. {_REASONS[reason]}', ask="What else is different?"
        )


@functools.cache
def _measured() -> dict[str, float]:
    """Return the mean probability of the right classes in percent, for each mistake; measured once."""
    images = [(each.image, each.right) for each in photographs()]
    name = "efficientnet_lite0"  # the one that wants another normalisation than the usual one
    wrong = {kind: wrong_preprocessing(kind, name, size=160) for kind in _KINDS}
    table = preprocessing_cost(load(name), images, wrong)
    return {row["preprocessing"]: row["probability %"] for row in table.to_dict()}


def _as_a_list():
    return ["0 to 255", "range"]


def _by_variables():
    choice, reason = "0 to 255", "range"
    return choice, reason


def _colours_exchanged():
    return "BGR", "colour"


def _another_offset():
    return "another normalisation", "offset"


def _it_would_raise():
    return "0 to 255", "error"


def _range_is_an_offset():
    return "0 to 255", "offset"


def _choice_alone():
    return "0 to 255"


def _the_other_way_round():
    return "range", "0 to 255"


@exercise(
    check=check_costliest_mistake,
    hints=[
        "Print the smallest and the largest number of a prepared image, with each of the three.",
        "`wrong_preprocessing(mistake)(image)` makes each; `as_seen` shows what the network gets to see.",
        "The network expects numbers from about -1 to 1. One of the three is a hundred times beyond.",
    ],
    also_right=[_as_a_list, _by_variables],
    mistakes=[
        Mistake(_colours_exchanged, says='With "BGR" it put'),
        Mistake(_another_offset, says='With "another normalisation" it put'),
        Mistake(_it_would_raise, says="Not one of the three raises"),
        Mistake(_range_is_an_offset, says="stay in the range"),
        Mistake(_choice_alone, says="A choice and a reason"),
        Mistake(_the_other_way_round, says="not in the task's lists"),
    ],
    remember="The range is the first thing to look at: print the smallest and the largest number of a batch.",
    seconds=60,
)
def costliest_mistake() -> tuple[str, str]:
    """Choose and justify: which of three wrong preprocessings costs a photograph the most?

    Choices: "another normalisation" (ImageNet's mean and std for weights that want others), "BGR" (red and blue
    exchanged), "0 to 255" (neither divided by 255 nor normalised).
    Reasons: "colour" (the network goes by colours), "offset" (the mean is not 0), "range" (the numbers are far
    outside of those of the training), "error" (the network refuses such a batch).
    Return both, the choice first.
    """
    return "0 to 255", "range"
