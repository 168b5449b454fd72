"""What a pickle says, noted in the result: names, parts, tensors, and what is in archives inside of it."""

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

from ftlab.checkpoints.info import CheckpointInfo, GlobalInfo, Place

from .bounds import MEMORY, NESTED, Window
from .content import read_content, refused, version_of, walk
from .makers import Content, Storage, storage_of
from .pickles import Pickle, read_pickle
from .symbols import Blob, Call
from .verdicts import verdict

_LOADER = "torch.storage._load_from_bytes"


def note_names(info: CheckpointInfo, pickle: Pickle) -> None:
    """Note every name that a pickle asks for, once, and what else PyTorch's safe loader would not take."""
    info.instructions |= pickle.others
    known = {one.name for one in info.globals}
    info.globals += [GlobalInfo(n, *verdict(n), use) for n, use in pickle.names.items() if n not in known]


def note_content(info: CheckpointInfo, pickle: Pickle, file: BinaryIO) -> Content:
    """Note the parts and tensors that a pickle describes; `file` is where it was read from."""
    inner = {id(call): _look_inside(call, file, info, NESTED) for call in _archives(pickle.root)}
    content = read_content(pickle.root, {key: storage for key, storage in inner.items() if storage})
    for key, symbol in content.arrays.items():
        info.places[key] = _place_of(symbol, file, info)
    info.parts, info.tensors = content.parts, content.tensors
    info.torch_version = version_of(pickle.root)
    return content


def raise_rest(pickle: Pickle, content: Content, info: CheckpointInfo) -> None:
    """Raise what is wrong, once all that could be read is noted."""
    problem = pickle.broken or refused(content, info.size)
    if problem:
        raise problem


def _archives(root: Any) -> Iterator[Call]:
    """Go through the archives that are inside a pickle as bytes; loading it would load them, unguarded."""
    for thing in walk(root):
        if isinstance(thing, Call) and thing.path == _LOADER and isinstance(thing.args, tuple) and thing.args:
            yield thing


def _look_inside(call: Call, file: BinaryIO, info: CheckpointInfo, depth: int) -> Storage | None:
    """Return the storage in an inner archive; note the names that it asks for, and where its numbers are."""
    place = _place_of(call.args[0], file, info)
    window = _window(place, file)
    pickles = []
    for _ in range(5):  # magic number, protocol, system, content, keys
        pickle = read_pickle(window)
        pickles.append(pickle)
        note_names(info, pickle)
        if depth:
            for inner in _archives(pickle.root):
                _look_inside(inner, window.file, info, depth - 1)
        if pickle.broken:
            return None
    storage = storage_of(pickles[3].root)
    if storage is None or len(window.read(8)) < 8 or window.end - window.at < storage.bytes:
        return None
    key = f"inside {len(info.places)}"
    info.places[key] = _inside(place, window.at, storage.bytes)
    return replace(storage, key=key)


def _window(place: Place, file: BinaryIO) -> Window:
    if place.data is None:
        return Window(file, place.start, place.start + place.size)
    return Window(io.BytesIO(place.data), 0, place.size)


def _inside(place: Place, start: int, size: int) -> Place:
    return Place(place.file, start, size, place.data and place.data[start : start + size])


def _place_of(symbol: Any, file: BinaryIO, info: CheckpointInfo) -> Place:
    """Return where bytes are; protocol 2 has none, and writes them as a text that has to be coded back."""
    if isinstance(symbol, Blob) and not symbol.is_text:
        if not isinstance(file, io.BytesIO):
            return Place(info.path, symbol.at, symbol.size)
        symbol = file.getvalue()[symbol.at : symbol.at + symbol.size]
    elif isinstance(symbol, Call) and symbol.path == "_codecs.encode" and isinstance(symbol.args, tuple):
        symbol = _coded(symbol.args[0] if symbol.args else "", file)
    data = symbol if isinstance(symbol, bytes) else b""
    return Place(info.path, 0, len(data), data)


def _coded(text: Any, file: BinaryIO) -> bytes:
    if isinstance(text, Blob) and text.size <= MEMORY:
        file.seek(text.at)
        text = file.read(text.size).decode("utf-8", "replace")
    return text.encode("latin-1", "replace") if isinstance(text, str) else b""
