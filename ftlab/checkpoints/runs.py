"""A training as the resume verifier sees it: parts with a state, and a step."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .names import bare_state_dict, optimizer_names
from .restoring import restore
from .saving import save


@dataclass
class Run:
    """A training that can be run step by step.

    Args:
        step: Called with the number of the step, from 0; trains one batch. Which batch, follows from the number.
        model: Moved by `step`, as are all others.
        optimizer: As in `save`.
        scheduler: As in `save`.
        scaler: As in `save`.
        gradients: Save them too; needed where a step is only a part of an accumulation.
        save: Your own saving, called with a path; without it `ftlab.checkpoints.save` is used.
        load: Your own loading, called with the same path; without it `ftlab.checkpoints.restore`.
    """

    step: Callable[[int], Any]
    model: nn.Module
    optimizer: Optimizer | None = None
    scheduler: LRScheduler | None = None
    scaler: GradScaler | None = None
    gradients: bool = False
    save: Callable[[Path], Any] | None = None
    load: Callable[[Path], Any] | None = None

    def __post_init__(self) -> None:
        if (self.save is None) != (self.load is None):
            raise ValueError("give both save and load, or neither: what one writes the other reads")

    def parts(self) -> dict[str, Any]:
        """Return what `save` and `restore` take."""
        named = {"optimizer": self.optimizer, "scheduler": self.scheduler, "scaler": self.scaler}
        return {"model": self.model} | {name: part for name, part in named.items() if part is not None}

    def write(self, path: Path) -> None:
        """Save, in the run's own way if it has one."""
        if self.save:
            self.save(path)
        else:
            save(path, **self.parts(), gradients=self.gradients)

    def read(self, path: Path) -> None:
        """Load what `write` wrote."""
        if self.load:
            self.load(path)
        else:
            restore(path, **self.parts())

    def state(self) -> dict[str, Any]:
        """Return what is trained or counts in the run, flat, by name; the tensors are the run's own."""
        found = {f"model {name}": value for name, value in bare_state_dict(self.model).items()}
        if self.gradients:
            found |= {f"gradient {name}": p.grad for name, p in self.model.named_parameters() if p.requires_grad}
        if self.optimizer:
            found |= self._optimizer_state()
        for name in ("scheduler", "scaler"):
            if part := getattr(self, name):
                found |= {f"{name} {key}": value for key, value in part.state_dict().items()}
        return found

    def _optimizer_state(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        groups = zip(self.optimizer.param_groups, optimizer_names(self.model, self.optimizer), strict=True)
        for number, (group, names) in enumerate(groups):
            options = {key: value for key, value in group.items() if key not in ("params", "param_names")}
            found |= {f"optimizer group {number} {key}": value for key, value in options.items()}
            for name, parameter in zip(names, group["params"], strict=True):
                state = self.optimizer.state.get(parameter, {})
                found |= {f"optimizer {name} {key}": value for key, value in state.items()}
        return found

    def prints(self) -> dict[str, str]:
        """Return a fingerprint of each entry of `state`: equal if and only if all bits are."""
        return {name: _print(value) for name, value in self.state().items()}


def _print(value: Any) -> str:
    digest = hashlib.blake2b(digest_size=12)
    _feed(digest, value)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        value = value.detach().cpu().contiguous()
        digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    elif isinstance(value, dict):
        for key, item in value.items():
            digest.update(f"{key}:".encode())
            _feed(digest, item)
    elif isinstance(value, list | tuple):
        digest.update(f"{len(value)}".encode())
        for item in value:
            _feed(digest, item)
    else:
        digest.update(f"{type(value).__name__} {value!r}".encode())
