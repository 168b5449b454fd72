"""Look into a checkpoint file: nothing in it is run, and torch is not needed."""

import stat
from os import PathLike
from pathlib import Path
from typing import BinaryIO

from .info import CheckpointInfo, Finding
from .reading.archive import is_zip, read_archive
from .reading.bounds import Broken
from .reading.folders import read_folder
from .reading.foreign import foreign, unknown
from .reading.old import read_old
from .reading.safetensors import looks_like_safetensors, read_safetensors


def inspect(path: str | PathLike, *, checksums: bool = False) -> CheckpointInfo:
    """List what is in a checkpoint file, without running it and without reading its numbers.

    Reads what `torch.save` writes (since torch 1.6, and before), plain pickles, safetensors, and folders of
    `torch.distributed.checkpoint`. torch is not imported. A file that is damaged, or that is no checkpoint,
    is no error: the result says so in `whole` and `problems`.

    The trap: "whole" means that everything is there, and not that every number is right. torch.load does not
    compare the checksums that a zip file has either. `checksums=True` does, and reads the whole file for it.

    Args:
        path: A file, or a folder of `torch.distributed.checkpoint`.
        checksums: Read all of a zip file and compare its checksums.

    Raises:
        FileNotFoundError: There is nothing under this name.
        OSError: The file may not be read, or is a device.

    Example:
        >>> from ftlab.pretrained.lite import weights_file
        >>> info = inspect(weights_file())
        >>> info.format, info.whole, len(info.tensors), info.tensors[0].name, info.tensors[0].shape
        ('torch old', True, 296, '_conv_stem.weight', (32, 3, 3, 3))
    """
    path = Path(path).expanduser()
    mode = path.stat().st_mode
    info = CheckpointInfo(path)
    try:
        if stat.S_ISDIR(mode):
            read_folder(path, info)
        elif stat.S_ISREG(mode):
            info.size = path.stat().st_size
            with path.open("rb") as file:
                _read(file, info, checksums)
        else:
            raise OSError(f"{str(path)!r} is no file: a checkpoint is a file or a folder")
    except Broken as broken:
        info.whole = False
        info.problems.append(Finding(broken.kind, broken.seen, broken.means))
    return info


def _read(file: BinaryIO, info: CheckpointInfo, checksums: bool) -> None:
    head = file.read(512)
    problem = foreign(head, info.path.name)
    if problem:
        raise problem
    if is_zip(info.path, head):
        read_archive(file, info, checksums)
    elif looks_like_safetensors(head, info.size):
        read_safetensors(file, info)
    elif head[:1] == b"\x80" or _is_text_pickle(head):
        read_old(file, info)
    else:
        raise unknown(head)


def _is_text_pickle(head: bytes) -> bool:
    """Return whether a file may be a pickle of protocol 0 or 1, which have no first mark of their own."""
    return head[:1] in b"(]}ciVFILNJKM)lpdtSUTXGoP"
