"""Read the tensors of a checkpoint by their places in the file, past its pickle."""

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .info import CheckpointInfo, Place, TensorInfo, models_of

if TYPE_CHECKING:
    from torch import Tensor


def read_tensors(info: CheckpointInfo, part: tuple[str | int, ...] = ()) -> "dict[str, Tensor]":
    """Return the tensors of one part by name; tensors that share a storage in the file share memory here too."""
    if not info.whole:
        problem = info.problems[0]
        raise ValueError(f"{info.path} cannot be read: {problem.seen}. {problem.means}")
    chosen = [] if part else next(iter(models_of(info).values()), [])
    chosen = chosen or [tensor for tensor in info.tensors if tensor.part == part]
    if not chosen:
        known = sorted({".".join(map(str, tensor.part)) or "(all)" for tensor in info.tensors})
        given = ".".join(map(str, part))
        raise ValueError(f"{info.path} has no tensors under {given!r}; it has {', '.join(known)}")
    if info.loads_safely and any(tensor.kind != "dense" or _is_packed(info, tensor) for tensor in chosen):
        return _loaded(info, chosen)
    storages: dict[str, torch.UntypedStorage] = {}
    return {tensor.name: _read(info, tensor, storages) for tensor in chosen}


def _is_packed(info: CheckpointInfo, tensor: TensorInfo) -> bool:
    """Return whether its numbers are compressed, as an archive has them that another program packed."""
    return tensor.kind == "dense" and tensor.storage not in info.places


def _read(info: CheckpointInfo, tensor: TensorInfo, storages: dict) -> "Tensor":
    if tensor.kind == "pieces":
        return _joined(info, tensor)
    place = info.places.get(tensor.storage)
    if _is_packed(info, tensor):
        raise ValueError(
            f"{tensor.key!r} of {info.path} is compressed; unpack the zip file, and pack it with zip -0"
        )
    if place is None or tensor.kind not in ("dense", "array"):
        raise ValueError(f"{tensor.key!r} of {info.path} is {tensor.kind}, or not stored as plain numbers")
    if tensor.storage not in storages:
        storages[tensor.storage] = _bytes(place).untyped_storage()
    dtype = getattr(torch, tensor.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(
            f"{tensor.key!r} of {info.path} has the type {tensor.dtype!r}, which PyTorch does not have"
        )
    if 0 in tensor.shape:
        return torch.empty(tensor.shape, dtype=dtype)
    empty = torch.empty(0, dtype=dtype)
    return empty.set_(storages[tensor.storage], tensor.offset, tensor.shape, tensor.stride)


def _loaded(info: CheckpointInfo, chosen: list[TensorInfo]) -> "dict[str, Tensor]":
    """Return quantised and sparse tensors, which are more than numbers in a row, by PyTorch's safe loader."""
    found = _load(info, info.path)
    for key in chosen[0].part:
        found = found[key]
    return {tensor.name: _inside(found, tensor.name) for tensor in chosen}


def _inside(found: Any, name: str) -> "Tensor":
    """Return a tensor by its name; that of one in a tuple, as quantised layers have them, ends with its place."""
    if name in found:
        return found[name]
    outer, _, last = name.rpartition(".")
    return found[outer][int(last)] if isinstance(found.get(outer), (list, tuple)) else found[name]


def _joined(info: CheckpointInfo, tensor: TensorInfo) -> "Tensor":
    """Put a tensor together from its pieces; each is an archive of its own, which the safe loader reads."""
    whole = torch.empty(tensor.shape, dtype=getattr(torch, tensor.dtype))
    filled = 0
    for place, corner in info.pieces.get(tensor.storage, []):
        piece = _load(info, io.BytesIO(_bytes(place).numpy()))
        ranges = tuple(slice(at, at + size) for at, size in zip(corner, piece.shape, strict=False))
        whole[ranges] = piece
        filled += piece.numel()
    if filled != whole.numel():
        raise ValueError(f"of {tensor.key!r} in {info.path} there are {filled:,} of {whole.numel():,} numbers")
    return whole


def _load(info: CheckpointInfo, file: Path | io.BytesIO) -> Any:
    """Load by PyTorch's safe loader; whatever it stumbles over is an error of the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # PyTorch announces the end of its quantised tensors
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{info.path} cannot be loaded: {str(error)[:200]}") from error


def _bytes(place: Place) -> "Tensor":
    """Return the bytes of a storage, in memory of torch's own: a bytearray of that size is filled more slowly."""
    if place.data is not None:
        return torch.frombuffer(bytearray(place.data or bytes(1)), dtype=torch.uint8)[: place.size]
    data = torch.empty(place.size, dtype=torch.uint8)
    with place.file.open("rb") as file:
        file.seek(place.start)
        if file.readinto(data.numpy()) != place.size:
            raise ValueError(f"{place.file} has become shorter since it was looked at")
    return data
