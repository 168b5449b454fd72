"""What a diagnosis is: findings, each with a fix as code, and the script that they make together."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ftlab.plural import plural
from ftlab.table import Table, Tabled

from .info import CheckpointInfo, Finding
from .receipt import LoadReceipt, load_tensors

SHOWN = 5


@dataclass
class Diagnosis(Tabled):
    """The result of `diagnose`; its repr has the findings, and the code that loads the file.

    Attributes:
        findings: In the order in which their fixes run; empty if the file fits as it is.
        fix: The whole code: `model` is the model that was given. Empty if nothing can be loaded.
        unloaded: Tensors of the model that the file does not fill, by name.
        unused: Tensors of the file that the model has no place for, by name.
        info: What is in the file; None if tensors were given.
    """

    model: nn.Module
    findings: list[Finding] = field(default_factory=list)
    fix: str = ""
    unloaded: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    info: CheckpointInfo | None = None
    state: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def path(self) -> Path | None:
        """The file; None if tensors were given."""
        return self.info.path if self.info else None

    def __bool__(self) -> bool:
        """Whether there are findings."""
        return bool(self.findings)

    def apply(self, *, at_least: float = 0.5) -> LoadReceipt:
        """Load the file into the model, with all fixes, and return the receipt. The model is changed.

        All or nothing: where it raises, the model is as it was.

        Args:
            at_least: The share of the model's tensors, and of its elements, that has to come from the file.

        Raises:
            ValueError: Nothing can be loaded, or less than `at_least`.
        """
        if not self.fix or not self.state:
            reasons = "; ".join(f"{one.kind}: {one.seen}. {one.means}" for one in self.findings)
            raise ValueError(f"nothing of it can be loaded into this {type(self.model).__name__}. {reasons}")
        return load_tensors(self.model, self.state, at_least=at_least)

    def table(self) -> Table:
        """Return the findings as a table."""
        rows = [[one.kind, one.seen, one.means] for one in self.findings]
        return Table(["finding", "seen", "means"], rows, title=self._title(), note=self._note())

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain dictionaries and lists."""
        return {
            "path": str(self.path) if self.path else None,
            "findings": [asdict(one) for one in self.findings],
            "fix": self.fix,
            "unloaded": self.unloaded,
            "unused": self.unused,
        }

    def __repr__(self) -> str:
        return "\n\n".join(filter(None, [self._title(), *map(str, self.findings), self._note()]))

    def _title(self) -> str:
        name = self.path.name if self.path else "the state_dict"
        count = len(self.findings)
        found = "fits as it is" if not count else plural(count, "finding")
        return f"{name} for this {type(self.model).__name__}: {found}"

    def _note(self) -> str:
        lines = []
        if self.fix:
            lines.append(f"Stays as it was: {_names(self.unloaded)}.")
            if self.unused:
                lines.append(f"Not used from the file: {_names(self.unused)}.")
            lines += ["", self.fix]
        return "\n".join(lines)


def _names(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) + more) if names else "nothing"


@dataclass
class Case:
    """What the finders work on: the model's tensors, the file's, and what has been found so far.

    A finder adds a finding with the code of its step. The step is run here at once: the code that is shown is
    the code that is done.
    """

    model: nn.Module
    state: dict[str, Tensor]
    findings: list[Finding] = field(default_factory=list)
    loading: str = ""  # replaces the last lines, where another model has to be built
    hopeless: bool = False  # what would fit belongs to another model
    explained: set[str] = field(default_factory=set)  # names of the model that a finding leaves out

    def __post_init__(self) -> None:
        own = self.model.state_dict()
        self.own: dict[str, Tensor] = {name: t for name, t in own.items() if isinstance(t, Tensor)}

    def found(self, kind: str, seen: str, means: str, step: str = "") -> None:
        """Add a finding, and run its step on the tensors of the file."""
        if step:
            names: dict[str, Any] = {"state": self.state, "model": self.model}
            exec(step, names)  # our own code; names from the file stand in it as literals only
            self.state = names["state"]
        self.findings.append(Finding(kind, seen, means, step))

    def fitting(self, state: Mapping[str, Tensor] | None = None) -> list[str]:
        """Return the names that the model has too, with the same shape."""
        state = self.state if state is None else state
        return [name for name, t in state.items() if name in self.own and self.own[name].shape == t.shape]

    @property
    def missing(self) -> list[str]:
        """Names of the model that the file does not have."""
        return [name for name in self.own if name not in self.state]

    @property
    def extra(self) -> list[str]:
        """Names of the file that the model does not have."""
        return [name for name in self.state if name not in self.own]

    @property
    def misfits(self) -> list[str]:
        """Names that both have, with different shapes."""
        return [n for n, t in self.state.items() if n in self.own and self.own[n].shape != t.shape]
