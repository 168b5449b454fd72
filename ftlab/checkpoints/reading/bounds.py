"""What bounds the reading of a file: a window with an end, and the limits of what is believed."""

from dataclasses import dataclass
from typing import BinaryIO

# A file may claim anything. None of these is near what a real checkpoint needs.
OPERATIONS = 3_000_000  # of one pickle; a checkpoint with 10,000 tensors needs about 500,000
MEMORY = 64 << 20  # bytes of texts that are kept from one pickle
TEXT = 1 << 16  # bytes; a longer one is passed over, and only its place is kept
BYTES = 1 << 8  # the same for what is no text: the numbers of an array
DIRECTORY = 64 << 20  # bytes of the table of contents of a zip or safetensors file
DEPTH = 64  # dictionaries and lists inside each other
THINGS = 200_000  # that are looked at in one part; a part with 10,000 tensors has 20,000
EVERYTHING = 3 * THINGS  # that are looked at in all parts
NESTED = 4  # archives inside archives
EXPANDED = 4 << 30  # bytes of tensors that repeat the few numbers that are there


@dataclass
class Broken(Exception):  # noqa: N818 - it is a finding, and reaches no user as an exception
    """Say why a file cannot be read, or not to its end."""

    kind: str
    seen: str
    means: str


def damaged(seen: str) -> Broken:
    """Return the finding that a file is not as its writer left it."""
    return Broken(
        "damaged",
        seen,
        "The file has been changed or was written wrongly: nothing that is in it can be relied on. "
        "Get the file again from where it came from.",
    )


def too_large(seen: str) -> Broken:
    """Return the finding that a file claims more than any checkpoint has."""
    return Broken(
        "too-large",
        seen,
        "No checkpoint is like that. Such a file fills the memory of whoever opens it: do not load it.",
    )


class Window:
    """A part of a file that reads like a file: never beyond its end, never more than there is."""

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        self.file, self.start, self.end = file, start, end
        self.at = start
        file.seek(start)

    def read(self, count: int) -> bytes:
        """Return `count` bytes, or fewer where the window ends."""
        data = self.file.read(max(0, min(count, self.end - self.at)))
        self.at += len(data)
        return data

    def readline(self) -> bytes:
        """Return the bytes up to the end of the line; `pickletools` reads the texts of protocol 0 so."""
        data = self.file.readline(max(0, min(TEXT, self.end - self.at)))
        self.at += len(data)
        return data

    def skip(self, count: int) -> bool:
        """Go on by `count` bytes; return whether they are there."""
        if count < 0 or count > self.end - self.at:
            return False
        self.at += count
        self.file.seek(self.at)
        return True
