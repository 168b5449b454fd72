"""Whether the ranks still have one and the same model."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ftlab.multi_gpu.device import device
from ftlab.multi_gpu.wrappers import unwrap
from ftlab.table import Table, Tabled


@dataclass(frozen=True)
class Agreement(Tabled):
    """How far the ranks are apart, by name of the tensor; the repr is the table.

    Attributes:
        world_size: How many ranks were compared.
        largest: The largest difference between two ranks in a value, for every parameter and buffer.
    """

    world_size: int
    largest: dict[str, float]

    @property
    def differing(self) -> dict[str, float]:
        """The tensors in which the ranks differ."""
        return {name: value for name, value in self.largest.items() if value != 0}

    def table(self) -> Table:
        """Return the tensors that differ as a table."""
        counts = f"{len(self.differing)} of {len(self.largest)} tensors differ between {self.world_size} ranks"
        return Table(["tensor", "largest difference"], self.differing.items(), title=counts)

    def __repr__(self) -> str:
        return repr(self.table()) if self.differing else self.table().title

    def to_dict(self) -> dict[str, Any]:
        """Return the differences by name."""
        return {"world_size": self.world_size, "largest": dict(self.largest)}


def agreement(model: nn.Module, gradients: bool = False) -> Agreement:
    """Compare the parameters and buffers of `model` between all ranks; to be called by every rank.

    The model is not changed. After a step of DDP all parameters must agree to the last bit; batch norm's
    statistics need not. The trap: a parameter that was unfrozen after the model was wrapped does not agree, and
    nothing else says so.

    Args:
        model: The model or its wrapper; the names are those of the model.
        gradients: Compare the gradients instead; a missing one counts as zero.

    Raises:
        RuntimeError: There is no process group.
    """
    where, model = device(), unwrap(model)
    if gradients:
        tensors = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}
    else:
        tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    return Agreement(dist.get_world_size(), {name: _spread(tensor, where) for name, tensor in tensors.items()})


def _spread(tensor: Tensor, where: torch.device) -> float:
    """Return the largest difference between two ranks; a value that is no number differs from every other."""
    values = tensor.detach().to(where, torch.float64)
    low, high = values.clone(), values.clone()
    dist.all_reduce(low, dist.ReduceOp.MIN)
    dist.all_reduce(high, dist.ReduceOp.MAX)
    return (high - low).max().item() if values.numel() else 0.0
