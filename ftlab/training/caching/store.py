"""Where activations are kept: in memory, or in a file that is mapped into memory."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

MEMORY_SHARE = 0.25  # of what is free now; the rest is for the training, and for the others


def fits_in_memory(size: int) -> bool:
    """Say whether so many bytes may be kept in memory."""
    return size <= MEMORY_SHARE * psutil.virtual_memory().available


def in_memory(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return room for activations."""
    return torch.empty(shape, dtype=dtype)


def on_disk(path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return room for activations in a new file, mapped into memory.

    Raises:
        OSError: The disk has no room for it.
    """
    count = torch.Size(shape).numel()
    free, size = psutil.disk_usage(str(path.parent)).free, count * dtype.itemsize
    if size > 0.95 * free:  # a mapped file that does not fit ends the process without a word
        raise OSError(
            f"the activations need {size / 2**30:.1f} GiB, and {path.parent} has {free / 2**30:.1f} GiB free. "
            "Give another folder (folder=...), smaller images, or a later cut"
        )
    with path.open("wb") as file:
        file.truncate(size)
        if size and hasattr(os, "posix_fallocate"):  # a disk that fills up meanwhile is an error here, not later
            os.posix_fallocate(file.fileno(), 0, size)
    return mapped(path, shape, dtype)


def mapped(path: Path, shape: tuple[int, ...], dtype: torch.dtype, *, shared: bool = True) -> Tensor:
    """Return what a file holds as a tensor; it is read when it is used, and written only if it is shared."""
    count = torch.Size(shape).numel()
    return torch.from_file(str(path), shared=shared, size=count, dtype=dtype).view(shape)


def kept(folder: Path, fingerprint: str) -> tuple[Tensor, Tensor] | None:
    """Return activations and targets of this fingerprint; None if they are not there, or not whole."""
    note, data = _files(folder, fingerprint)
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["fingerprint"] != fingerprint or known["bytes"] != data.stat().st_size:
            return None
        if known["sha256"] != _hash(data) or known.pop("note") != _hash_of(known):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    values = mapped(data, tuple(known["shape"]), getattr(torch, known["dtype"]), shared=False)
    return values, torch.tensor(known["targets"], dtype=getattr(torch, known["target dtype"]))


def keep(
    folder: Path, fingerprint: str, fill: Callable[[Callable[..., Tensor]], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Let `fill` write activations into a file of `folder`; it is found again only when it is whole.

    Args:
        folder: Is made if it is not there.
        fingerprint: Of model and data.
        fill: Is given a function (shape, dtype) that returns the room; returns activations and targets.

    Raises:
        OSError: The folder is a file, or nothing can be written there.
    """
    if folder.is_file():
        raise NotADirectoryError(f"{folder} is a file; activations are kept in a folder")
    folder.mkdir(parents=True, exist_ok=True)
    note, data = _files(folder, fingerprint)
    with tempfile.TemporaryDirectory(prefix=".activations-", dir=folder) as temporary:
        part = Path(temporary, data.name)
        values, targets = fill(lambda shape, dtype: on_disk(part, shape, dtype))
        about = _about(fingerprint, part, values, targets)
        shape, dtype = tuple(values.shape), values.dtype
        del values  # Windows moves no file that is mapped
        note.unlink(missing_ok=True)
        os.replace(part, data)  # noqa: PTH105 - the one call that is atomic on every system
        written = Path(temporary, note.name)
        written.write_text(json.dumps(about), encoding="utf-8")
        os.replace(written, note)  # noqa: PTH105
    return mapped(data, shape, dtype, shared=False), targets


def _about(fingerprint: str, part: Path, values: Tensor, targets: Tensor) -> dict[str, Any]:
    about = {
        "fingerprint": fingerprint,
        "bytes": part.stat().st_size,
        "sha256": _hash(part),
        "shape": list(values.shape),
        "dtype": str(values.dtype).removeprefix("torch."),
        "targets": targets.tolist(),
        "target dtype": str(targets.dtype).removeprefix("torch."),
    }
    return about | {"note": _hash_of(about)}


def _files(folder: Path, fingerprint: str) -> tuple[Path, Path]:
    return folder / f"{fingerprint[:24]}.json", folder / f"{fingerprint[:24]}.bin"


def _hash_of(about: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
