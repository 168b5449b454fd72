"""A folder of images as people have them: with copies, broken files and an empty class; and a hidden part."""

import shutil
from collections.abc import Callable
from pathlib import Path

from ftlab import data
from ftlab.data.images import Images, read_image
from ftlab.data.splits import in_validation

CLASSES = ("animal", "clothing", "food", "sport", "vehicle")
HIDDEN = 0.3  # of each class
SEED = 11


def make_folder(path: str | Path) -> Path:
    """Lay out a person's folder of images at `path`, with its usual dirt, and return it.

    The images are emoji of the vendor whose drawings the lessons train on least. Part of each class is held back:
    `hidden` has it. The same call makes the same files.

    Args:
        path: A folder that is not there yet, or is empty.

    Raises:
        FileExistsError: There is something in the folder; nothing is changed.

    Example:
        >>> import tempfile
        >>> root = make_folder(Path(tempfile.mkdtemp(), "mine"))
        >>> sorted(child.name for child in root.iterdir())
        ['animal', 'clothing', 'food', 'new folder', 'sport', 'vehicle']
    """
    root = Path(path)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(f"{root} is there already and not empty; name another folder, or delete it first")
    for name, files in _files(is_hidden=False).items():
        (root / name).mkdir(parents=True)
        for number, file in enumerate(files, 1):
            # A camera's name, and for every tenth the wrong ending: what counts is the content.
            shutil.copyfile(file, root / name / f"IMG_{number:04}.{'jpg' if number % 10 == 0 else 'png'}")
    _soil(root)
    return root


def _soil(root: Path) -> None:
    """Add what is found in such folders: copies, a note, half a download, a picture in two classes, nothing."""
    for number in (1, 2, 3):
        shutil.copyfile(root / "sport" / f"IMG_{number:04}.png", root / "sport" / f"IMG_{number:04} (1).png")
    (root / "food" / "IMG_0900.png").write_text("buy eggs and milk\n")
    whole = (root / "animal" / "IMG_0005.png").read_bytes()
    (root / "animal" / "IMG_0901.png").write_bytes(whole[: len(whole) // 2])
    sent = read_image(root / "vehicle" / "IMG_0007.png").resize((48, 48))  # by a messenger: smaller, saved again
    sent.save(root / "sport" / "IMG-WA0003.jpg", quality=75)
    (root / "new folder").mkdir()
    (root / "food" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")


def hidden(transform: Callable | None = None) -> Images:
    """Return the images that were held back from `make_folder`; no training has seen them.

    Args:
        transform: Called with each PIL image.

    Example:
        >>> len(hidden()), hidden().classes
        (104, ['animal', 'clothing', 'food', 'sport', 'vehicle'])
    """
    samples = [
        (str(file), number) for number, files in enumerate(_files(is_hidden=True).values()) for file in files
    ]
    root = Path(samples[0][0]).parents[1]
    return Images(root, CLASSES, samples, title="capstone, hidden", transform=transform)


def _files(*, is_hidden: bool) -> dict[str, list[Path]]:
    """Return the files of one part, by class."""
    emoji = data.emoji("all", "twemoji")
    wanted = [Path(file) for file, target in emoji.samples if emoji.classes[target] in CLASSES]
    sides = in_validation(
        [file.name for file in wanted], [CLASSES.index(f.parent.name) for f in wanted], HIDDEN, SEED
    )
    chosen = [file for file, side in zip(wanted, sides, strict=True) if side == is_hidden]
    return {name: [file for file in chosen if file.parent.name == name] for name in CLASSES}
