"""Which images: a fair draw of a few, and images that stand on both sides of a split."""

import random
from collections import Counter

import torch

from ftlab.exercises.behaviour import as_positions
from ftlab.exercises.core import Mistake, Wrong, exercise


def check_draw_few(answer):
    """What is drawn of 60 images in three sorted classes: how many of each, whether twice, and by which seed."""
    targets = [0] * 30 + [1] * 20 + [2] * 10
    for each in (1, 4):
        draws = {seed: as_positions(answer(list(targets), each, seed), len(targets)) for seed in range(4)}
        for places in draws.values():
            _expect_places(places, targets, each)
        again = as_positions(answer(list(targets), each, 0), len(targets))
        if sorted(again) != sorted(draws[0]):
            ask = "Where does the seed get to?"
            raise Wrong("Two calls with one seed drew different images.", ask=ask)
    if len({tuple(sorted(places)) for places in draws.values()}) == 1:
        ask = "What does each new seed have to change?"
        raise Wrong("Four seeds drew the very same images.", ask=ask)


def _expect_places(places: list[int], targets: list[int], each: int) -> None:
    if len(set(places)) < len(places):
        ask = "Which function of `random` puts back what it drew, and which does not?"
        raise Wrong("One image was drawn twice.", ask=ask)
    count = Counter(targets[place] for place in places)
    if any(count[target] != each for target in set(targets)):
        found = ", ".join(f"{count[target]} of class {target}" for target in sorted(set(targets)))
        raise Wrong(f"With `each={each}` there are {found}.", ask="From which images is each class drawn?")


def _with_torch(targets, each, seed):
    generator = torch.Generator().manual_seed(seed)
    places = []
    for target in sorted(set(targets)):
        own = (torch.tensor(targets) == target).nonzero().flatten()
        places += own[torch.randperm(len(own), generator=generator)[:each]].tolist()
    return places


def _first_of_a_shuffle(targets, each, seed):
    order = list(range(len(targets)))
    random.Random(seed).shuffle(order)
    count, places = Counter(), []
    for place in order:
        if count[targets[place]] < each:
            count[targets[place]] += 1
            places.append(place)
    return places


def _with_numpy(targets, each, seed):
    import numpy as np

    generator, numbers = np.random.default_rng(seed), np.array(targets)
    own = [np.flatnonzero(numbers == target) for target in np.unique(numbers)]
    return np.concatenate([generator.choice(places, each, replace=False) for places in own])


def _a_list_per_class(targets, each, seed):
    generator = random.Random(seed)
    own = [[place for place, one in enumerate(targets) if one == target] for target in sorted(set(targets))]
    return [generator.sample(places, each) for places in own]


def _shuffled_targets(targets, each, seed):
    random.Random(seed).shuffle(targets)
    return [
        place for target in set(targets) for place in [p for p, t in enumerate(targets) if t == target][:each]
    ]


def _the_first_ones(targets, each, seed):
    return list(range(each * len(set(targets))))


def _from_all(targets, each, seed):
    return random.Random(seed).sample(range(len(targets)), each * len(set(targets)))


def _first_of_each(targets, each, seed):
    return [
        place for target in set(targets) for place in [p for p, one in enumerate(targets) if one == target][:each]
    ]


def _without_seed(targets, each, seed):
    return [
        place
        for target in set(targets)
        for place in random.sample([p for p, one in enumerate(targets) if one == target], each)
    ]


def _put_back(targets, each, seed):
    generator = random.Random(seed)
    return [
        place
        for target in sorted(set(targets))
        for place in generator.choices([p for p, one in enumerate(targets) if one == target], k=each)
    ]


@exercise(
    check=check_draw_few,
    hints=[
        "What are the first 12 images of a data set that is sorted by class?",
        "Collect the positions of each class by themselves, then draw from them.",
        "`random.Random(seed).sample(positions, each)` draws without putting back, and asks nobody else's seed.",
    ],
    also_right=[_with_torch, _with_numpy, _first_of_a_shuffle],
    mistakes=[
        Mistake(_the_first_ones, says="0 of class 2"),
        Mistake(_from_all, says="of class 0"),
        Mistake(_first_of_each, says="Four seeds drew the very same images"),
        Mistake(_without_seed, says="Two calls with one seed drew different images"),
        Mistake(_put_back, says="drawn twice"),
        Mistake(_a_list_per_class, says="one of type `list`"),
        Mistake(_shuffled_targets, says="of class 0"),
    ],
    remember="Draw from each class, without putting back, and anew for each seed: the luck of the draw is a part "
    "of the spread.",
)
def draw_few(targets: list[int], each: int, seed: int) -> list[int]:
    """Write: return the positions of `each` images of every class, drawn at random, none of them twice.

    `targets` has the class of each image, sorted. The same seed draws the same images, another one others.
    """
    import random

    generator = random.Random(seed)
    places = []
    for target in sorted(set(targets)):
        places += generator.sample([place for place, one in enumerate(targets) if one == target], each)
    return places


def check_seen_before(answer):
    """Ten test images of which three are in the training images, one of them as a mirror image."""
    train, test = torch.rand(12, 3, 4, 4), torch.rand(10, 3, 4, 4)
    test[1], test[6], test[9] = train[5], train[0], train[11].flip(-1)
    test[4] = train[4].flatten()[torch.randperm(48)].view(3, 4, 4)  # the same colours, another picture
    test[3, 0, 0, 0] = train[3, 0, 0, 0]
    found = set(as_positions(answer(train, test), 12, example="[3, 7]"))
    wanted = {1, 6, 9}
    if found == {0, 5, 11}:
        ask = "Which of the two is the loop over the test images?"
        raise Wrong("The positions of the *training* images came back.", ask=ask)
    if extra := found - wanted:
        _raise_extra(extra)
    if 9 in wanted - found and len(wanted - found) == 1:
        raise Wrong(
            "One test image is a training image in the mirror, and was not found.", ask="Which axis is x?"
        )
    if wanted - found:
        text = f"{len(wanted - found)} of the 3 test images that were trained on were not found."
        raise Wrong(text, ask="Is each test image compared with every training image?")


def _raise_extra(extra: set[int]) -> None:
    place = min(extra)
    if place == 4:
        text = "Test image 4 has the colours of a training image at other places, and is another picture."
        raise Wrong(text, ask="Which number of a picture says where its pixels are?")
    ask = "When are two tensors the same picture: if one number agrees, or all?"
    raise Wrong(f"Test image {place} is not among the training images.", ask=ask)


def _by_bytes(train, test):
    known = {image.numpy().tobytes() for image in train} | {
        image.flip(-1).contiguous().numpy().tobytes() for image in train
    }
    return [place for place, image in enumerate(test) if image.numpy().tobytes() in known]


def _by_distance(train, test):
    both = torch.cat([train, train.flip(-1)]).flatten(1)
    return (torch.cdist(test.flatten(1), both).min(1).values < 1e-4).nonzero().flatten().tolist()


def _one_against_one(train, test):
    return [place for place, (one, other) in enumerate(zip(train, test, strict=False)) if torch.equal(one, other)]


def _in_the_tensor(train, test):
    return [place for place, image in enumerate(test) if image in train]


def _by_sum(train, test):
    sums = torch.cat([train, train.flip(-1)]).flatten(1).sum(1)
    return [place for place, image in enumerate(test) if (image.sum() - sums).abs().min() < 1e-4]


def _no_mirror(train, test):
    return [place for place, image in enumerate(test) if any(torch.equal(image, one) for one in train)]


def _positions_in_train(train, test):
    both = [*test, *test.flip(-1)]
    return [place for place, image in enumerate(train) if any(torch.equal(image, one) for one in both)]


def _as_a_mask(train, test):
    both = [*train, *train.flip(-1)]
    return [any(torch.equal(image, one) for one in both) for image in test]


def _the_images(train, test):
    both = [*train, *train.flip(-1)]
    return [image for image in test if any(torch.equal(image, one) for one in both)]


def _upside_down(train, test):
    both = [*train, *train.flip(-2)]
    return [place for place, image in enumerate(test) if any(torch.equal(image, one) for one in both)]


@exercise(
    check=check_seen_before,
    hints=[
        "`image in train` asks whether any single number agrees with the number at its place.",
        "`torch.equal(one, other)` compares whole pictures. Each test image with each training image.",
        "`image.flip(-1)` is the mirror image: the last axis of (3, H, W) goes from left to right.",
    ],
    also_right=[_by_bytes, _by_distance],
    mistakes=[
        Mistake(_one_against_one, says="were not found"),
        Mistake(_in_the_tensor, says="is not among the training images"),
        Mistake(_by_sum, says="at other places"),
        Mistake(_no_mirror, says="in the mirror"),
        Mistake(_upside_down, says="in the mirror"),
        Mistake(_positions_in_train, says="of the *training* images"),
        Mistake(_as_a_mask, says="but `True` and `False`"),
        Mistake(_the_images, says="one of type `Tensor`"),
    ],
    remember="Look for the same picture on both sides before you believe an accuracy; a mirror image is the same "
    "picture too.",
)
def seen_before(train: torch.Tensor, test: torch.Tensor) -> list[int]:
    """Write: return the positions of the test images that are training images too, or their mirror images.

    Both are tensors of images, (N, 3, H, W).
    """
    return [
        place
        for place, image in enumerate(test)
        if any(torch.equal(image, one) or torch.equal(image.flip(-1), one) for one in train)
    ]
