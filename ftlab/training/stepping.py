"""From a loss to a step: scale, accumulate, unscale, clip, step, schedule, in the only right order."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ftlab.nearest import nearest
from ftlab.training.clipping import GradientClip

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Stepper:
    """Make steps of `optimizer` out of the losses of batches: what `fit` does after the forward pass.

    Args:
        optimizer: Makes the steps.
        device: Where the model is.
        clip: The largest global norm of the gradients; None does not clip.
        accumulate: Batches per step. Each image of the window counts the same, also where the window is cut short
            by the end of the epoch or a batch is smaller: the step is that of one large batch.
        precision: Of the forward pass: "float32", "bfloat16" or "float16". Parameters stay float32.
        scheduler: Is stepped after each optimizer step that was made; None leaves that to the caller.

    Raises:
        ValueError: An option is out of range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        device: torch.device,
        *,
        clip: float | None = None,
        accumulate: int = 1,
        precision: str = "float32",
        scheduler: LRScheduler | None = None,
    ) -> None:
        if accumulate < 1:
            raise ValueError(f"accumulate is the number of batches per step, at least 1, not {accumulate}")
        if precision not in PRECISIONS:
            raise ValueError(f"no precision {precision!r}; {nearest(precision, PRECISIONS)}")
        self.optimizer, self.device, self.scheduler = optimizer, device, scheduler
        self.accumulate, self.dtype = accumulate, PRECISIONS[precision]
        # Only float16 has so small a range that gradients must be scaled; a disabled scaler hands all through.
        self.scaler = GradScaler(device.type, enabled=precision == "float16")
        self.clip = None if clip is None else GradientClip(optimizer, clip, scaler=self.scaler)
        self.batches, self.images, self.first = 0, 0, 0

    @property
    def norms(self) -> list[float]:
        """The norms of the gradients before clipping, step by step; empty if nothing is clipped."""
        return self.clip.norms if self.clip else []

    def autocast(self) -> AbstractContextManager:
        """Return the context of a forward pass and its loss, in the chosen precision."""
        return torch.autocast(
            self.device.type, dtype=self.dtype or torch.bfloat16, enabled=self.dtype is not None
        )

    def begin(self) -> None:
        """Clear the gradients, if a new window of batches begins."""
        if self.batches == 0:
            self.optimizer.zero_grad()

    def add(self, value: Tensor, images: int) -> None:
        """Run backward for the mean loss of a batch of so many images; make the step when the window is full."""
        self.first = self.first if self.batches else images
        # Weighted against the first batch: equal batches keep the size of their gradients until they are divided.
        weighted = value if self.accumulate == 1 else value * (images / self.first)
        self.scaler.scale(weighted).backward()
        self.batches, self.images = self.batches + 1, self.images + images
        if self.batches == self.accumulate:
            self.step()

    def step(self) -> None:
        """Make the step that the gathered gradients stand for; none, if there are none."""
        if self.batches == 0:
            return
        if self.accumulate > 1:
            self._divide(self.images / self.first)
        if self.clip is not None:
            self.clip()
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.batches = self.images = 0
        if (
            self.scheduler is not None and self.scaler.get_scale() >= scale
        ):  # a smaller scale: the step was skipped
            self.scheduler.step()

    def _divide(self, by: float) -> None:
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.div_(by)


@contextmanager
def fused(optimizer: Optimizer) -> Iterator[None]:
    """Let Adam and AdamW go over the parameters once per step, not once per line of their formula.

    It is PyTorch's own `fused=True`: the same numbers up to rounding; measured on a processor, a step takes a
    third of the time. A choice that was made stays, and afterwards the groups have the option that they had.
    """
    groups = [group for group in optimizer.param_groups if _can_be_fused(optimizer, group)]
    try:
        for group in groups:
            group["fused"] = True
        yield
    finally:
        for group in groups:
            group["fused"] = None


def _can_be_fused(optimizer: Optimizer, group: dict) -> bool:
    chosen = any(group.get(option) for option in ("foreach", "capturable", "differentiable"))
    if type(optimizer) not in (Adam, AdamW) or chosen or group["fused"] is not None:
        return False
    if isinstance(group["lr"], Tensor) or torch.get_default_dtype() != torch.float32:
        return False
    return all(p.device.type == "cpu" and p.dtype == torch.float32 for p in group["params"])


def check_schedule(
    scheduler: LRScheduler | None, per: str, *, epochs: int, batches: int, accumulate: int
) -> None:
    """Refuse a schedule that does not fit the training, before anything is trained.

    Raises:
        ValueError: It is not counted in epochs or steps, `ReduceLROnPlateau` shall be stepped per step, or a
            schedule of fixed length is too short.
    """
    if per not in ("epoch", "step"):
        raise ValueError(f"a scheduler is stepped per 'epoch' or per 'step', not per {per!r}")
    if isinstance(scheduler, ReduceLROnPlateau) and per == "step":
        raise ValueError("ReduceLROnPlateau looks at the validation loss: step it per epoch")
    calls = epochs * (-(-batches // accumulate) if per == "step" else 1)
    total = getattr(scheduler, "total_steps", None)
    needed = calls + getattr(scheduler, "last_epoch", 0)
    if total is not None and needed > total:
        raise ValueError(
            f"{type(scheduler).__name__} was made for {total} steps, {scheduler.last_epoch} of them are gone, "
            f"and this training makes {calls}, one per {per}; make it with total_steps={needed}"
        )
