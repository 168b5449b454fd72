"""What a pickle describes, as plain values: names and calls are written down, and nothing is called."""

from collections.abc import Iterator
from typing import Any


class Name:
    """A class or function that a pickle asks for, such as `collections.OrderedDict`."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path


class Call:
    """An object that would be made by calling something, with what would be put into it afterwards."""

    __slots__ = ("args", "elements", "items", "kwargs", "made", "state")

    def __init__(self, made: Any, args: Any = (), kwargs: Any = None) -> None:
        self.made = made  # what is called: a Name, in every honest file
        self.args = args
        self.kwargs = kwargs
        self.items: list[tuple[Any, Any]] = []
        self.elements: list[Any] = []
        self.state: Any = None

    @property
    def path(self) -> str:
        """The name of what is called; empty if it is no name."""
        return self.made.path if isinstance(self.made, Name) else ""


class Mapping:
    """A dictionary as a list of pairs: a key may be anything, so that it cannot be looked up by its hash."""

    __slots__ = ("items",)

    def __init__(self, items: list[tuple[Any, Any]] | None = None) -> None:
        self.items = items if items is not None else []


class Persistent:
    """A reference out of the pickle: for torch, to the numbers of a tensor."""

    __slots__ = ("id",)

    def __init__(self, id: Any) -> None:
        self.id = id


class Blob:
    """A long text or array of bytes that was passed over: where it is, and how long."""

    __slots__ = ("at", "is_text", "size")

    def __init__(self, at: int, size: int, is_text: bool) -> None:
        self.at, self.size, self.is_text = at, size, is_text


DICTIONARIES = {"collections.OrderedDict", "collections.defaultdict", "collections.Counter", "builtins.dict"}


def pairs(thing: Any) -> list[tuple[Any, Any]] | None:
    """Return the pairs of what is a dictionary, or None."""
    if isinstance(thing, Mapping):
        return thing.items
    if not isinstance(thing, Call):
        return None
    if thing.items:
        return thing.items
    return _given(thing) if thing.path in DICTIONARIES else None


def _given(thing: Call) -> list[tuple[Any, Any]]:
    """Return the pairs that an ordered dictionary was made from: Python 2 wrote a list of them."""
    first = thing.args[0] if isinstance(thing.args, tuple) and thing.args else []
    if isinstance(first, Mapping):
        return first.items
    whole = isinstance(first, list) and all(isinstance(one, (list, tuple)) and len(one) == 2 for one in first)
    return [(one[0], one[1]) for one in first] if whole else []


def lookup(thing: Any) -> dict[str, Any]:
    """Return those entries of a dictionary whose key is a text; empty for anything else."""
    return {key: value for key, value in pairs(thing) or [] if isinstance(key, str)}


def sequence(thing: Any) -> list | tuple | None:
    """Return the elements of what is a list, tuple or set, or None."""
    if isinstance(thing, (list, tuple)):
        return thing
    if isinstance(thing, Call) and thing.path == "torch.Size" and isinstance(thing.args, tuple) and thing.args:
        return sequence(thing.args[0])
    return None


def children(thing: Any) -> Iterator[tuple[Any, Any]]:
    """Go through what is directly inside: the key or place, and the thing."""
    found = pairs(thing)
    if found is not None:
        yield from found
    elif isinstance(thing, (list, tuple)):
        yield from enumerate(thing)
    elif isinstance(thing, Call):
        yield from (("", part) for part in (thing.args, thing.kwargs, thing.elements, thing.state) if part)


def short(thing: Any, room: int = 60) -> str:
    """Return a thing in a few words, whatever it is and however deep."""
    text = _short(thing, 2)
    return text if len(text) <= room else text[: room - 3] + "..."


def _short(thing: Any, depth: int) -> str:
    if isinstance(thing, (str, bytes)):
        return repr(thing[:80])
    if isinstance(thing, Name):
        return thing.path
    if isinstance(thing, Blob):
        return f"<{thing.size:,} bytes>"
    if isinstance(thing, Persistent):
        return "<persistent id>"
    if depth == 0 or isinstance(thing, Mapping):
        return "..." if isinstance(thing, (list, tuple, Call, Mapping)) else _number(thing)
    if isinstance(thing, (list, tuple)):
        inside = ", ".join(_short(one, depth - 1) for one in thing[:4])
        return f"[{inside}]" if isinstance(thing, list) else f"({inside})"
    if isinstance(thing, Call):
        args = thing.args if isinstance(thing.args, tuple) else (thing.args,)
        return f"{_short(thing.made, depth - 1)}({', '.join(_short(one, depth - 1) for one in args[:4])})"
    return _number(thing)


def _number(thing: Any) -> str:
    if isinstance(thing, int) and not isinstance(thing, bool) and thing.bit_length() > 128:
        return f"<a number of {thing.bit_length():,} bits>"  # its digits would take long
    return repr(thing)
