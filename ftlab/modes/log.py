"""What `who_changed` has seen: the changes, and the mode of every module in every forward pass."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from ftlab.modes.mapping import effect_of, shorten, word
from ftlab.parts import by_part
from ftlab.table import Table, Tabled

if TYPE_CHECKING:
    from ftlab.plots import Picture

TRAIN, EVAL, MIXED = "T", "e", "~"


@dataclass(frozen=True)
class ModeChange:
    """Modules that one line of code put in another mode.

    Attributes:
        modules: Their names.
        training: The mode that they are in since: True is train mode.
        after: How many forward passes there had been.
        where: The line of the learner's code, such as "line 3 of validate".
        source: What stands in that line.
        library: The function of a library that was called there and did it; "" if the line did it itself.
    """

    modules: tuple[str, ...]
    training: bool
    after: int
    where: str
    source: str
    library: str


class ModeLog(Tabled):
    """The changes of modes while a block of code ran; the repr is the table.

    Attributes:
        forwards: For each forward pass of the model the modules, by name, with their flag at its end.
        started: The flag of each module at the beginning.
        ended: The flag of each module at the end; of the moment, as long as the block runs.
    """

    def __init__(self, model: nn.Module) -> None:
        self._changes: list[tuple[dict[str, None], tuple]] = []  # names, in order; the rest of a ModeChange
        self.forwards: list[dict[str, bool]] = []
        self.started, self.ended = _flags(model), _flags(model)
        self._matter = [name for name, module in model.named_modules() if effect_of(module)]
        self._size = len(self.started)

    @property
    def changes(self) -> list[ModeChange]:
        """What was changed, in order; neighbours by the same line are one."""
        return [ModeChange(tuple(names), *rest) for names, rest in self._changes]

    @property
    def woken(self) -> list[str]:
        """The modules that were in eval mode inside a model in train mode at first, and are in train mode now."""
        held = [name for name, flag in self.started.items() if not flag and self.started[""]]
        return [name for name in held if self.ended.get(name)]

    @property
    def left(self) -> list[str]:
        """The modules that do not have the mode any more that they had at first."""
        return [name for name, flag in self.started.items() if self.ended.get(name, flag) != flag]

    def table(self) -> Table:
        """Return a row per change."""
        rows = [
            [change.after, word(change.training), self._which(change), _who(change)] for change in self.changes
        ]
        title = f"{len(rows)} changes of mode around {len(self.forwards)} forward passes."
        return Table(["after passes", "to", "modules", "by"], rows, title=title, note=self._note())

    def strip(self) -> Table:
        """Return the mode of each part in each forward pass: T for train, e for eval, ~ for some of both.

        Only modules count to which the mode matters, such as batch norm and dropout.
        """
        parts = by_part({name: name for name in self._matter})
        rows = [[part or "model", len(names), _runs(self._letters(names))] for part, names in parts.items()]
        return Table(["part", "modules", "forward passes"], rows, note="T train, e eval, ~ some of both")

    def plot(self) -> "Picture":
        """Return the strip as a picture: a row per module to which the mode matters, a column per pass."""
        from ftlab.modes.picture import draw

        return draw(self)

    def to_dict(self) -> dict[str, Any]:
        """Return changes and forward passes for a program."""
        return {"changes": [asdict(change) for change in self.changes], "forwards": list(self.forwards)}

    def _which(self, change: ModeChange) -> str:
        return "all" if len(change.modules) == self._size else shorten(list(change.modules))

    def _note(self) -> str:
        if self.woken:
            return f"Woken: in eval mode within a model in train mode, now in train mode: {shorten(self.woken)}"
        if self.left:
            return f"Not in the mode of the beginning any more: {shorten(self.left)}"
        return "Every module ends in the mode in which it began."

    def _letters(self, names: list[str]) -> str:
        return "".join(_letter([flags[name] for name in names if name in flags]) for flags in self.forwards)

    def _changed(self, name: str, training: bool, where: str, source: str, library: str) -> None:
        rest = (training, len(self.forwards), where, source, library)
        if not self._changes or self._changes[-1][1] != rest or name in self._changes[-1][0]:
            self._changes.append(({}, rest))
        self._changes[-1][0][name] = None
        self.ended[name] = training

    def _ran(self, model: nn.Module) -> None:
        flags = _flags(model)
        # a long training is one dictionary, not one per pass, as long as nothing changes
        self.forwards.append(self.forwards[-1] if self.forwards and self.forwards[-1] == flags else flags)

    def _end(self, model: nn.Module) -> None:
        self.ended = _flags(model)


def _flags(model: nn.Module) -> dict[str, bool]:
    return {name: module.training for name, module in model.named_modules()}


def _letter(flags: list[bool]) -> str:
    if not flags:
        return " "
    return TRAIN if all(flags) else EVAL if not any(flags) else MIXED


def _runs(letters: str, show: int = 40) -> str:
    return letters if len(letters) <= show else f"{letters[:show]} ..."


def _who(change: ModeChange) -> str:
    line = f"{change.where}: {change.source}" if change.source else change.where
    return f"{line} ({change.library})" if change.library else line
