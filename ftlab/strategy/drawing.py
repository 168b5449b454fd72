"""The data of a comparison: what is trained on, what is measured on, and how few images are drawn."""

from dataclasses import dataclass
from operator import index
from random import Random
from typing import Any

from torch.utils.data import Dataset, Subset


@dataclass(frozen=True)
class Case:
    """Data to compare strategies on: where the images come from, how many, and what is measured.

    Attributes:
        train: Items are (image tensor, class number), with `classes` and `targets`, or a `Subset` of that.
        test: Images that are never trained on, of the same classes.
        images: How many of `train` are drawn, anew for each seed; None takes all.
        epochs: How often they are gone through. Few images want more epochs for the same number of steps.

    Raises:
        ValueError: The classes differ, or there are fewer images than classes or than were asked for.
        TypeError: A dataset has no `classes` or no `targets`, or a count is no whole number.
    """

    train: Dataset
    test: Dataset
    images: int | None = None
    epochs: int = 10

    def __post_init__(self) -> None:
        refuse_other_classes(self.train, self.test)
        if whole("epochs", self.epochs) < 1:
            raise ValueError(f"epochs is 1 or more, not {self.epochs}")
        if self.images is not None:
            shares(targets_of(self.train), self.images)

    def drawn(self, seed: int) -> Dataset:
        """Return the images to train on with this seed."""
        return self.train if self.images is None else draw(self.train, self.images, seed)


def draw(dataset: Dataset, images: int, seed: int = 0) -> Subset:
    """Return so many images, the same number of each class as far as there are enough.

    The trap: `range(40)` of a sorted dataset is 40 images of the first class. And a draw is luck: with another
    seed other images are drawn, and with few images the accuracy differs by points. No random state is touched.

    Args:
        dataset: Has `targets`, or is a `Subset` of one that has.
        images: How many, at least one of each class.
        seed: Another seed draws others. A larger draw with the same seed contains the smaller one.

    Raises:
        ValueError: There are fewer images than that, or fewer are asked for than there are classes.

    Example:
        >>> from ftlab import data
        >>> few = draw(data.emoji("train"), 40)
        >>> few.dataset.classes[0], sum(few.dataset.targets[place] == 0 for place in few.indices)
        ('animal', 5)
    """
    targets = targets_of(dataset)
    places: list[int] = []
    for target, count in shares(targets, images).items():
        own = [place for place, one in enumerate(targets) if one == target]
        Random(f"{seed} {target}").shuffle(own)
        places += own[:count]
    return Subset(dataset, sorted(places))


class Part(Subset):
    """A part of a data set, with `classes` and `targets` as the whole has them; the repr says how large it is."""

    def __init__(self, dataset: Dataset, places: list[int]) -> None:
        super().__init__(dataset, places)
        targets = targets_of(dataset)
        self.classes, self.targets = classes_of(dataset), [targets[place] for place in places]

    def __repr__(self) -> str:
        return f"{len(self):,} of {len(self.dataset):,} images, {len(self.classes)} classes"


def hold_out(dataset: Dataset, images: int, seed: int = 0) -> tuple[Part, Part]:
    """Return two parts of a data set: the rest to train on, and `images` of it to choose with.

    The trap: whoever chooses among strategies, rates or epochs by the test images has no test images any more.
    Choose with these, and look at the test images once, at the end.

    Args:
        dataset: Has `classes` and `targets`, or is a `Subset` of one that has.
        images: How many are held out, the same number of each class as far as there are enough.
        seed: Another seed holds out others.

    Example:
        >>> from ftlab import data
        >>> hold_out(data.emoji("train"), 80)
        (272 of 352 images, 8 classes, 80 of 352 images, 8 classes)
    """
    held = draw(dataset, images, seed).indices
    rest = sorted(set(range(len(dataset))) - set(held))
    return Part(dataset, rest), Part(dataset, held)


def shares(targets: list[int], images: int) -> dict[int, int]:
    """Return how many images of each class are drawn: one after the other until there are enough."""
    there = {target: targets.count(target) for target in sorted(set(targets))}
    images = whole("images", images)
    if not len(there) <= images <= len(targets):
        raise ValueError(
            f"{images} images cannot be drawn: there are {len(targets)} of {len(there)} classes, and each class "
            "needs one"
        )
    wanted = dict.fromkeys(there, 0)
    while images:
        for target in there:
            if images and wanted[target] < there[target]:
                wanted[target] += 1
                images -= 1
    return wanted


def targets_of(dataset: Dataset) -> list[int]:
    """Return the class number of each item; those of a `Subset` stand in the dataset that it is a part of.

    Raises:
        TypeError: There are none.
    """
    if isinstance(dataset, Subset) and not hasattr(dataset, "targets"):
        targets = targets_of(dataset.dataset)
        return [targets[place] for place in dataset.indices]
    return [int(one) for one in _told(dataset, "targets")]


def classes_of(dataset: Dataset) -> list[str]:
    """Return the names of the classes; those of a `Subset` stand in the dataset that it is a part of.

    Raises:
        TypeError: There are none.
    """
    if isinstance(dataset, Subset) and not hasattr(dataset, "classes"):
        return classes_of(dataset.dataset)
    return list(_told(dataset, "classes"))


def _told(dataset: Dataset, name: str) -> Any:
    if getattr(dataset, name, None) is None:
        raise TypeError(
            f"this {type(dataset).__name__} has no `{name}`; a dataset needs `targets`, the class number of each "
            f"item, and `classes`, the names of the classes: set `dataset.{name} = [...]`"
        )
    return getattr(dataset, name)


def refuse_other_classes(train: Dataset, test: Dataset) -> None:
    """Raise an error unless both datasets have the same classes.

    Raises:
        ValueError: They differ.
    """
    one, other = classes_of(train), classes_of(test)
    if one != other:
        raise ValueError(f"the classes of train and test differ: {one[:3]}, ... and {other[:3]}, ...")


def whole(name: str, number: Any) -> int:
    """Return a whole number, of whatever type.

    Raises:
        TypeError: It is another kind of number, or none.
    """
    try:
        return index(number)
    except TypeError:
        raise TypeError(f"{name} is a whole number, not {number!r}") from None
