"""Fetch weights before class, into a folder that can be copied to the students' machines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

import torch
from torch.hub import HASH_REGEX
from torchvision import models
from torchvision.models._api import WeightsEnum

from ftlab.nearest import nearest
from ftlab.pretrained.catalogue import cached_file, weights_of
from ftlab.pretrained.lite import EfficientNet_Lite0_Weights
from ftlab.pretrained.loading import fetch


@dataclass(frozen=True)
class Fetched:
    """What happened to the file of one name: the text, and whether the file is there now."""

    name: str
    done: str
    ok: bool = True


def fetch_all(
    names: Sequence[str], home: Path | None = None, *, say: Callable[[Fetched], object] = lambda _: None
) -> list[Fetched]:
    """Fetch the weights of `names`, one after the other; one that fails does not stop the others.

    A file that is there and whole is not fetched again. With `home`, a file that torch's own cache has is copied
    from there.

    Args:
        names: Of models, detectors and others too ("resnet50" stands for its default weights), or of entries
            ("ResNet50_Weights.IMAGENET1K_V1").
        home: A folder that will be `TORCH_HOME`; torch's own if None.
        say: Called with each result as soon as it is there.

    Example:
        >>> fetch_all(["efficientnet_lite0"])[0].done
        'comes with ftlab, nothing to fetch'
    """
    results = []
    for name in names:
        result = _fetch_one(name, home)
        say(result)
        results.append(result)
    return results


def _fetch_one(name: str, home: Path | None) -> Fetched:
    try:
        entry = _entry(name)
        _make(cached_file(entry, home).parent)
        return Fetched(name, _into(entry, home))
    except (OSError, ValueError) as error:
        return Fetched(name, f"failed: {error}", ok=False)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"the folder {folder} cannot be made ({error.strerror}); name another one") from error


def _entry(name: str) -> WeightsEnum:
    """Return the entry of a model's name, or of an entry's full name such as `ResNet50_Weights.DEFAULT`."""
    kind, _, key = name.partition(".")
    if name in models.list_models():
        return models.get_model_weights(name).DEFAULT
    if not kind.endswith("_Weights"):
        return weights_of(name)  # which says what is near
    enums = {enum.__name__: enum for enum in map(models.get_model_weights, models.list_models())}
    if kind not in enums:
        raise ValueError(f"torchvision has no weights {kind!r}; {nearest(kind, enums)}")
    members = enums[kind].__members__
    if key not in members:
        raise ValueError(f"{kind} has no {key!r}; write {', '.join(f'{kind}.{member}' for member in members)}")
    return members[key]


def _into(entry: WeightsEnum, home: Path | None) -> str:
    if isinstance(entry, EfficientNet_Lite0_Weights):
        return (
            "comes with ftlab, nothing to fetch"
            if cached_file(entry).exists()
            else f"{cached_file(entry)} is gone"
        )
    path = cached_file(entry, home)
    if path.exists():
        return f"was there already, {_size(path)}" if _is_whole(path) else _again(entry, path, home)
    source = _own_copy(entry, path)
    fetch(entry, home=home, source=source)
    return f"{'copied from the cache of this machine' if source else 'fetched'}, {_size(path)}"


def _own_copy(entry: WeightsEnum, path: Path) -> str:
    """Return the address of the same file in torch's own cache, or "" if it is not there or not whole."""
    here = cached_file(entry)
    return here.as_uri() if here != path and here.exists() and _is_whole(here) else ""


def _again(entry: WeightsEnum, path: Path, home: Path | None) -> str:
    """Replace a damaged file; it comes back if that fails, for it may be all there is."""
    aside = path.rename(path.with_name(f"{path.name}.damaged"))
    try:
        fetch(entry, home=home, source=_own_copy(entry, path))
    except OSError as error:
        aside.rename(path)
        raise OSError(f"the file that is here is damaged, and fetching it again failed: {error}") from error
    aside.unlink()
    return f"was damaged, fetched again, {_size(path)}"


def _is_whole(path: Path) -> bool:
    """Return whether the bytes are those that the hash in the file's name announces."""
    announced = HASH_REGEX.search(path.name)
    with path.open("rb") as file:
        return announced is None or file_digest(file, "sha256").hexdigest().startswith(announced[1])


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 2**20:.1f} MB"


def instructions(home: Path | None = None) -> str:
    """Return what to do with the folder of the files on the students' machines."""
    folder = home or Path(torch.hub.get_dir()).parent
    return f"""\
The files are in {Path(folder, "hub", "checkpoints")}.
On a student's machine, without a network, one of the two:
  copy that folder to the place where torch looks: .cache/torch/hub/checkpoints in the home folder;
  or copy {folder} anywhere, and set TORCH_HOME to the copy before Jupyter is started
    (Linux, macOS: export TORCH_HOME=/where/it/is   Windows: setx TORCH_HOME C:\\where\\it\\is)."""
