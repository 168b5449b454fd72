"""What the ranks print, read while they print it."""

from collections.abc import Callable, Iterator
from pathlib import Path

NOISE = ("[Gloo] Rank ",)  # said by gloo whenever processes join


class Logs:
    """Follow the output of every rank of a job.

    Args:
        folder: Where torchrun writes the logs: one folder per rank, with a file for each stream.
        show: Called with the rank and each whole line that it printed.
    """

    def __init__(self, folder: Path, show: Callable[[int, str], None]) -> None:
        self.folder, self.show = folder, show
        self._read: dict[Path, int] = {}  # how many bytes were shown

    def follow(self, end: bool = False) -> None:
        """Show what is new.

        Args:
            end: Whether nothing more can come: a last line that is not finished is shown as well.
        """
        for path in sorted(self.folder.glob("*/attempt_*/*/std*.log")):
            for line in self._new_lines(path, end):
                if not line.startswith(NOISE):
                    self.show(int(path.parent.name), line)

    def _new_lines(self, path: Path, end: bool) -> Iterator[str]:
        with path.open("rb") as file:
            file.seek(self._read.get(path, 0))
            new = file.read()
        if not end:
            new = new[: new.rfind(b"\n") + 1]
        self._read[path] = self._read.get(path, 0) + len(new)
        yield from _redrawn(new) if new else []


def _redrawn(new: bytes) -> list[str]:
    """Return the lines as a terminal would show them: what follows a carriage return replaces the line."""
    lines = new.decode(errors="replace").replace("\r\n", "\n").rstrip("\n").split("\n")
    return [line.rstrip("\r").rpartition("\r")[2] for line in lines]


def print_line(rank: int, line: str) -> None:
    """Print a line with the rank that it comes from."""
    print(f"[rank {rank}] {line}", flush=True)
