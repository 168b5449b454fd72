"""A folder of torch.distributed.checkpoint: a pickle `.metadata`, and files with the pieces of tensors."""

import math
from pathlib import Path
from typing import Any

from ftlab.checkpoints.info import CheckpointInfo, Part, Place, TensorInfo

from .bounds import Broken, Window, damaged
from .makers import SIZES
from .notes import note_names
from .pickles import read_pickle
from .symbols import Call, Name, lookup, pairs, sequence


def read_folder(path: Path, info: CheckpointInfo) -> None:
    """Fill `info` from a folder.

    Raises:
        Broken: It is no checkpoint, or it cannot be read.
    """
    meta = path / ".metadata"
    if not meta.is_file():
        raise _no_checkpoint(path)
    info.format = "torch distributed"
    files = [one for one in path.iterdir() if one.is_file()]
    info.size = sum(one.stat().st_size for one in files)
    with meta.open("rb") as file:
        pickle = read_pickle(Window(file, 0, meta.stat().st_size))
    note_names(info, pickle)
    if pickle.broken:
        raise pickle.broken
    state = lookup(pickle.root.state if isinstance(pickle.root, Call) else None)
    for name, entry in pairs(state.get("state_dict_metadata")) or []:
        _note(info, str(name), entry)
    _pieces(path, state.get("storage_data"), info)


def _no_checkpoint(path: Path) -> Broken:
    shards = sorted(one.name for one in path.iterdir() if one.suffix == ".distcp")
    if shards:
        return Broken(
            "dcp-shard",
            f"the folder has {len(shards)} shards, {', '.join(shards[:3])}, and no file .metadata",
            "Only .metadata says which tensor is where. Copy the whole folder: files that begin with a dot are "
            "easily left behind.",
        )
    names = {one.name for one in path.iterdir()}
    if "data.pkl" in names or any((path / one / "data.pkl").is_file() for one in names):
        return Broken(
            "unpacked",
            "it is a checkpoint that was unpacked: the folder has data.pkl in it, a part of a .pt file",
            "A .pt file is a zip file, and some systems unpack those after a download. Get the file again, or "
            "pack the folder: python -m zipfile -c model.pt FOLDER",
        )
    if "zero_to_fp32.py" in names:
        return Broken(
            "zero-shard",
            "it is a folder of DeepSpeed, with the weights in pieces",
            f"Make one file of it: python {path / 'zero_to_fp32.py'} {path} model.pt",
        )
    index = sorted(name for name in names if name.endswith(".index.json"))
    inside = sorted(one.name for one in path.iterdir() if one.suffix in (".pt", ".pth", ".bin", ".safetensors"))
    more = f", and {index[0]}, which says what is where" if index else ""
    held = ", ".join(inside[:3])
    return Broken(
        "foreign",
        f"it is a folder without .metadata; it has {held or 'no checkpoint'} in it{more}",
        f"Give the file itself, such as {path / inside[0]}." if inside else "Name the file with the checkpoint.",
    )


def _note(info: CheckpointInfo, name: str, entry: Any) -> None:
    """Note one entry: a tensor has a size and pieces, anything else is bytes."""
    part = ("model",) if name.startswith("model.") else ("optimizer",) if name.startswith("optim") else ()
    inner = name.split(".", 1)[1] if part and "." in name else name
    found = lookup(entry.state if isinstance(entry, Call) else None)
    size = sequence(found.get("size"))
    if size is None:
        if part != ("optimizer",):  # its learning rates and other settings are single entries
            info.parts.append(Part((name,), "other", "bytes"))
        return
    shape = tuple(one for one in size if isinstance(one, int))
    dtype = _dtype(found.get("properties"))
    count = math.prod(shape) * SIZES.get(dtype, 1)
    info.tensors.append(TensorInfo(inner, part, shape, dtype, "cpu", count, name, kind="pieces"))
    if not any(one.keys == part and one.kind != "other" for one in info.parts):
        info.parts.append(Part(part, "optimizer" if part == ("optimizer",) else "model", "in pieces"))


def _dtype(properties: Any) -> str:
    state = properties.state if isinstance(properties, Call) else None
    for one in sequence(state) or [value for _, value in pairs(state) or []]:
        if isinstance(one, Name) and one.path.removeprefix("torch.") in SIZES:
            return one.path.removeprefix("torch.")
    return "float32"


def _pieces(path: Path, storage: Any, info: CheckpointInfo) -> None:
    """Note where each piece is; look whether its file is there, and long enough."""
    for index, place in pairs(storage) or []:
        about, found = (lookup(one.state if isinstance(one, Call) else None) for one in (index, place))
        name, offset, length = (found.get(key) for key in ("relative_path", "offset", "length"))
        tensor, corner = about.get("fqn"), sequence(about.get("offset")) or ()
        numbers = all(isinstance(one, int) for one in (offset, length, *corner))
        if not isinstance(name, str) or not isinstance(tensor, str) or not numbers:
            raise damaged("the file .metadata is not as torch writes it")
        if Path(name).name != name:
            raise damaged(f"the file .metadata names a file outside of its folder: {name[:80]!r}")
        _long_enough(path / name, offset + length)
        info.pieces.setdefault(tensor, []).append((Place(path / name, offset, length), tuple(corner)))


def _long_enough(shard: Path, end: int) -> None:
    if not shard.is_file():
        raise Broken(
            "truncated", f"the shard {shard.name} is not in the folder", "Copy all files of the folder once more."
        )
    if end > shard.stat().st_size:
        raise Broken(
            "truncated",
            f"the shard {shard.name} ends at byte {shard.stat().st_size:,}, a piece at {end:,}",
            "A copy was broken off, or the disk was full. Copy all files of the folder once more.",
        )
