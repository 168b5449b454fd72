"""What can be measured of a folder of images before anything is trained: what choices are defended with."""

import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ftlab import finetune, pretrained
from ftlab.capstone.copies import Copy, find_copies, listed
from ftlab.data.images import FORMATS, Images
from ftlab.finetune import rundir
from ftlab.finetune.plan import Plan
from ftlab.random_state import keep_random_state
from ftlab.surgery import head_names
from ftlab.table import Table, Tabled
from ftlab.training import loader


@dataclass(frozen=True)
class Share:
    """A measured share, as the mean over the classes, and how far luck may carry it: one standard error."""

    value: float
    error: float

    def is_above(self, other: "Share") -> bool:
        """Return whether it is better than `other` by more than the luck of so few images."""
        return self.value - other.value > (self.error**2 + other.error**2) ** 0.5

    def __str__(self) -> str:
        return f"{self.value:.0%} ± {self.error:.0%}"


@dataclass(frozen=True, repr=False)
class Facts(Tabled):
    """What `measure` found; the repr is the table.

    Attributes:
        folder: The name of the folder.
        train: The number of training images of each class.
        val: The number of validation images of each class.
        pixels: The median of the shorter side of the training images.
        copies: Pairs with the same picture, in one class.
        two_classes: Pairs with the same picture, in two classes.
        left_out: How many files are no readable images.
        told_apart: By image size: how often the frozen network, untrained, puts a training image nearest to the
            mean of its own class.
        images: A hash of the names of the images, to notice that the folder has changed.
    """

    folder: str
    train: dict[str, int]
    val: dict[str, int]
    pixels: int
    copies: list[Copy]
    two_classes: list[Copy]
    left_out: int
    told_apart: dict[int, Share]
    images: str

    @property
    def smallest(self) -> str:
        """The class with the fewest training images."""
        return min(self.train, key=self.train.get)

    @property
    def largest(self) -> str:
        """The class with the most training images."""
        return max(self.train, key=self.train.get)

    @property
    def chance(self) -> float:
        """How often a guess is right."""
        return 1 / len(self.train)

    def table(self) -> Table:
        """Return a row per fact."""
        total = sum(self.train.values())
        rows = [
            ["training images", f"{total}, of {len(self.train)} classes"],
            ["the smallest class", f"{self.smallest}: {self.train[self.smallest]}"],
            [
                "the largest class",
                f"{self.largest}: {self.train[self.largest]}, {self._largest_share():.0%} of all",
            ],
            ["validation images", sum(self.val.values())],
            ["shorter side of the files", f"{self.pixels} pixels"],
            ["copies in a class", f"{len(self.copies)}" + (f": {listed(self.copies)}" if self.copies else "")],
            ["pictures in two classes", f"{len(self.two_classes)}" + _listed(self.two_classes)],
            ["files left out", self.left_out],
        ]
        rows += [[f"told apart at {size} pixels", str(share)] for size, share in self.told_apart.items()]
        rows.append(["told apart by guessing", f"{self.chance:.0%}"])
        return Table(["what", "measured"], rows, title=self.folder)

    def _largest_share(self) -> float:
        return self.train[self.largest] / sum(self.train.values())

    def to_dict(self) -> list[dict[str, Any]]:
        """Return one dictionary per fact."""
        return self.table().to_dict()


def _listed(copies: list[Copy]) -> str:
    return f": {listed(copies)}" if copies else ""


def measure(folder: str | Path, sizes: Iterable[int] = (64, 160), **choices: Any) -> Facts:
    """Measure what choices are defended with: how many images, how uneven, how alike, how well told apart.

    Nothing is trained or changed, and validation images are only counted: "told apart" is measured on training
    images, each compared with the mean features of its class without itself.

    Args:
        folder: As for `ftlab.finetune.run`.
        sizes: Height and width at which the frozen network looks at the images.
        **choices: `backbone`, `seed`, `val_fraction` and `skip_bad` as for the run.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: The images are not ready for training.
        TypeError: There is no such choice.
    """
    plan = Plan(str(folder), **({"backbone": pretrained.backbone()} | choices))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say is in the facts
        train, val = (finetune.split(plan, side) for side in ("train", "val"))
    found = find_copies(train=train, val=val)
    again = {copy.second[2] for copy in found if {copy.first[0], copy.second[0]} == {"train"}}
    once = [
        n for n, (f, _) in enumerate(train.samples) if Path(f).relative_to(train.root).as_posix() not in again
    ]
    return Facts(
        Path(folder).name,
        _per_class(train),
        _per_class(val),
        round(median(_shorter_side(file) for file, _ in train.samples)),
        [copy for copy in found if copy.first[1] == copy.second[1]],
        [copy for copy in found if copy.first[1] != copy.second[1]],
        len(train.skipped),
        {size: told_apart(*_features(train, once, plan.backbone, size)) for size in sizes},
        rundir.fingerprint([train, val]),
    )


def _per_class(images: Images) -> dict[str, int]:
    count = Counter(images.targets)
    return {name: count[number] for number, name in enumerate(images.classes)}


def _shorter_side(file: str) -> int:
    with Image.open(file, formats=FORMATS) as image:
        return min(image.size)


@keep_random_state()
@torch.inference_mode()
def _features(images: Images, places: list[int], backbone: str, size: int) -> tuple[Tensor, Tensor]:
    """Return what reaches the head of the frozen network (N, C), and the classes (N,)."""
    model = pretrained.load(backbone).eval()
    *_, head = head_names(model)
    model.set_submodule(head, nn.Identity())
    samples = [images.samples[place] for place in places]
    prepare = pretrained.preprocessing(backbone, size=size)
    chosen = Images(Path(images.root), images.classes, samples, title=images.title, transform=prepare)
    return torch.cat([model(batch) for batch, _ in loader(chosen)]), torch.tensor(chosen.targets)


def told_apart(features: Tensor, targets: Tensor) -> Share:
    """Return how often an image is nearest to the mean of its own class, as the mean over the classes.

    Each image is left out of the mean that it is compared with. This is what a head would begin with: the network
    is as it came, and nothing is trained.

    Args:
        features: One row per image (N, C).
        targets: Their classes (N,).

    Example:
        >>> targets = torch.tensor([0, 0, 1, 1])
        >>> told_apart(torch.eye(2)[targets] + 0.01, targets).value
        1.0
    """
    directions = F.normalize(features.double(), dim=1)
    alike = (directions @ directions.T).fill_diagonal_(0)
    member = F.one_hot(targets).double()
    right = (alike @ member / (member.sum(0) - member).clamp_min(1)).argmax(1) == targets
    shares = [right[targets == number].double().mean().item() for number in targets.unique()]
    counts = [(targets == number).sum().item() for number in targets.unique()]
    variance = sum(p * (1 - p) / n for p, n in zip(shares, counts, strict=True))
    return Share(sum(shares) / len(shares), variance**0.5 / len(shares))
