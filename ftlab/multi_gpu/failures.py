"""How a rank failed, told in a few lines."""

import linecache
import re
import sysconfig
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_OTHERS = (*{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}, "<frozen")
WORKER = Path(__file__).with_name("worker.py")  # its lines are of no use to whoever wrote the function
HINTS = {
    "initialize the default process group twice": "launch has called it already: leave it out, or say join=False",
}


@dataclass(frozen=True)
class Place:
    """A line that is being run: of which file, in which function."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        """Return the place with its source, which is read where this is shown: a cell's is known there only."""
        source = linecache.getline(self.file, self.line).strip()
        name = "" if _is_cell(self.file) else f" of {Path(self.file).name}"
        return f"line {self.line}{name}, in {self.function}" + (f": {source}" if source else "")


@dataclass(frozen=True)
class Failure:
    """What a rank raised, when, and where."""

    rank: int
    when: float
    kind: str
    message: str
    places: tuple[Place, ...]

    @classmethod
    def of(cls, error: BaseException, rank: int) -> "Failure":
        """Return the failure that `error` is."""
        places = [Place(f.filename, f.lineno or 0, f.name) for f in traceback.extract_tb(error.__traceback__)]
        notes = getattr(error, "__notes__", [])
        return cls(
            rank, time.time(), type(error).__name__, _cut("\n".join([str(error), *notes])), tuple(shorten(places))
        )

    @property
    def is_lost_connection(self) -> bool:
        """Whether it says no more than that another rank is gone."""
        return bool(re.search(r"[Cc]onnection (closed|reset)|Broken pipe|remote process exited", self.message))

    def __str__(self) -> str:
        said = f"{self.kind}: {self.message}" if self.message else self.kind
        lines = [f"rank {self.rank} raised {said}", *(f"  {place}" for place in self.places)]
        lines += [hint for part, hint in HINTS.items() if part in self.message]
        return "\n".join(lines)


def shorten(places: list[Place], keep: int = 4) -> list[Place]:
    """Return the places in the caller's own code; if there are none, the last ones of all."""
    own = [place for place in places if not place.file.startswith(_OTHERS) and Path(place.file) != WORKER]
    return (own or places)[-keep:]


def read_stack(text: str) -> list[Place]:
    """Return the places in what `faulthandler` wrote, the outermost first."""
    found = re.findall(r'File "(.+)", line (\d+) in (.+)', text)
    return [Place(file, int(line), function) for file, line, function in reversed(found)]


def is_whole_stack(text: str) -> bool:
    """Return whether `faulthandler`, which writes piece by piece, has got as far as the outermost place."""
    return bool(re.search(r" in (<module>|_run_module_as_main)\n|^  \.\.\.\n", text, re.MULTILINE))


def first(failures: Iterable[Failure]) -> Failure:
    """Return the failure that came first: the later ones are often only its consequence."""
    return min(failures, key=lambda failure: failure.when)


def _cut(text: str, keep: int = 1500) -> str:
    """Return the text, without its middle if it is very long: some errors of PyTorch fill a screen."""
    return text if len(text) <= keep else f"{text[: keep // 2]} ... {text[-keep // 2 :]}"


def _is_cell(file: str) -> bool:
    return not Path(file).is_file()
