"""Do outputs, targets and loss fit together? What raises, and what is silently wrong."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ftlab.given import expect
from ftlab.table import Table, Tabled


@dataclass(frozen=True)
class Misfit:
    """One thing that does not fit.

    Attributes:
        what: What was found.
        why: What follows from it.
        repair: What to write instead; empty if it does no harm.
    """

    what: str
    why: str
    repair: str = ""


@dataclass(frozen=True, repr=False)
class TargetCheck(Tabled):
    """What was found in outputs and targets for a loss; the repr is the table.

    Attributes:
        loss: The name of the loss.
        misfits: What does not fit; a misfit without a repair does no harm.
    """

    loss: str
    misfits: list[Misfit]

    @property
    def ok(self) -> bool:
        """Whether nothing needs a repair."""
        return not any(misfit.repair for misfit in self.misfits)

    def table(self) -> Table:
        """Return one row per misfit."""
        if not self.misfits:
            return Table([], [], note=f"outputs and targets fit {self.loss}")
        rows = [[misfit.what, misfit.why, misfit.repair or "(harmless)"] for misfit in self.misfits]
        return Table(["found", "so", "write"], rows, title=self.loss)

    def to_dict(self) -> dict[str, Any]:
        """Return the name of the loss and the misfits."""
        return {"loss": self.loss, "misfits": [asdict(misfit) for misfit in self.misfits]}


def check_targets(outputs: Tensor, targets: Tensor, loss: Callable = F.cross_entropy) -> TargetCheck:
    """Say whether these outputs and targets are what the loss wants. Nothing is changed, nothing raises.

    The trap: half of the mistakes raise nothing. Probabilities in `cross_entropy` train, badly; a loss on one
    column is always 0; targets of another shape are broadcast, with a warning at most.

    Args:
        outputs: What the model gave, (N, classes), or (N, 1) or (N,) for two classes with one output.
        targets: What the loss is given: class numbers (N,), or one number per output.
        loss: A loss of PyTorch, as a function or module: `cross_entropy`, `nll_loss`, `mse_loss`, `l1_loss` or
            `binary_cross_entropy_with_logits`.

    Raises:
        ValueError: Nothing is known about this loss.

    Example:
        >>> import torch
        >>> check_targets(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0, 1])).ok
        False
    """
    expect(outputs, Tensor, "what the model gave", "check_targets(outputs, targets)")
    expect(targets, Tensor, "what the loss is given", "check_targets(outputs, targets)")
    name = _name(loss)
    outputs, targets = outputs.detach(), targets.detach()
    return TargetCheck(name, _CHECKS[name](outputs, targets))


def _name(loss: Callable) -> str:
    own = getattr(loss, "__name__", type(loss).__name__)
    modules = {
        "CrossEntropyLoss": "cross_entropy",
        "NLLLoss": "nll_loss",
        "MSELoss": "mse_loss",
        "L1Loss": "l1_loss",
        "BCEWithLogitsLoss": "binary_cross_entropy_with_logits",
    }
    name = modules.get(own, own)
    if name not in _CHECKS:
        raise ValueError(f"nothing is known about the loss {own!r}, only about {', '.join(_CHECKS)}")
    return name


def _cross_entropy(outputs: Tensor, targets: Tensor) -> list[Misfit]:
    misfits = _one_column(outputs) + _probabilities(outputs)
    if targets.shape == outputs.shape and outputs.ndim > 1:
        return misfits + _soft(targets)
    return misfits + _class_numbers(outputs, targets)


def _nll(outputs: Tensor, targets: Tensor) -> list[Misfit]:
    misfits = [] if _are_log_probabilities(outputs) else [_no_log_probabilities(outputs)]
    return misfits + _class_numbers(outputs, targets)


def _no_log_probabilities(outputs: Tensor) -> Misfit:
    kind = "probabilities" if _are_probabilities(outputs) else "scores"
    why = "nll_loss only picks the number of the right class: minus that can fall without end"
    return Misfit(f"the outputs are {kind}, no log-probabilities", why, "F.cross_entropy(logits, targets)")


def _same_shape(outputs: Tensor, targets: Tensor) -> list[Misfit]:
    if outputs.shape == targets.shape:
        return []
    shapes = f"outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}"
    if outputs.ndim == 2 and outputs.shape[1] > 1 and targets.ndim == 1:
        why = "class numbers are no targets for this loss; they are broadcast if N equals the number of classes"
        return [Misfit(shapes, why, f"F.one_hot(targets, {outputs.shape[1]}).float()")]
    why = "each output is compared with each target, or it raises"
    return [Misfit(shapes, why, f"targets.view({', '.join(map(str, outputs.shape))}), or outputs.squeeze(1)")]


def _binary(outputs: Tensor, targets: Tensor) -> list[Misfit]:
    misfits = _same_shape(outputs, targets)
    if not targets.is_floating_point():
        misfits.append(Misfit(f"targets of type {targets.dtype}", "it raises", "targets.float()"))
    if outputs.numel() > 2 and outputs.min() >= 0 and outputs.max() <= 1:
        why = "as if they had gone through sigmoid; this loss does that itself"
        misfits.append(Misfit("all outputs are from 0 to 1", why, "the outputs without sigmoid"))
    if targets.numel() and (targets.min() < 0 or targets.max() > 1):
        found = f"targets from {targets.min().item():g} to {targets.max().item():g}"
        misfits.append(Misfit(found, "the loss can fall without end", "targets from 0 to 1"))
    return misfits


def _one_column(outputs: Tensor) -> list[Misfit]:
    if outputs.ndim < 2 or outputs.shape[1] != 1:
        return []
    why = "softmax of one number is 1, so the loss is always 0"
    return [
        Misfit(
            "one column of outputs",
            why,
            "F.binary_cross_entropy_with_logits(outputs.squeeze(1), targets.float())",
        )
    ]


def _probabilities(outputs: Tensor) -> list[Misfit]:
    if outputs.ndim < 2 or outputs.shape[1] == 1:
        return []
    if _are_probabilities(outputs):
        count = outputs.shape[1]
        floor = math.log(math.e + count - 1) - 1  # of the surest and rightest output that there is
        why = (
            f"softmax is applied again: the loss of a perfect answer is {floor:.2f}, and the gradients are small"
        )
        return [Misfit("the outputs are probabilities", why, "the logits, without softmax")]
    if _are_log_probabilities(outputs):
        return [Misfit("the outputs are log-probabilities", "log_softmax twice is log_softmax: the same loss")]
    return []


def _are_probabilities(outputs: Tensor) -> bool:
    return bool(outputs.numel() and outputs.min() >= 0 and _near(outputs.sum(-1) - 1))


def _are_log_probabilities(outputs: Tensor) -> bool:
    return bool(outputs.numel() and outputs.max() <= 0 and _near(outputs.float().logsumexp(-1)))


def _near(zeros: Tensor) -> bool:
    return bool((zeros.abs() < 1e-2).all())  # bfloat16 has two to three digits


def _soft(targets: Tensor) -> list[Misfit]:
    if not targets.is_floating_point():
        return [
            Misfit(
                f"one-hot targets of type {targets.dtype}", "it raises", "targets.float(), or targets.argmax(1)"
            )
        ]
    if targets.min() < 0 or not _near(targets.sum(1) - 1):
        return [
            Misfit("target rows that are no probabilities", "images weigh differently", "rows that sum up to 1")
        ]
    return []


def _class_numbers(outputs: Tensor, targets: Tensor) -> list[Misfit]:
    misfits = []
    if targets.ndim == 2 and targets.shape[1] == 1:
        misfits.append(Misfit(f"targets of shape {tuple(targets.shape)}", "it raises", "targets.squeeze(1)"))
    elif targets.shape != outputs.shape[:1]:
        shapes = f"outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}"
        misfits.append(Misfit(shapes, "it raises", f"one class number per image: a tensor ({len(outputs)},)"))
    if str(targets.dtype) not in ("torch.int64", "torch.uint8"):
        misfits.append(Misfit(f"class numbers of type {targets.dtype}", "it raises", "targets.long()"))
    count = outputs.shape[-1]
    if targets.numel() and (targets.min() < 0 or targets.max() >= count) and count > 1:
        found = f"class numbers {targets.min().item():g} to {targets.max().item():g} for {count} outputs"
        misfits.append(
            Misfit(
                found, "it raises, on a GPU in a later line", f"class numbers 0 to {count - 1}, or a wider head"
            )
        )
    return misfits


_CHECKS = {
    "cross_entropy": _cross_entropy,
    "nll_loss": _nll,
    "mse_loss": _same_shape,
    "l1_loss": _same_shape,
    "binary_cross_entropy_with_logits": _binary,
}
