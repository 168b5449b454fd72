"""The learner's own images: a folder of class folders, checked before anything is trained on it."""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from tqdm.auto import tqdm

from ftlab.data.images import FORMATS, Images, as_rgb
from ftlab.data.splits import VAL_FRACTION, check_split, in_validation
from ftlab.nearest import nearest

SIDES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
# What operating systems, archives and Jupyter leave in a folder of images, beside names that begin with a dot.
LEFT_BEHIND = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "__pycache__", "@eadir"}
HEIF_NAMES = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
LOOP = "a folder that is read already, or a link that leads back above it: it is not read again"
MANY = 500  # from so many files on a bar shows how far the check is


def folder(
    path: str | Path,
    split: str = "all",
    transform: Callable | None = None,
    *,
    val_fraction: float = VAL_FRACTION,
    seed: int = 0,
    skip_bad: bool = False,
) -> Images:
    """Return your own images from a folder that has one folder per class, after a look at every file.

    Each file is decoded once, before training, and everything that is wrong is said in one error. What counts is
    the content, not the name: `PHOTO.JPG` and a PNG that is called `.jpg` are welcome. What the system put there
    (`.DS_Store`, `Thumbs.db`, `.ipynb_checkpoints`, ...) is passed over.

    A folder with `train` and `val` folders is taken as it is split; a `test` folder beside them stays untouched,
    and what else lies there is named as left out. Otherwise each class is split: the same files give the same
    split, on any machine and under any names.

    The trap: copies. If `cat.jpg` is for training and `cat (1).jpg`, the same file, for validation, the accuracy
    is too good. A split made here keeps equal files of a class on one side; where you bring `train` and `val`, a
    warning names them, and it names each file that lies in two classes. The same scene photographed twice is
    still yours to find.

    Args:
        path: The folder, for example `pets` with `pets/cat/...` and `pets/dog/...`.
        split: "train", "val" or "all".
        transform: Called with each PIL image.
        val_fraction: How much of each class is for validation, where the folder is not split already.
        seed: Another seed gives another split.
        skip_bad: Leave bad files out with a warning that names them, instead of raising. They stay on the disk.

    Raises:
        FileNotFoundError: There is no such folder; the message has the nearest names.
        NotADirectoryError: The path is a file, for example an archive that is not unpacked.
        ValueError: There are no class folders, a class is empty, a file is no readable image, or the classes of
            `train` and `val` differ. All bad files are listed, also links that lead back to where they came from.

    Example:
        >>> from ftlab.paths import DATA
        >>> images = folder(DATA / "emoji" / "noto", "val")
        >>> len(images), images.classes[:3]
        (152, ['animal', 'building', 'clothing'])
    """
    check_split(split)
    root = _existing(Path(path).expanduser().absolute())
    scans = {side: _scan(place) for side, place in _layout(root).items()}
    problems = [line for scan in scans.values() for line in scan.empty_classes()]
    bad = {file: reason for scan in scans.values() for file, reason in scan.bad.items()} | _beside(root, scans)
    if problems or (bad and not skip_bad):
        raise ValueError(_complaint(root, problems, bad))
    if bad:
        warnings.warn(f"bad files in {root} are left out ({len(bad)}):\n{_listed(root, bad)}", stacklevel=2)
    classes = _common_classes(root, scans)
    _warn_of_two_classes(root, scans)
    if "both" in scans:
        samples = _divided(scans["both"], split, val_fraction, seed)
    else:
        _warn_of_copies(root, scans)
        samples = [s for side, scan in scans.items() if split in (side, "all") for s in scan.samples]
    title = f"{root.name}, {split}"
    return Images(root, classes, samples, title=title, transform=transform, skipped=bad)


def _existing(root: Path) -> Path:
    """Return `root` if it is a folder; else say what there is instead."""
    if root.is_dir():
        return root
    if root.exists():
        unpack = "unpack it first and pass the folder" if root.suffix in (".zip", ".gz", ".tgz", ".7z") else ""
        raise NotADirectoryError(f"{root} is a file; {unpack or 'pass the folder that holds the class folders'}")
    missing = next(place for place in (root, *root.parents) if place.parent.is_dir())
    names = [child.name for child in _children(missing.parent)]
    there = nearest(missing.name, names) if names else "that folder is empty"
    raise FileNotFoundError(f"there is no {root}: {missing.parent} has no {missing.name!r}; {there}")


def _children(place: Path) -> list[Path]:
    """Return what is in a folder, sorted, without what the system left there."""
    return sorted(child for child in place.iterdir() if not _is_left_behind(child.name))


def _is_left_behind(name: str) -> bool:
    return name.startswith(".") or name.lower() in LEFT_BEHIND


def _layout(root: Path) -> dict[str, Path]:
    """Return the folder of each side, or {"both": root} if there are no folders for sides."""
    sides: dict[str, Path] = {}
    for child in _children(root):
        side = SIDES.get(child.name.lower()) if child.is_dir() else None
        if side in sides:
            both = f"{sides[side].name!r} and {child.name!r}"
            raise ValueError(f"{root} has {both}, which both mean {side!r}; put all of it into one of them")
        if side:
            sides[side] = child
    if {"train", "val"} <= sides.keys():
        return {side: sides[side] for side in ("train", "val")}
    if len(sides) > 1:  # one alone may be the name of a class
        names = " and ".join(repr(place.name) for place in sides.values())
        advice = f"pass {str(sides['train'])!r}, which is then split" if "train" in sides else "add 'train'"
        raise ValueError(f"{root} has {names}, but not both 'train' and 'val'; {advice}")
    return {"both": root}


def _beside(root: Path, scans: dict[str, "_Scan"]) -> dict[str, str]:
    """Return what lies beside `train` and `val`, and is neither read nor the test folder."""
    if "both" in scans:
        return {}
    others = [child for child in _children(root) if not (child.is_dir() and child.name.lower() in SIDES)]
    reason = "lies beside 'train' and 'val', so it belongs to neither"
    return {str(child): reason for child in others if child.is_dir() or _is_called_an_image(child)}


@dataclass
class _Scan:
    """What is in the class folders of one place."""

    root: Path
    classes: list[str]
    samples: list[tuple[str, int]]
    digests: list[str]  # of the content of each sample
    bad: dict[str, str]  # why, by the path

    def empty_classes(self) -> list[str]:
        """Return a sentence for each class without a good image."""
        full = {target for _, target in self.samples}
        missing = [name for number, name in enumerate(self.classes) if number not in full]
        return [f"class {name!r} has no readable image in {self.root / name}" for name in missing]


def _scan(root: Path) -> _Scan:
    """Look at every file of every class."""
    places = _class_folders(root)
    loops: list[Path] = []
    files = [(file, number) for number, place in enumerate(places) for file in _files(root, place, loops)]
    with ThreadPoolExecutor() as pool:  # Pillow decodes without holding Python's lock
        looks = pool.map(_look, [file for file, _ in files])
        looks = list(tqdm(looks, "checking images", len(files), leave=False, disable=len(files) < MANY))
    scan = _Scan(root, [place.name for place in places], [], [], {})
    for (file, number), (problem, digest) in zip(files, looks, strict=True):
        if problem:
            scan.bad[str(file)] = problem
        else:
            scan.samples.append((str(file), number))
            scan.digests.append(digest)
    scan.bad |= {str(link): LOOP for link in loops}
    loose = [child for child in _children(root) if not child.is_dir() and _is_called_an_image(child)]
    scan.bad |= {str(file): "lies beside the class folders, so it has no class" for file in loose}
    return scan


def _is_called_an_image(file: Path) -> bool:
    """Tell whether a file's name ends like that of an image, of whatever format; a README beside them is none."""
    return file.suffix.lower() in Image.registered_extensions().keys() | {".heic", ".heif"}


def _class_folders(root: Path) -> list[Path]:
    children = _children(root)
    places = [child for child in children if child.is_dir()]
    advice = f"make one folder per class, for example {root / 'cat'} and {root / 'dog'}"
    if not places:
        found = ", ".join(repr(child.name) for child in children[:3])
        raise ValueError(
            f"{root} has no class folders; {f'it holds {found}' if found else 'it is empty'}; {advice}"
        )
    if len(places) == 1:
        inside = [child.name for child in _children(places[0]) if child.is_dir()]
        if inside:
            advice = f"it holds the folders {', '.join(map(repr, inside[:5]))}: did you mean {str(places[0])!r}?"
        raise ValueError(
            f"{root} has only one class folder, {places[0].name!r}, so there is nothing to tell; {advice}"
        )
    return places


def _files(root: Path, place: Path, loops: list[Path]) -> Iterator[Path]:
    """Yield the files of one class, also those in folders below it, as ImageFolder does.

    Links to folders are followed; ImageFolder goes round in circles where one leads back. Here each folder is
    read once per class, and what is not read again is put into `loops`.
    """
    read = {root.resolve(), *root.resolve().parents}

    def walk(folder: Path) -> Iterator[Path]:
        if folder.resolve() in read:
            loops.append(folder)
            return
        read.add(folder.resolve())
        for child in _children(folder):
            if child.is_dir():
                yield from walk(child)
            else:
                yield child

    return walk(place)


def _look(file: Path) -> tuple[str, str]:
    """Return what is wrong with an image file (nothing: an empty text) and a hash of its content."""
    try:
        facts = os.stat(file)  # noqa: PTH116 - as below, a link to nowhere is an answer too
        return _look_once(file, facts.st_size, facts.st_mtime_ns)
    except FileNotFoundError:
        return "a link to a file that does not exist", ""
    except OSError as error:
        return f"cannot be read: {error.strerror or error}", ""


def digest(file: str | Path) -> str:
    """Return a hash of a file's content; a file that did not change is read once."""
    return _look(Path(file))[1]


@cache
def _look_once(file: Path, size: int, changed: int) -> tuple[str, str]:
    # `folder(path, "train")` is followed by `folder(path, "val")`: a file that did not change is decoded once.
    content = file.read_bytes()
    return _problem(content), hashlib.sha256(content).hexdigest()


def _problem(content: bytes) -> str:
    if not content:
        return "empty: 0 bytes"
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            image.draft(None, (1, 1))  # a JPEG is then decoded at an eighth of its size: all bytes, less time
            as_rgb(image)
    except UnidentifiedImageError:
        return _what_else(content)
    except Exception as error:  # Pillow's readers raise OSError, SyntaxError, struct.error, EOFError, ...
        return f"cannot be decoded: {error}"
    return ""


def _what_else(content: bytes) -> str:
    if content[4:8] == b"ftyp" and content[8:12] in HEIF_NAMES:
        return "a HEIC photo, as iPhones take them; Pillow cannot read it: export it as JPEG"
    return f"no image; it begins with {content[:12]!r}"


def _complaint(root: Path, problems: list[str], bad: dict[str, str]) -> str:
    lines = [f"{root} is not ready for training:", *problems]
    if bad:
        lines += [f"bad files ({len(bad)}):", _listed(root, bad)]
        lines += ["Repair or delete them, or pass skip_bad=True: they are then left out, and stay on the disk."]
    return "\n".join(lines)


def _listed(root: Path, bad: dict[str, str]) -> str:
    """Return every file, under its reason: fifty HEIC photos need the explanation once."""
    files: dict[str, list[str]] = {}
    for file, reason in bad.items():
        files.setdefault(reason, []).append(Path(file).relative_to(root).as_posix())
    return "\n".join(f"  {', '.join(names)}: {reason}" for reason, names in files.items())


def _common_classes(root: Path, scans: dict[str, _Scan]) -> list[str]:
    """Return the class names; those of train and val must be the same, or equal numbers mean different things."""
    first, *others = scans.values()
    for other in others:
        odd = sorted(set(first.classes) ^ set(other.classes))
        if odd:
            where = [
                f"{name!r} only in {(first if name in first.classes else other).root.name!r}" for name in odd
            ]
            raise ValueError(
                f"the classes in {root} differ: {', '.join(where)}; each side needs every class folder"
            )
    return first.classes


def _warn_of_copies(root: Path, scans: dict[str, _Scan]) -> None:
    originals = dict(zip(scans["train"].digests, scans["train"].samples, strict=True))
    pairs = zip(scans["val"].digests, scans["val"].samples, strict=True)
    copies = {
        file: f"the same file as {Path(originals[d][0]).relative_to(root).as_posix()}"
        for d, (file, _) in pairs
        if d in originals
    }
    if copies:
        warnings.warn(
            f"validation images that are in train too ({len(copies)}); the accuracy will be too good:\n"
            f"{_listed(root, copies)}",
            stacklevel=3,
        )


def _warn_of_two_classes(root: Path, scans: dict[str, _Scan]) -> None:
    """Name files that teach two things: on whichever side they are, one of their classes is wrong."""
    first: dict[str, tuple[str, int]] = {}
    odd: dict[str, str] = {}
    for scan in scans.values():
        for digest, (file, target) in zip(scan.digests, scan.samples, strict=True):
            original, known = first.setdefault(digest, (file, target))
            if known != target:
                odd[file] = f"the same file as {Path(original).relative_to(root).as_posix()}"
    if odd:
        warnings.warn(
            f"images that are in two classes ({len(odd)}); look which is right, and delete the other:\n"
            f"{_listed(root, odd)}",
            stacklevel=3,
        )


def _divided(scan: _Scan, split: str, fraction: float, seed: int) -> list[tuple[str, int]]:
    if split == "all":
        return scan.samples
    targets = [target for _, target in scan.samples]
    sides = in_validation(scan.digests, targets, fraction, seed)
    for number, name in enumerate(scan.classes):
        here = {side for side, target in zip(sides, targets, strict=True) if target == number}
        if len(here) < 2:
            raise ValueError(
                f"class {name!r} has {targets.count(number)} image(s), and copies count once: "
                f"too few for both sides; add images, or use split='all'"
            )
    return [sample for sample, side in zip(scan.samples, sides, strict=True) if side == (split == "val")]


def passed_over(root: Path) -> list[Path]:
    """Return what `folder` passes over below `root` without a word: files and folders that the system made."""
    found = []
    for place, folders, files in os.walk(root):  # does not follow links
        found += [Path(place, name) for name in sorted(folders + files) if _is_left_behind(name)]
        folders[:] = [name for name in folders if not _is_left_behind(name)]
    return found
