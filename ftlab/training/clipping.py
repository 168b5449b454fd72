"""Gradient clipping: one norm over all gradients, and a record of how often the clip bites."""

from statistics import median
from typing import Any

from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from ftlab.table import Table, Tabled


class GradientClip(Tabled):
    """Clip the gradients of an optimizer to one global norm, and note the norm before; the repr is the table.

    Call it after `backward()` and before `optimizer.step()`. It scales the gradients of all parameters that the
    optimizer owns by one and the same factor, so that their common norm is at most `max_norm`: the direction of
    the step stays. Smaller gradients are left alone.

    The trap: `clip_grad_norm_(model.parameters(), ...)` also counts parameters that no optimizer owns. Nobody
    clears their gradients, so these grow from step to step, and the clip bites harder and harder for no reason.

    Args:
        optimizer: What it owns is clipped.
        max_norm: The largest norm that is let through; `float("inf")` only measures.
        scaler: For float16: its gradients are unscaled first. A clip of scaled ones would make the step vanish.

    Attributes:
        norms: The norm before clipping, one number per call.

    Raises:
        ValueError: `max_norm` is not above 0.

    Example:
        >>> import torch
        >>> weight = nn.Parameter(torch.zeros(2))
        >>> clip = GradientClip(torch.optim.SGD([weight]), max_norm=1.0)
        >>> (weight @ torch.tensor([3.0, 4.0])).backward()
        >>> clip(), weight.grad
        (5.0, tensor([0.6000, 0.8000]))
    """

    def __init__(self, optimizer: Optimizer, max_norm: float, *, scaler: GradScaler | None = None) -> None:
        if not max_norm > 0:
            raise ValueError(f"max_norm must be above 0, not {max_norm}; float('inf') measures without clipping")
        self.optimizer, self.max_norm, self.scaler = optimizer, max_norm, scaler
        self.norms: list[float] = []

    def __call__(self) -> float:
        """Clip the gradients that are there now, and return their norm before.

        Raises:
            RuntimeError: There is no gradient.
            FloatingPointError: A gradient is no number, and no scaler is there to skip the step. The gradients
                are as before: to clip one NaN would make every gradient NaN.
        """
        owned = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not owned:
            raise RuntimeError(
                "no parameter of the optimizer has a gradient; clip after backward() and before zero_grad()"
            )
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm([p.grad for p in owned])
        self.norms.append(norm.item())
        if norm.isfinite():
            nn.utils.clip_grads_with_norm_(owned, self.max_norm, norm)
        elif self.scaler is None or not self.scaler.is_enabled():  # an enabled one will skip the step
            bad = sum(not p.grad.isfinite().all() for p in owned)
            raise FloatingPointError(
                f"the norm of the gradients is {norm.item()}: {bad} of {len(owned)} tensors have a gradient that "
                "is no number. Look at the loss of this batch, or try a smaller learning rate"
            )
        return self.norms[-1]

    @property
    def clipped(self) -> float:
        """The share of the calls in which the norm was above `max_norm`."""
        return share_above(self.norms, self.max_norm)

    def table(self) -> Table:
        """Return how large the norms were, and how often the clip bit."""
        if not self.norms:
            return Table([], [], note=f"clip at {self.max_norm:g}: not called yet")
        row = [len(self.norms), min(self.norms), median(self.norms), max(self.norms), f"{self.clipped:.0%}"]
        headers = ["steps", "smallest norm", "median", "largest", f"above {self.max_norm:g}"]
        return Table(headers, [row])

    def plot(self):
        """Return a picture of the norms, step by step, with the line that they are clipped at."""
        from ftlab.training.picture import draw_norms

        return draw_norms(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the norms and the limit as plain numbers."""
        return {"max_norm": self.max_norm, "norms": list(self.norms), "clipped": self.clipped}


def share_above(norms: list[float], limit: float) -> float:
    """Return the share of the norms that are above the limit, or no number; 0 if there are none.

    Example:
        >>> share_above([0.5, 2.0, float("nan"), 1.0], 1.0)
        0.5
    """
    return sum(not norm <= limit for norm in norms) / len(norms) if norms else 0.0
