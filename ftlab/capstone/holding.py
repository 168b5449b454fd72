"""Your own folder, copied and divided: one part to train on, one to choose with, one for the judge."""

import shutil
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftlab import data
from ftlab.data.images import Images
from ftlab.data.own import digest, passed_over
from ftlab.data.splits import VAL_FRACTION, in_validation
from ftlab.table import Table, Tabled

PARTS = ("train", "val", "test")


@dataclass(frozen=True, repr=False)
class Held(Tabled):
    """What `hold_back` made; the repr is the table.

    Attributes:
        folder: The new folder, with `train`, `val` and `test`.
        counts: By class, the number of images in each part.
        left_out: By path in your folder, why a file was not copied.
        passed_over: Files that the system made, such as `.DS_Store` and `Thumbs.db`.
    """

    folder: Path
    counts: dict[str, dict[str, int]]
    left_out: dict[str, str]
    passed_over: list[str]

    def table(self) -> Table:
        """Return a row per class, and what was left out in the note."""
        rows = [[name, *(count[part] for part in PARTS)] for name, count in self.counts.items()]
        note = [f"left out: {len(self.left_out)}"]
        note += [f"  {file}: {reason}" for file, reason in self.left_out.items()]
        if self.passed_over:
            note.append(
                f"passed over, made by the system: {len(self.passed_over)}, {', '.join(self.passed_over[:3])}"
            )
        return Table(["class", *PARTS], rows, title=f"{self.folder.name}, divided", note="\n".join(note))

    def to_dict(self) -> list[dict[str, Any]]:
        """Return one dictionary per class."""
        return self.table().to_dict()


def hold_back(source: str | Path, path: str | Path, *, fraction: float = VAL_FRACTION, seed: int = 11) -> Held:
    """Copy your images to `path`, divided into `train`, `val` and a `test` part that is kept for the judge.

    Your folder is not changed. Every file of it is in the new folder, or in the table with the reason why it is
    not: files that are no images, and files that are in two classes, since one of the two is wrong. Equal files
    stay together. `ftlab.finetune.run` trains on the new folder, and does not touch `test`; `judge` finds it.

    The trap: what is chosen after looking at `test` was chosen with it. Divide once, and look once.

    Args:
        source: A folder with one folder per class, as for `ftlab.data.folder`, not divided yet.
        path: A folder that is not there yet. It needs as much space as your images.
        fraction: How much of each class is held back; of the rest, the same share is for validation.
        seed: Another seed divides in another way.

    Raises:
        FileNotFoundError: There is no folder `source`.
        FileExistsError: There is something at `path`.
        ValueError: `source` is divided already, a class has too few images, or `path` lies in `source`.
        OSError: The disk is full or may not be written; nothing is left at `path` then.
    """
    root, target = Path(source).expanduser().absolute(), Path(path).expanduser().absolute()
    _check_places(root, target)
    images, odd = _readable(root)
    parts = _divided(images, fraction, seed)
    _copy(images, parts, target)
    counted = Counter(
        (images.classes[number], part) for (_, number), part in zip(images.samples, parts, strict=True)
    )
    counts = {name: {part: counted[name, part] for part in PARTS} for name in images.classes}
    names = {Path(file).relative_to(root).as_posix(): reason for file, reason in (images.skipped | odd).items()}
    return Held(target, counts, names, [file.relative_to(root).as_posix() for file in passed_over(root)])


def _check_places(root: Path, target: Path) -> None:
    if target.exists():
        raise FileExistsError(f"{target} is there already; name another folder, or delete it first")
    if target.is_relative_to(root):
        raise ValueError(f"{target} lies in the folder of your images; name a place outside of {root}")
    divided = [part for part in PARTS if (root / part).is_dir()]
    if len(divided) > 1:
        advice = (
            "it can be trained on as it is" if "test" in divided else "put images to hold back into 'test' there"
        )
        raise ValueError(f"{root} is divided already, into {' and '.join(divided)}; {advice}")


def _readable(root: Path) -> tuple[Images, dict[str, str]]:
    """Return the images that are in one class only, and why others were left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say is in the table
        images = data.folder(root, skip_bad=True)
    classes: dict[str, set[str]] = {}
    for file, target in images.samples:
        classes.setdefault(digest(file), set()).add(images.classes[target])
    named = {key: " and ".join(sorted(names)) for key, names in classes.items() if len(names) > 1}
    odd = {
        file: f"the same file is in {named[digest(file)]}" for file, _ in images.samples if digest(file) in named
    }
    kept = [(file, target) for file, target in images.samples if file not in odd]
    return Images(Path(images.root), images.classes, kept, title=images.title, skipped=images.skipped), odd


def _divided(images: Images, fraction: float, seed: int) -> list[str]:
    """Return the part of each image."""
    digests = [digest(file) for file, _ in images.samples]
    test = in_validation(digests, images.targets, fraction, seed)
    rest = [place for place, kept in enumerate(test) if not kept]
    val = in_validation([digests[p] for p in rest], [images.targets[p] for p in rest], fraction, seed)
    parts = ["test" if kept else "train" for kept in test]
    for place, chosen in zip(rest, val, strict=True):
        parts[place] = "val" if chosen else "train"
    for number, name in enumerate(images.classes):
        here = [part for part, target in zip(parts, images.targets, strict=True) if target == number]
        if set(here) != set(PARTS):
            raise ValueError(
                f"class {name!r} has {len(here)} image(s), and copies count once: too few for three parts"
            )
    return parts


def _copy(images: Images, parts: list[str], target: Path) -> None:
    """Copy all, under a name that says that it is not whole, and then give it its own."""
    half = target.with_name(f"{target.name}.part")
    shutil.rmtree(half, ignore_errors=True)
    try:
        for (file, number), part in zip(images.samples, parts, strict=True):
            name = images.classes[number]
            inside = Path(file).relative_to(Path(images.root) / name)
            place = half / part / name / inside
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
        half.rename(target)
    except BaseException:
        shutil.rmtree(half, ignore_errors=True)
        raise
