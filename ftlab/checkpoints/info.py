"""What is in a checkpoint file, as `inspect` found it."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from ftlab.table import Table, Tabled

from .reading.verdicts import DANGEROUS, Verdict

if TYPE_CHECKING:
    from torch import Tensor

SHOWN = 12  # rows of a long table
WIDTH = 100  # characters of a line of a finding
_IN = "    "


@dataclass(frozen=True)
class Place:
    """Where the numbers of a storage are: a file, the first byte and how many bytes; or the bytes themselves."""

    file: Path
    start: int
    size: int
    data: bytes | None = None  # where they stand in the file in another coding


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file, under one name.

    Attributes:
        name: Its name inside its part, such as `conv1.weight`.
        part: The keys that lead to its part; `()` for a plain state_dict.
        shape: Its sizes.
        dtype: Such as `float32`, as torch calls it.
        device: Where it was when it was saved, such as `cuda:0`.
        bytes: Elements times bytes per element.
        storage: The storage that holds its numbers; tensors with the same one share memory.
        offset: Its first element in the storage.
        stride: Elements from one index to the next, for each dimension.
        kind: dense, quantised, sparse, meta (no numbers), array (numpy's) or pieces (of a folder).
    """

    name: str
    part: tuple[str | int, ...]
    shape: tuple[int, ...]
    dtype: str
    device: str
    bytes: int
    storage: str
    offset: int = 0
    stride: tuple[int, ...] = ()
    kind: str = "dense"

    @property
    def key(self) -> str:
        """The part and the name as one text."""
        return ".".join(map(str, [*self.part, self.name]))


@dataclass(frozen=True)
class Part:
    """One thing that a file holds: a model, an optimizer, an epoch."""

    keys: tuple[str | int, ...]  # an int for a place in a list
    kind: str
    about: str
    mixed: bool = False  # whether there is more than tensors among those of a model


@dataclass(frozen=True)
class GlobalInfo:
    """A class or function that a file's pickle asks for.

    Attributes:
        name: Such as `posix.system`.
        verdict: What loading it would mean.
        why: The reason, in a few words.
        use: The first call of it, such as `posix.system('...')`; empty if it is only named.
    """

    name: str
    verdict: Verdict
    why: str
    use: str = ""

    @property
    def dangerous(self) -> bool:
        """Whether loading the file without protection could run code that nobody here knows."""
        return self.verdict in DANGEROUS


@dataclass(frozen=True)
class Finding:
    """One reason why a file does not load, or loads wrongly.

    Attributes:
        kind: A word for it, such as `prefix`.
        seen: What was seen in the file.
        means: What that means, and what to do.
        fix: Python code. The fixes of all findings, run one after the other, load the file into `model`. Empty
            where no code can help.
    """

    kind: str
    seen: str
    means: str
    fix: str = ""

    def __str__(self) -> str:
        lines = [f"seen: {self.seen}", f"means: {self.means}"]
        return "\n".join(
            [self.kind, *(fill(line, WIDTH, initial_indent=_IN, subsequent_indent=_IN) for line in lines)]
        )


@dataclass(repr=False)
class CheckpointInfo(Tabled):
    """The result of `inspect`; its repr is a table of what is in the file.

    Attributes:
        path: The file or folder.
        format: Such as `torch zip`; empty if it is none that is known.
        size: Bytes of the file, or of all files of the folder.
        whole: Whether everything that the file announces is there.
        parts: What it holds: model, optimizer, scheduler, epoch, other.
        tensors: Every tensor.
        globals: Every class and function that its pickle asks for.
        problems: What is wrong with the file itself.
        torch_version: As the file says; empty if it does not.
        instructions: Those of its pickle that PyTorch's safe loader does not know.
        outside: Members of a zip file outside of its folder, for which PyTorch refuses the whole file.
    """

    path: Path
    format: str = ""
    size: int = 0
    whole: bool = True
    parts: list[Part] = field(default_factory=list)
    tensors: list[TensorInfo] = field(default_factory=list)
    globals: list[GlobalInfo] = field(default_factory=list)
    problems: list[Finding] = field(default_factory=list)
    torch_version: str = ""
    instructions: set[str] = field(default_factory=set)
    outside: list[str] = field(default_factory=list)
    places: dict[str, Place] = field(default_factory=dict, repr=False)
    pieces: dict[str, list[tuple[Place, tuple[int, ...]]]] = field(default_factory=dict, repr=False)

    @property
    def dangerous(self) -> list[GlobalInfo]:
        """Those names that could run any code when the file is loaded without protection."""
        return [one for one in self.globals if one.dangerous]

    @property
    def loads_safely(self) -> bool:
        """Whether `torch.load` with its default, `weights_only=True`, accepts what the file asks for."""
        plain = all(one.verdict is Verdict.PLAIN for one in self.globals)
        taken = not self.instructions and not self.outside and self.path.suffix != ".safetensors"
        return self.whole and self.format in ("torch zip", "torch old") and plain and taken

    @property
    def shared(self) -> list[list[str]]:
        """Groups of tensors that are on the same storage."""
        groups = defaultdict(list)
        for tensor in self.tensors:
            if tensor.storage:
                groups[tensor.storage].append(tensor.key)
        return [names for names in groups.values() if len(names) > 1]

    def state_dict(self, *part: str | int) -> dict[str, "Tensor"]:
        """Read the tensors of a part, by name, without running anything in the file.

        That also works where `torch.load` refuses: a whole model, numpy's numbers beside the tensors, a pickle
        that would run a command. Only numbers are read.

        Args:
            *part: The keys that lead to it; none takes the first model.

        Raises:
            ValueError: The file has no such part, or its tensors cannot be read.
        """
        from .tensors import read_tensors

        return read_tensors(self, part)

    def table(self) -> Table:
        """Return the parts, and the largest tensors, as a table."""
        rows = [[".".join(map(str, part.keys)) or "(all)", part.kind, part.about] for part in self.parts[:SHOWN]]
        if len(self.parts) > SHOWN:
            rows.append(["...", f"{len(self.parts) - SHOWN} more", ""])
        return Table(["entry", "what", "about"], rows, title=self._title(), note=self._note())

    def tensor_table(self) -> Table:
        """Return every tensor as a table."""
        together = {name: names for names in self.shared for name in names}
        rows = [
            [
                t.key,
                " x ".join(map(str, t.shape)) or "number",
                t.dtype,
                t.device,
                t.bytes,
                ", ".join(name for name in together.get(t.key, [])[:3] if name != t.key),
            ]
            for t in self.tensors
        ]
        return Table(["tensor", "shape", "dtype", "device", "bytes", "shares memory with"], rows)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain dictionaries and lists."""
        return {
            "path": str(self.path),
            "format": self.format,
            "size": self.size,
            "whole": self.whole,
            "torch_version": self.torch_version,
            "parts": [asdict(part) for part in self.parts],
            "tensors": [asdict(tensor) for tensor in self.tensors],
            "shared": self.shared,
            "globals": [{**asdict(one), "dangerous": one.dangerous} for one in self.globals],
            "problems": [asdict(problem) for problem in self.problems],
        }

    def _title(self) -> str:
        version = f", written by torch {self.torch_version}" if self.torch_version else ""
        whole = "whole" if self.whole else "NOT WHOLE"
        return f"{self.path.name}: {self.format or 'no checkpoint'}, {self.size:,} bytes, {whole}{version}"

    def _note(self) -> str:
        lines = [f"{problem.kind}: {problem.seen}" for problem in self.problems]
        lines += [f"DANGEROUS: {one.name} {one.why}" for one in self.dangerous[:SHOWN]]
        refused = [one.name for one in self.globals if not one.dangerous and one.verdict is not Verdict.PLAIN]
        if refused and self.format in ("torch zip", "torch old"):
            lines.append(f"torch.load refuses, by default: {', '.join(refused[:6])}")
        if self.tensors:
            total = sum(tensor.bytes for tensor in self.tensors)
            kinds = ", ".join(sorted({tensor.dtype for tensor in self.tensors}))
            devices = ", ".join(sorted({tensor.device for tensor in self.tensors}))
            shared = f"; {len(self.shared)} groups share memory" if self.shared else ""
            lines.append(f"{len(self.tensors):,} tensors, {total:,} bytes, {kinds}, on {devices}{shared}")
        return "\n".join(lines)


def models_of(info: CheckpointInfo) -> Mapping[tuple[str | int, ...], list[TensorInfo]]:
    """Return the tensors of each part that is a model."""
    return {
        part.keys: [tensor for tensor in info.tensors if tensor.part == part.keys]
        for part in info.parts
        if part.kind == "model"
    }
