"""What an audit found: for every tensor whether it moved, by how much, and why."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from ftlab.parts import by_part
from ftlab.table import Table, Tabled

from .causes import ADVICE, Cause, Hindrance

if TYPE_CHECKING:
    from ftlab.plots import Picture


@dataclass(frozen=True)
class TensorAudit:
    """One tensor of the model, under one of its names."""

    name: str
    kind: Literal["parameter", "buffer"]
    frozen: bool  # a buffer is frozen if the parameters around it are
    verdict: Literal["moved", "stuck", "held"]
    causes: tuple[Cause | Hindrance, ...]
    reason: str
    change: float  # the largest absolute change of a value; NaN where it has none


class FreezeAudit(Tabled):
    """The result of `audit`; its repr is a table of the model's parts.

    Attributes:
        tensors: One `TensorAudit` per name, in the model's order.
        steps: How many steps were run.
        strangers: How many tensors the optimizers hold that are not in the model.
    """

    def __init__(self, tensors: Iterable[TensorAudit], steps: int = 1, strangers: int = 0) -> None:
        self.tensors = list(tensors)
        self.steps = steps
        self.strangers = strangers

    @property
    def moved(self) -> dict[str, str]:
        """The tensors that changed, each with its reason."""
        return {tensor.name: tensor.reason for tensor in self.tensors if tensor.verdict == "moved"}

    @property
    def stuck(self) -> dict[str, str]:
        """The trainable parameters that did not change, each with its reason."""
        return {tensor.name: tensor.reason for tensor in self.tensors if tensor.verdict == "stuck"}

    @property
    def held(self) -> list[str]:
        """The rest: tensors that did not change and were not meant to."""
        return [tensor.name for tensor in self.tensors if tensor.verdict == "held"]

    @property
    def leaks(self) -> dict[str, str]:
        """The tensors in frozen parts that changed all the same, each with its reason."""
        return {t.name: t.reason for t in self.tensors if t.verdict == "moved" and t.frozen}

    def parts(self) -> dict[str, list[TensorAudit]]:
        """Return the tensors by part of the model: a part that has more than half of them is split up."""
        return by_part({tensor.name: tensor for tensor in self.tensors})

    def table(self) -> Table:
        """Return the audit as a table with a row per part of the model."""
        rows = [
            [
                part,
                _share(sum(t.frozen for t in tensors), len(tensors)),
                _count(tensors, "moved"),
                _count(tensors, "stuck"),
                _count(tensors, "held"),
                max((t.change for t in tensors if Cause.COUNTER not in t.causes), default=0.0) or None,
                _reasons(tensors),
            ]
            for part, tensors in self.parts().items()
        ]
        headers = ["part", "frozen", "moved", "stuck", "held", "largest change", "why (tensors)"]
        return Table(headers, rows, title=self._verdict(), note=self._advice())

    def plot(self) -> "Picture":
        """Return a picture: the model as a strip of tensors, from first to last, moved or held."""
        from .picture import strip

        return strip(self)

    def to_dict(self) -> dict:
        """Return everything as plain dictionaries and lists."""
        return {"steps": self.steps, "strangers": self.strangers, "tensors": [asdict(t) for t in self.tensors]}

    def _verdict(self) -> str:
        frozen = sum(tensor.frozen for tensor in self.tensors)
        steps = "1 step" if self.steps == 1 else f"{self.steps} steps"
        leaks = f"{len(self.leaks)} of the {frozen} frozen ones" if frozen else "none was frozen"
        return (
            f"After {steps} {len(self.moved)} of {len(self.tensors)} tensors have moved ({leaks}); "
            f"{len(self.stuck)} trainable ones have not."
        )

    def _advice(self) -> str:
        wrong = [t for t in self.tensors if t.verdict == "stuck" or t.name in self.leaks]
        causes = dict.fromkeys(cause for tensor in wrong for cause in tensor.causes)
        lines = [f"{_plain(cause)}: {ADVICE[cause]}" for cause in causes if cause in ADVICE]
        if self.strangers:
            lines.append(
                f"the optimizer holds {self.strangers} tensors that are not in this model: "
                f"was a part replaced after the optimizer was built?"
            )
        return "\n".join(lines)


def describe(causes: Iterable[Cause | Hindrance], frozen: bool, twin: str = "") -> str:
    """Return causes as a phrase; `twin` is the other name or tensor that a tie leads to."""
    before = "before the freeze" if frozen else "earlier steps"
    texts = [cause.replace("{before}", before) for cause in causes]
    return "; ".join(f"{text} to {twin}" if text == Cause.TIE and twin else text for text in texts)


def _plain(cause: Cause | Hindrance) -> str:
    return describe([cause], frozen=True)


def _share(some: int, all_of_them: int) -> str:
    return {0: "no", all_of_them: "yes"}.get(some, f"{some} of {all_of_them}")


def _count(tensors: list[TensorAudit], verdict: str) -> int:
    return sum(tensor.verdict == verdict for tensor in tensors)


def _reasons(tensors: list[TensorAudit]) -> str:
    count = Counter(describe(tensor.causes, tensor.frozen) for tensor in tensors if tensor.causes)
    return ", ".join(f"{reason} ({number})" for reason, number in count.items())
