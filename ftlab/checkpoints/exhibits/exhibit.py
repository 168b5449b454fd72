"""What an exhibit is, and the list of all of them: each is a function that makes the content of a file."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ftlab.freezing.snapshot import same
from ftlab.table import Table, Tabled

from .models import small

State = dict[str, Tensor]


@dataclass(frozen=True)
class Exhibit:
    """A broken file, and what there is to know about it.

    Attributes:
        name: Such as `wrapped`.
        path: The file.
        story: How it came to be.
        finds: The kinds of finding that `diagnose` makes, in order; empty if the file is in order.
        truth: The tensors that a repaired model has, by name; None if the file cannot be repaired.
        build: Returns the model that it is meant for, with random parameters.
    """

    name: str
    path: Path
    story: str
    finds: tuple[str, ...]
    truth: State | None = field(default=None, repr=False)
    build: Callable[[], nn.Module] = field(default=small, repr=False)

    def model(self) -> nn.Module:
        """Return a new model that the file is meant for, with random parameters: always the same ones."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return self.build()

    def is_repaired(self, model: nn.Module) -> bool:
        """Return whether a model has all that there is to be had from this file. It is not changed."""
        if self.truth is None:
            return False
        own = model.state_dict()
        return all(name in own and same(own[name].detach(), tensor) for name, tensor in self.truth.items())


class Museum(Tabled):
    """The exhibits of a folder, by number or by name; its repr is a table of the stories.

    Attributes:
        folder: Where the files are.
        exhibits: All of them, in the order of the lesson.
    """

    def __init__(self, folder: Path, exhibits: list[Exhibit]) -> None:
        self.folder = folder
        self.exhibits = exhibits

    @property
    def sprung(self) -> bool:
        """Whether the booby trap of one of the files has been run."""
        return trap(self.folder).exists()

    def __getitem__(self, which: int | str) -> Exhibit:
        if isinstance(which, int):
            return self.exhibits[which]
        for exhibit in self.exhibits:
            if exhibit.name == which:
                return exhibit
        raise KeyError(f"the museum has no exhibit {which!r}; it has {', '.join(one.name for one in self)}")

    def __iter__(self) -> Iterator[Exhibit]:
        return iter(self.exhibits)

    def __len__(self) -> int:
        return len(self.exhibits)

    def table(self) -> Table:
        """Return the exhibits as a table: the files and their stories, not what is wrong with them."""
        rows = [[one.name, one.path.name, one.story] for one in self.exhibits]
        return Table(["exhibit", "file", "story"], rows, title=f"{len(self)} files in {self.folder}")

    def to_dict(self) -> list[dict[str, Any]]:
        """Return one dictionary per exhibit."""
        keys = ("name", "story", "finds")
        return [{"path": str(one.path), **{key: getattr(one, key) for key in keys}} for one in self.exhibits]


def trap(folder: Path) -> Path:
    """Return the file that the booby trap makes, and nothing else does."""
    return folder / "THE_TRAP_WAS_SPRUNG"


@dataclass(frozen=True)
class Plan:
    """How an exhibit is made: `make` takes the tensors and the path, and writes the file."""

    make: Callable[[State, Path], State | None]
    story: str
    file: str
    finds: tuple[str, ...]
    build: Callable[[], nn.Module]


PLANS: list[Plan] = []


def exhibit(file: str, *finds: str, build: Callable[[], nn.Module] = small) -> Callable:
    """Declare an exhibit: the function's name is its name, its docstring the story, what it returns the truth."""

    def declare(make: Callable[[State, Path], State | None]) -> Callable:
        PLANS.append(Plan(make, make.__doc__ or "", file, finds, build))
        return make

    return declare
