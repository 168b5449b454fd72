"""Well known data sets that need a network once; a download ends whole or not at all."""

import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zipfile import ZipFile

import torch
from torchvision.datasets import Flowers102, ImageFolder, OxfordIIITPet

from ftlab.data.images import Images
from ftlab.data.splits import check_split, in_validation
from ftlab.download import download as fetch

WITH_TEST = ("train", "val", "test", "all")


@dataclass(frozen=True)
class Source:
    """Where a data set comes from: its folder in the cache, what is in it, and the hash of each file to fetch."""

    folder: str
    holds: tuple[str, ...]
    files: dict[str, str]
    megabytes: int


SOURCES = {
    "hymenoptera": Source(
        "hymenoptera_data",
        ("train", "val"),
        {
            "https://download.pytorch.org/tutorial/hymenoptera_data.zip": "sha256:"
            "fbc41b31d544714d18dd1230b1e2b455e1557766e13e67f9f5a7a23af7c02209"
        },
        47,
    ),
    "flowers102": Source(
        "flowers-102",
        ("jpg", "imagelabels.mat", "setid.mat"),
        # torchvision knows the addresses and the hashes, and keeps them to itself.
        {Flowers102._download_url_prefix + name: f"md5:{md5}" for name, md5 in Flowers102._file_dict.values()},
        345,
    ),
    "oxford_iiit_pet": Source(
        "oxford-iiit-pet",
        ("images", "annotations"),
        {url: f"md5:{md5}" for url, md5 in OxfordIIITPet._RESOURCES},
        811,
    ),
}


def hymenoptera(
    split: str, transform: Callable | None = None, *, root: str | Path | None = None, download: bool = False
) -> Images:
    """Return photographs of ants and bees: 244 for training, 153 for validation, of PyTorch's own tutorial.

    The trap: with so few images one more right answer is 0.7 points of accuracy.

    Args:
        split: "train", "val" or "all".
        transform: Called with each PIL image.
        root: Where data sets are kept; `ftlab` beside torch's own cache if None.
        download: Fetch 47 MB if they are not there.

    Raises:
        FileNotFoundError: The data are not there, and `download` was not asked for or failed. The message says
            which file is missing, where it would be, and what works without a network.

    Source:
        https://docs.pytorch.org/tutorials/beginner/transfer_learning_tutorial.html
    """
    check_split(split)
    place = _ready("hymenoptera", root, download)
    sides = {side: ImageFolder(str(place / side)) for side in ("train", "val")}
    samples = {side: images.samples for side, images in sides.items()}
    return _images("hymenoptera", place, sides["train"].classes, samples, split, transform)


def flowers102(
    split: str, transform: Callable | None = None, *, root: str | Path | None = None, download: bool = False
) -> Images:
    """Return photographs of 102 kinds of flowers: 1,020 for training, 1,020 for validation, 6,149 for the test.

    The trap: ten images per class and side; the test side is six times as large as the training side.

    Args:
        split: "train", "val", "test" or "all"; as the authors split it.
        transform: Called with each PIL image.
        root: Where data sets are kept; `ftlab` beside torch's own cache if None.
        download: Fetch 345 MB if they are not there.

    Raises:
        FileNotFoundError: The data are not there, and `download` was not asked for or failed.

    Source:
        https://www.robots.ox.ac.uk/~vgg/data/flowers/102/, read by torchvision's `Flowers102`
    """
    check_split(split, WITH_TEST)
    place = _ready("flowers102", root, download)
    samples = {}
    for side in ("train", "val", "test"):
        theirs = Flowers102(str(place.parent), side)
        # torchvision keeps the files and the labels to itself; asking for each item would decode every image.
        samples[side] = _pairs(theirs._image_files, theirs._labels)
    return _images("flowers102", place, Flowers102.classes, samples, split, transform)


def oxford_iiit_pet(
    split: str, transform: Callable | None = None, *, root: str | Path | None = None, download: bool = False
) -> Images:
    """Return photographs of 37 breeds of cats and dogs: 3,680 for training and validation, 3,669 for the test.

    The authors have no validation side; here it is 30 % of each class of their "trainval", chosen by file name.

    The trap: choosing a model by its accuracy on "test" makes the test a second validation.

    Args:
        split: "train", "val", "test" or "all".
        transform: Called with each PIL image.
        root: Where data sets are kept; `ftlab` beside torch's own cache if None.
        download: Fetch 811 MB if they are not there.

    Raises:
        FileNotFoundError: The data are not there, and `download` was not asked for or failed.

    Source:
        https://www.robots.ox.ac.uk/~vgg/data/pets/, CC BY-SA 4.0, read by torchvision's `OxfordIIITPet`
    """
    check_split(split, WITH_TEST)
    place = _ready("oxford_iiit_pet", root, download)
    known = OxfordIIITPet(str(place.parent), "trainval")
    test = OxfordIIITPet(str(place.parent), "test")
    pairs = _pairs(known._images, known._labels)
    is_val = in_validation([Path(file).name for file, _ in pairs], known._labels)
    samples = {
        "train": [pair for pair, val in zip(pairs, is_val, strict=True) if not val],
        "val": [pair for pair, val in zip(pairs, is_val, strict=True) if val],
        "test": _pairs(test._images, test._labels),
    }
    return _images("oxford_iiit_pet", place, known.classes, samples, split, transform)


def cache_folder(root: str | Path | None = None) -> Path:
    """Return where data sets are kept: `root`, or `ftlab` in torch's cache folder.

    That is `~/.cache/torch/ftlab`, or `$TORCH_HOME/ftlab`: beside `hub`, where torch keeps pretrained weights.
    """
    return Path(root or Path(torch.hub.get_dir()).parent / "ftlab").expanduser().absolute()


def is_here(name: str, root: str | Path | None = None) -> bool:
    """Say whether a data set is on this machine."""
    return (cache_folder(root) / SOURCES[name].folder).is_dir()


def _pairs(files: Iterable[Path], labels: Iterable[int]) -> list[tuple[str, int]]:
    return [(str(file), label) for file, label in zip(files, labels, strict=True)]


def _images(
    name: str,
    place: Path,
    classes: Sequence[str],
    samples: dict[str, list[tuple[str, int]]],
    split: str,
    transform: Callable | None,
) -> Images:
    chosen = [pair for side, pairs in samples.items() if split in (side, "all") for pair in pairs]
    return Images(place, classes, chosen, title=f"{name}, {split}", transform=transform)


def _ready(name: str, root: str | Path | None, download: bool) -> Path:
    """Return the folder of a data set; unpack it, and fetch it if that is asked for, where it is not there."""
    source, kept = SOURCES[name], cache_folder(root)
    place = kept / source.folder
    if place.is_dir():
        _look_whole(place, source)
        return place
    archives = {kept / url.rpartition("/")[2]: (url, digest) for url, digest in source.files.items()}
    missing = {file: origin for file, origin in archives.items() if not file.is_file()}
    if missing and not download:
        raise _not_here(name, missing, f"pass download=True to fetch {source.megabytes} MB")
    kept.mkdir(parents=True, exist_ok=True)
    for file, (url, digest) in missing.items():
        try:
            fetch(url, file, check=partial(_verify, digest=digest))
        except OSError as error:
            raise _not_here(name, {file: (url, digest)}, f"fetching it failed: {error}") from error
    for file, (_, digest) in archives.items():
        _verify(file, digest)  # one that was put there by hand may be half a file
    _unpack(list(archives), place, source)
    for file in missing:
        file.unlink()
    return place


def _not_here(name: str, missing: dict[Path, tuple[str, str]], reason: str) -> FileNotFoundError:
    files = "\n".join(f"  {file}  from {url}" for file, (url, _) in missing.items())
    return FileNotFoundError(
        f"{name} is not on this machine; {reason}. Missing:\n{files}\n"
        f"You can also put these files there by hand. ftlab.data.emoji, ftlab.data.digits and ftlab.data.folder "
        f"work without a network"
    )


def _verify(file: Path, digest: str) -> None:
    """Refuse a file whose hash is not `digest`, for example "md5:52808999..."."""
    algorithm, _, wanted = digest.partition(":")
    with file.open("rb") as content:
        found = hashlib.file_digest(content, algorithm).hexdigest()
    if found != wanted:
        raise OSError(
            f"{file} has {algorithm} {found[:12]}..., not {wanted[:12]}...: delete it and fetch it again"
        )


def _look_whole(place: Path, source: Source) -> None:
    missing = [name for name in source.holds if not (place / name).exists()]
    if missing:
        raise FileNotFoundError(
            f"{place} has no {', '.join(map(repr, missing))}: delete it, and load the data again"
        )


def _unpack(archives: list[Path], place: Path, source: Source) -> None:
    """Unpack all archives to a temporary folder, which becomes `place` when all of it is there."""
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=place.parent) as temporary:
        inside = Path(temporary, place.name)
        inside.mkdir()
        for archive in archives:
            _unpack_one(archive, inside)
        wrapped = inside / place.name  # some archives bring a folder of the same name
        whole = wrapped if wrapped.is_dir() else inside
        _look_whole(whole, source)
        try:
            whole.rename(place)
        except OSError:
            if not place.is_dir():  # else another process was quicker, and its data are as good
                raise


def _unpack_one(archive: Path, folder: Path) -> None:
    """Unpack one archive; refuse one with a member that would land outside `folder`."""
    if archive.suffix == ".zip":
        with ZipFile(archive) as file:
            for name in file.namelist():
                # zipfile would quietly put it somewhere else; such an archive is not what it says it is.
                if not (folder / name).resolve().is_relative_to(folder.resolve()):
                    raise OSError(f"{archive} has a member outside its folder: {name!r}; nothing was kept of it")
            file.extractall(folder)
    elif archive.suffix in (".tgz", ".gz"):
        with tarfile.open(archive) as file:
            try:
                file.extractall(folder, filter="data")
            except tarfile.FilterError as error:
                raise OSError(f"{archive} is refused: {error}; nothing was kept of it") from error
    else:
        shutil.copy(archive, folder)
