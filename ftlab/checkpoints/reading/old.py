"""The formats before torch 1.6: pickles one after the other, then the numbers; and a plain pickle."""

from typing import Any, BinaryIO

from ftlab.checkpoints.info import CheckpointInfo, Place

from .bounds import Broken, Window, damaged
from .foreign import is_text, unknown
from .makers import Content, Storage, storage_of
from .notes import note_content, note_names, raise_rest
from .pickles import Pickle, read_pickle
from .symbols import sequence

MAGIC = 0x1950A86A20F9469CFC6C
_CUT = "A download or a copy was broken off, or the disk was full. Get the file again."


def read_old(file: BinaryIO, info: CheckpointInfo) -> None:
    """Fill `info` from a file that is a pickle: torch's old format, or any other.

    Raises:
        Broken: It cannot be read.
    """
    window = Window(file, 0, info.size)
    first = read_pickle(window)
    if first.root == MAGIC and first.broken is None:
        _read_torch(file, window, info)
    else:
        _read_plain(file, first, info)


def _read_torch(file: BinaryIO, window: Window, info: CheckpointInfo) -> None:
    info.format = "torch old"
    protocol, _system, pickle = read_pickle(window), read_pickle(window), read_pickle(window)
    for one in (protocol, _system, pickle):
        note_names(info, one)
        if one.broken:
            raise _at_end(one.broken, window)
    content = note_content(info, pickle, window.file)
    keys = read_pickle(window)
    note_names(info, keys)
    if keys.broken:
        raise _at_end(keys.broken, window)
    _place(window, info, content, _all_storages(pickle, content), keys.root)
    raise_rest(pickle, content, info)


def _all_storages(pickle: Pickle, content: Content) -> dict[str, Storage]:
    found = {one.key: one for one in map(storage_of, pickle.persistent) if one}
    content.storages.update(found)
    return found


def _place(window: Window, info: CheckpointInfo, content: Content, known: dict[str, Storage], keys: Any) -> None:
    """Go over the numbers, which stand in the order of their keys, each with its count before it."""
    listed = sequence(keys)
    if listed is None:
        raise damaged("the list of the storages is not there")
    for key in map(str, listed[: len(known) + 1]):
        storage = known.get(key)
        head = window.read(8)
        if storage is None:
            raise damaged(f"the storage {key!r} belongs to no tensor")
        if len(head) == 8 and int.from_bytes(head, "little", signed=True) != storage.count:
            raise damaged(f"the storage {key!r} should have {storage.count:,} elements")
        start = window.at
        if len(head) < 8 or not window.skip(storage.bytes):
            raise Broken("truncated", f"the file ends at byte {info.size:,}, in the middle of its tensors", _CUT)
        info.places[key] = Place(info.path, start, storage.bytes)
    missing = known.keys() - set(map(str, listed))
    if missing:
        raise damaged(f"the numbers of {len(missing)} storages are not in the file")


def _at_end(broken: Broken, window: Window) -> Broken:
    """Return the finding of a pickle in the middle of a file: if it ran into the end, the file was cut."""
    if window.at >= window.end:
        return Broken("truncated", f"the file ends at byte {window.end:,}, in the middle of a pickle", _CUT)
    return broken


def _read_plain(file: BinaryIO, pickle: Pickle, info: CheckpointInfo) -> None:
    info.format = "pickle"
    note_names(info, pickle)
    if pickle.broken and pickle.root is None and not pickle.names:
        info.format = ""
        file.seek(0)
        head = file.read(512)
        if is_text(head):
            raise unknown(head)
        raise Broken(
            "foreign",
            f"the file begins like a pickle, and then: {pickle.broken.seen}",
            "It is no checkpoint, or it was damaged. Get the file again.",
        )
    content = note_content(info, pickle, file)
    raise_rest(pickle, content, info)
