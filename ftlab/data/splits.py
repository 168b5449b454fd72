"""Splits: which image is for training, and which is for validation."""

from collections import defaultdict
from collections.abc import Sequence
from hashlib import sha256

SPLITS = ("train", "val", "all")
VAL_FRACTION = 0.3


def check_split(split: str, known: Sequence[str] = SPLITS) -> None:
    """Refuse a word that names no split."""
    if split not in known:
        raise ValueError(f"split {split!r} is not one of {', '.join(map(repr, known))}")


def in_validation(
    groups: Sequence[str], targets: Sequence[int], fraction: float = VAL_FRACTION, seed: int = 0
) -> list[bool]:
    """Say of each image whether it is for validation: `fraction` of each class, and a group never on both sides.

    The order comes from a hash of the group's name, not from a random generator: neither the order of the files,
    nor the machine, nor the Python version plays a part, and no random state is touched.

    Args:
        groups: The group of each image; images of one group belong together, for example two copies of one file.
        targets: The class of each image.
        fraction: How much of each class is for validation; at least one group and never all.
        seed: Another seed gives another split.

    Raises:
        ValueError: `fraction` is not between 0 and 1.

    Example:
        >>> in_validation(["cat", "dog", "frog"], [0, 0, 0], fraction=1 / 3)
        [False, False, True]
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the fraction for validation is {fraction}; it must lie between 0 and 1")
    sizes: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for group, target in zip(groups, targets, strict=True):
        sizes[target][group] += 1
    chosen = {target: _choose(members, fraction, seed) for target, members in sizes.items()}
    return [group in chosen[target] for group, target in zip(groups, targets, strict=True)]


def _choose(sizes: dict[str, int], fraction: float, seed: int) -> set[str]:
    """Choose groups of one class until the wanted number of images is reached; one that is too big is passed."""
    total = sum(sizes.values())
    room = min(max(1, round(total * fraction)), total - 1)
    chosen = set()
    for group in sorted(sizes, key=lambda group: sha256(f"{seed} {group}".encode()).digest()):
        if sizes[group] <= room:
            chosen.add(group)
            room -= sizes[group]
    return chosen
