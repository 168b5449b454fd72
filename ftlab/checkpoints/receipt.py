"""Load tensors into a model, all or nothing, and prove what has changed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any, Literal

from torch import Tensor, nn

from ftlab.freezing.evidence import named_tensors
from ftlab.freezing.snapshot import Snapshot, same
from ftlab.parts import by_part
from ftlab.table import Table, Tabled

from .info import SHOWN
from .inspection import inspect


@dataclass(frozen=True)
class TensorReceipt:
    """One tensor of the model after loading.

    Attributes:
        name: Its name in the model.
        done: loaded (it now has the file's values) or kept (it is as it was).
        why: Why it was kept; empty if it was loaded.
        elements: How many numbers it has.
        changed: How many of them are now different from before.
    """

    name: str
    done: Literal["loaded", "kept"]
    why: str
    elements: int
    changed: int


class LoadReceipt(Tabled):
    """The result of `load_into`: what really changed; its repr is a table by part of the model.

    Attributes:
        tensors: One `TensorReceipt` for each tensor of the model.
        skipped: The tensors of the file that were not used, with the reason.
    """

    def __init__(self, tensors: list[TensorReceipt], skipped: dict[str, str]) -> None:
        self.tensors = tensors
        self.skipped = skipped

    @property
    def kept(self) -> dict[str, str]:
        """The tensors of the model that are as they were, with the reason."""
        return {tensor.name: tensor.why for tensor in self.tensors if tensor.done == "kept"}

    @property
    def share_of_tensors(self) -> float:
        """The share of the model's tensors that were loaded, from 0 to 1."""
        return _share(sum(tensor.done == "loaded" for tensor in self.tensors), len(self.tensors))

    @property
    def share_of_elements(self) -> float:
        """The share of the model's numbers that were loaded, from 0 to 1."""
        return _share(
            sum(tensor.elements for tensor in self.tensors if tensor.done == "loaded"),
            sum(tensor.elements for tensor in self.tensors),
        )

    @property
    def changed_tensors(self) -> float:
        """The share of the model's tensors that have other values than before, from 0 to 1."""
        return _share(sum(tensor.changed > 0 for tensor in self.tensors), len(self.tensors))

    @property
    def changed_elements(self) -> float:
        """The share of the model's numbers that are other ones than before, from 0 to 1."""
        return _share(sum(t.changed for t in self.tensors), sum(t.elements for t in self.tensors))

    def table(self) -> Table:
        """Return the receipt as a table with a row per part of the model."""
        parts = by_part({tensor.name: tensor for tensor in self.tensors})
        rows = [
            [
                part,
                len(tensors),
                sum(t.done == "loaded" for t in tensors),
                f"{_share(sum(t.changed for t in tensors), sum(t.elements for t in tensors)):.1%}",
                ", ".join(dict.fromkeys(t.why for t in tensors if t.why)),
            ]
            for part, tensors in parts.items()
        ]
        headers = ["part", "tensors", "loaded", "numbers changed", "kept because"]
        return Table(headers, rows, title=self._title(), note=self._note())

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain dictionaries and lists."""
        return {"tensors": [asdict(tensor) for tensor in self.tensors], "skipped": self.skipped}

    def _title(self) -> str:
        count = sum(tensor.done == "loaded" for tensor in self.tensors)
        return (
            f"{count} of {len(self.tensors)} tensors were loaded, {self.share_of_elements:.1%} of the numbers; "
            f"{self.changed_elements:.1%} of the numbers are other ones than before."
        )

    def _note(self) -> str:
        lines = [f"skipped {name}: {why}" for name, why in list(self.skipped.items())[:SHOWN]]
        more = len(self.skipped) - SHOWN
        return "\n".join([*lines, f"... and {more} more skipped"] if more > 0 else lines)


def load_into(
    model: nn.Module, path: str | PathLike | Mapping[str, Tensor], *, part: str = "", at_least: float = 0.5
) -> LoadReceipt:
    """Load what has the same name and shape into a model, and prove what changed. The model is changed.

    All or nothing: where it raises, whatever the reason, every tensor of the model is as it was. A tensor of
    another dtype or device is converted to the model's.

    The trap: `load_state_dict(strict=False)` is quiet about a file of which nothing fits, and where it raises
    about a shape, it has loaded all the others already. Here too little is an error, and after an error the model
    is as it was.

    Args:
        model: Any model, not on the meta device.
        path: A file that `inspect` reads, or a state_dict.
        part: The entry of the file that is the model, such as `model` or `state_dict`; none takes the first.
        at_least: The share of the model's tensors, and of its numbers, that has to come from the file, 0 to 1.

    Raises:
        ValueError: Too little fits, or the file cannot be read. `diagnose` says why, and mends most cases.
        FileNotFoundError: There is no such file.

    Example:
        >>> import torch
        >>> model = nn.Linear(2, 3)
        >>> load_into(model, {"weight": torch.ones(3, 2), "bias": torch.ones(3)}).changed_elements
        1.0
        >>> load_into(model, {"module.weight": torch.zeros(3, 2)})
        Traceback (most recent call last):
        ValueError: only 0 of 2 tensors of this Linear fit ... the file has 'module.weight'; ...
    """
    if isinstance(path, Mapping):
        return load_tensors(model, path, at_least=at_least)
    state = inspect(path, checksums=True).state_dict(*filter(None, part.split(".")))
    return load_tensors(model, state, at_least=at_least, name=str(path))


def load_tensors(
    model: nn.Module, state: Mapping[str, Tensor], *, at_least: float = 0.5, name: str = "the file"
) -> LoadReceipt:
    """Load tensors that fit; see `load_into`."""
    if not 0 <= at_least <= 1:
        raise ValueError(f"at_least is a share from 0 to 1, not {at_least}")
    own = {key: value for key, value in model.state_dict().items() if isinstance(value, Tensor)}
    taken, skipped = _sorted_out(own, state)
    _enough(model, own, taken, state, at_least, name)
    before = Snapshot(model)
    try:
        model.load_state_dict(taken, strict=False)
        return LoadReceipt(_receipts(model, own, taken, state, before), skipped)
    except BaseException:  # also a keyboard interrupt: a model is never left half loaded
        before.restore()
        raise


def _sorted_out(own: Mapping[str, Tensor], state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return what fits, and why the rest does not."""
    taken, skipped = {}, {}
    for key, value in state.items():
        if key not in own:
            skipped[key] = "the model has no tensor of this name"
        elif not isinstance(value, Tensor):
            skipped[key] = f"it is no tensor but a {type(value).__name__}"
        elif value.shape != own[key].shape:
            skipped[key] = f"its shape is {tuple(value.shape)}, the model's {tuple(own[key].shape)}"
        elif value.is_meta:
            skipped[key] = "it has no values (meta device)"
        else:
            taken[key] = value
    return taken, skipped


def _enough(model, own, taken, state, at_least: float, name: str) -> None:
    """Refuse to load too little."""
    if any(tensor.is_meta for tensor in own.values()):
        raise ValueError(
            "the model is on the meta device and has no memory; model.to_empty(device='cpu') gives it"
        )
    tensors = _share(len(taken), len(own))
    elements = _share(sum(own[key].numel() for key in taken), sum(t.numel() for t in own.values()))
    if min(tensors, elements) < at_least:
        theirs, ours = (", ".join(map(repr, list(names)[:2])) or "nothing" for names in (state, own))
        raise ValueError(
            f"only {len(taken)} of {len(own)} tensors of this {type(model).__name__} fit ({elements:.0%} of its "
            f"numbers, at_least={at_least:.0%}), so nothing was loaded: the file has {theirs}; the model {ours}. "
            f"ftlab.checkpoints.diagnose says why {name} does not fit"
        )


def _receipts(model, own, taken, state, before: Snapshot) -> list[TensorReceipt]:
    """Compare each tensor with what it was, and with what it should be."""
    now = named_tensors(model)
    found = []
    for key, tensor in own.items():
        old = before.values.get(id(now.get(key)), tensor)
        changed = _different(tensor, old)
        if key in taken and not same(tensor.detach(), taken[key].detach().to(tensor)):
            why = "the model put something else in its place while loading"
        elif key in taken:
            why = ""
        else:
            why = "the file's has another shape" if key in state else "it is not in the file"
        found.append(TensorReceipt(key, "kept" if why else "loaded", why, tensor.numel(), changed))
    return found


def _different(one: Tensor, other: Tensor) -> int:
    """Return how many numbers differ; NaN equals NaN."""
    one, other = one.detach(), other.detach()
    if one.shape != other.shape:
        return one.numel()
    return int(((one != other) & ~((one != one) & (other != other))).sum())


def _share(some: float, all_of_them: float) -> float:
    return some / all_of_them if all_of_them else 0.0
