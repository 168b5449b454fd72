"""The whole grid of lesson 08, measured: five strategies on near, shifted and far data, few images and many.

    python benchmarks/strategy.py [seeds with few images] [seeds with many] [file]

Each strategy is tried at two rates on forty emoji, on validation images and with seeds of its own. At the better
one it is trained on everything else with other seeds, and measured on test images that had no say. The result is
written to `ftlab/strategy/measured.json`, which the lesson shows; it says on which day and machine and with which
versions it was measured. It takes about half an hour of one processor.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import Dataset

from ftlab import data, pretrained
from ftlab.strategy import Case, Comparison, Strategy, compare, hold_out
from ftlab.strategy.drawing import Part

PIXELS = 48
SEED = 2026  # of what is held out
FACTORS = (1 / 3, 1)
RESULT = Path(__file__).parents[1] / "ftlab" / "strategy" / "measured.json"


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


@dataclass(frozen=True)
class Source:
    """One source of images: where the rate is chosen, and what is reported with few images and with many."""

    choosing: Case
    few: dict[str, Case]
    many: dict[str, Case]


def sources() -> list[Source]:
    """Return emoji, measured on two vendors' drawings, and digits."""
    small = pretrained.preprocessing(size=PIXELS)
    near, far = data.emoji("train", transform=small), data.digits("train", transform=small)
    digits = data.digits("val", transform=small)
    third = Part(digits, list(range(0, len(digits), 3)))  # measuring on all takes longer than training
    emoji = {
        "emoji": data.emoji("val", transform=small),
        "other vendor": data.emoji("val", "twemoji", transform=small),
    }
    return [source(near, emoji, (40, 15), (len(near), 5)), source(far, {"digits": third}, (50, 15), (300, 4))]


def source(train: Dataset, tests: dict[str, Dataset], few: tuple[int, int], many: tuple[int, int]) -> Source:
    """Put the cases together; `few` and `many` are images and epochs."""
    rest, val = hold_out(train, 150, SEED)
    return Source(
        Case(rest, val, *few),
        {f"{name}, {few[0]}": Case(rest, test, *few) for name, test in tests.items()},
        {f"{name}, {many[0]}": Case(train, test, *many) for name, test in tests.items()},
    )


def chosen(choosing: Case) -> list[Strategy]:
    """Return each strategy at the rate that is better on validation; the seeds are not those of the report."""
    tried = {
        factor: compare(families(factor), {"choice": choosing}, [100, 101], progress=False) for factor in FACTORS
    }
    names = [one.name for one in families(1)]
    best = [max(FACTORS, key=lambda factor, name=name: tried[factor].mean(name, "choice")) for name in names]
    return [families(factor)[place] for place, factor in enumerate(best)]


def main(few: str = "5", many: str = "3", file: str = str(RESULT)) -> None:
    torch.set_num_threads(1)
    strategies = chosen(sources()[0].choosing)
    result = None
    for one in sources():
        for cases, seeds in ((one.few, int(few)), (one.many, int(many))):
            measured = compare(strategies, cases, seeds, progress=False)
            result = measured if result is None else result + measured
            result.about |= {"rates": "; ".join(map(repr, strategies)), "pixels": str(PIXELS)}
            result.save(file)
            print(measured, flush=True)
    print(Comparison.load(file))


if __name__ == "__main__":
    main(*sys.argv[1:])
