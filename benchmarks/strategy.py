"""The whole grid of lesson 08, measured: five strategies on near, shifted and far data, few images and many.

    python benchmarks/strategy.py [seeds with few images] [seeds with many] [file]

Each strategy is tried at two rates on validation images, with seeds of its own, and then trained at the better
one with other seeds and measured on test images that had no say in the choice. The result is written to
`data/strategy.json`, which the lesson shows; it says on which day, machine and versions it was measured.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import Dataset, Subset

from ftlab import data, pretrained
from ftlab.strategy import Case, Comparison, Strategy, compare, draw

PIXELS = 48
FACTORS = (1 / 3, 1)
RESULT = Path(__file__).parents[1] / "data" / "strategy.json"


class Part(Subset):
    """A part of a data set that still has `classes` and `targets`."""

    def __init__(self, dataset: Dataset, places: list[int]) -> None:
        super().__init__(dataset, places)
        self.classes, self.targets = dataset.classes, [dataset.targets[place] for place in places]


def families(factor: float) -> list[Strategy]:
    """Return the strategies; `factor` is on all rates."""
    head, body, all_ = 3e-3 * factor, 3e-4 * factor, 1e-3 * factor
    return [
        Strategy("head only", {"head": head}),
        Strategy("body at a tenth", {"head": head, "body": body}),
        Strategy("two phases", {"head": head, "body": body}, thaw={"body": 0.5}),
        Strategy("everything", {"head": all_, "body": all_}),
        Strategy("everything, norms moving", {"head": all_, "body": all_}, norms="moving"),
        Strategy("from scratch", {"head": all_, "body": all_}, pretrained=False),
    ]


def parted(dataset: Dataset, held_out: int) -> tuple[Part, Part]:
    """Return a part for training and a part for choosing the rate."""
    chosen = set(draw(dataset, held_out, seed=2026).indices)
    rest = [place for place in range(len(dataset)) if place not in chosen]
    return Part(dataset, rest), Part(dataset, sorted(chosen))


@dataclass(frozen=True)
class Size:
    """A training to repeat: where the rate is chosen, what is reported, and with how many seeds each."""

    choosing: Case
    reporting: dict[str, Case]
    few: bool


def sizes() -> list[Size]:
    """Return the trainings: emoji and digits, with few images and with many."""
    small = pretrained.preprocessing(size=PIXELS)
    emoji, other = data.emoji("val", transform=small), data.emoji("val", "twemoji", transform=small)
    digits = data.digits("val", transform=small)
    digits = Part(digits, list(range(0, len(digits), 3)))
    near, far = data.emoji("train", transform=small), data.digits("train", transform=small)
    found = []
    for few, held_out, images, epochs in ((True, 150, 40, 15), (False, 70, 280, 8)):
        train, val = parted(near, held_out)
        tests = {f"emoji, {images}": emoji, f"other vendor, {images}": other}
        reporting = {name: Case(train, test, images, epochs) for name, test in tests.items()}
        found.append(Size(Case(train, val, images, epochs), reporting, few))
    for few, images, epochs in ((True, 50, 15), (False, 600, 4)):
        train, val = parted(far, 150)
        reporting = {f"digits, {images}": Case(train, digits, images, epochs)}
        found.append(Size(Case(train, val, images, epochs), reporting, few))
    return sorted(found, key=lambda one: not one.few)


def chosen(size: Size) -> list[Strategy]:
    """Return each strategy at the rate that is better on validation."""
    seeds = [100, 101] if size.few else [100]
    tried = {
        factor: compare(families(factor), {"choice": size.choosing}, seeds, progress=False) for factor in FACTORS
    }
    names = [one.name for one in families(1)]
    best = [max(FACTORS, key=lambda factor, name=name: tried[factor].mean(name, "choice")) for name in names]
    return [families(factor)[place] for place, factor in enumerate(best)]


def main(few: str = "5", many: str = "3", file: str = str(RESULT)) -> None:
    torch.set_num_threads(1)
    result = None
    for size in sizes():
        strategies = chosen(size)
        measured = compare(strategies, size.reporting, int(few if size.few else many), progress=False)
        measured.about |= {f"rates on {case}": "; ".join(map(repr, strategies)) for case in size.reporting}
        measured.about |= {"pixels": str(PIXELS)}
        result = measured if result is None else result + measured
        result.save(file)
        print(*strategies, measured, sep="\n", flush=True)
    print(Comparison.load(file))


if __name__ == "__main__":
    main(*sys.argv[1:])
