"""DataParallel by hand: scatter, replicate, apply in parallel, gather; backward brings the gradients together.

`nn.DataParallel` does these four steps in every forward pass, on GPUs. These few lines do the same on any
devices, also on one device that is named twice, so that each step can be looked at.
"""

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ftlab.table import Table, Tabled

Device = torch.device | str


def scatter(batch: Tensor, devices: Sequence[Device]) -> list[Tensor]:
    """Cut a batch along its first dimension into a part for each device.

    The trap: the parts are not always equal, and there may be fewer than devices. 5 images on 4 devices are cut
    into 2, 2 and 1; the fourth device has nothing to do.

    Args:
        batch: Images or targets (N, ...).
        devices: Where the parts go.

    Example:
        >>> [len(part) for part in scatter(torch.zeros(5, 3), ["cpu"] * 4)]
        [2, 2, 1]
    """
    return [part.to(device) for part, device in zip(batch.chunk(len(devices)), devices, strict=False)]


def replicate(model: nn.Module, devices: Sequence[Device]) -> list[nn.Module]:
    """Return a copy of `model` for each device, whose gradients flow back into `model`.

    The model is not changed. The parameters of a copy are no parameters of their own: they are computed from
    those of the model, as activations are, so backward adds up the gradients of all copies there. The buffers of
    the first copy are the model's own, those of the others are copies that are lost.

    Args:
        model: Its parameters must be on the first device.
        devices: One per copy.
    """
    copies = [copy.deepcopy(model) for _ in devices]
    for number, (replica, device) in enumerate(zip(copies, devices, strict=True)):
        for name, parameter in model.named_parameters(remove_duplicate=False):
            owner, leaf = _owner(replica, name)
            del owner._parameters[leaf]
            setattr(owner, leaf, parameter.to(device, copy=True))  # autograd remembers where it comes from
        for name, buffer in model.named_buffers(remove_duplicate=False):
            owner, leaf = _owner(replica, name)
            owner._buffers[leaf] = buffer if number == 0 else buffer.detach().to(device, copy=True)
    return copies


def parallel_apply(replicas: Sequence[nn.Module], parts: Sequence[Tensor]) -> list[Tensor]:
    """Run each copy on its part, each in a thread of its own.

    The trap: threads of one Python process take turns in everything that is Python. GPUs work on while a thread
    waits, so this can pay off there; on CPUs it does not.
    """
    with_gradients = torch.is_grad_enabled()  # a thread begins with its own switch, and it is on

    def apply(replica: nn.Module, part: Tensor) -> Tensor:
        with torch.set_grad_enabled(with_gradients):
            return replica(part)

    with ThreadPoolExecutor(len(parts)) as threads:
        return list(threads.map(apply, replicas, parts))


def gather(outputs: Sequence[Tensor], device: Device) -> Tensor:
    """Put the outputs of all parts together on one device, in the order of the batch."""
    return torch.cat([output.to(device) for output in outputs])


class DataParallelByHand(nn.Module):
    """A wrapper that does what `nn.DataParallel` does, in four lines.

    The wrapped model is not copied: it is `module`, and it is what is trained. The trap: everything that the
    forward pass writes on a module is written on a copy and lost, but for the buffers of the first copy.

    Args:
        module: The model.
        devices: Where the copies run; the model must be on the first.

    Example:
        >>> model = nn.Linear(3, 2)
        >>> batch = torch.randn(5, 3)
        >>> torch.allclose(DataParallelByHand(model, ["cpu", "cpu"])(batch), model(batch))
        True
    """

    def __init__(self, module: nn.Module, devices: Sequence[Device]) -> None:
        super().__init__()
        if not devices:
            raise ValueError("devices is empty: name at least one, as in ['cpu', 'cpu'] or ['cuda:0', 'cuda:1']")
        self.module, self.devices = module, list(devices)

    def forward(self, batch: Tensor) -> Tensor:
        """Return what the model gives for the batch (N, ...)."""
        parts = scatter(batch, self.devices)
        replicas = replicate(self.module, self.devices[: len(parts)])
        outputs = parallel_apply(replicas, parts)
        return gather(outputs, self.devices[0])


@dataclass(frozen=True, repr=False)
class DataParallelSteps(Tabled):
    """What happened in one forward and backward pass of DataParallel; the repr is the table.

    Attributes:
        parts: How many images each device got.
        norms: The size of the gradient that each copy computed, over all parameters.
        total: The size of the gradient that arrived in the model: of their sum.
        device: Where the outputs were put together.
    """

    parts: tuple[int, ...]
    norms: tuple[float, ...]
    total: float
    device: str

    def table(self) -> Table:
        """Return the steps as a table, one row per copy."""
        rows = [
            [f"copy {i}", n, round(g, 6)] for i, (n, g) in enumerate(zip(self.parts, self.norms, strict=True))
        ]
        rows.append([f"model on {self.device}", sum(self.parts), round(self.total, 6)])
        note = "the last gradient is the sum of the others, as vectors: that is what reaches the optimizer"
        return Table(["where", "images", "size of the gradient"], rows, note=note)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers."""
        return {"parts": list(self.parts), "norms": list(self.norms), "total": self.total, "device": self.device}


def data_parallel_steps(
    model: nn.Module, batch: Tensor, targets: Tensor, devices: Sequence[Device]
) -> DataParallelSteps:
    """Run one forward and backward pass of DataParallel by hand, and tell what each copy contributed.

    The model is not changed: neither gradients nor buffers.

    Args:
        model: Gives logits (N, classes); every trainable parameter takes part in the loss.
        batch: Images (N, ...).
        targets: Class numbers (N,).
        devices: As in `DataParallelByHand`.
    """
    model = copy.deepcopy(model)  # so that neither gradients nor statistics of the caller's move
    parts = scatter(batch, devices)
    replicas = replicate(model, devices[: len(parts)])
    logits = gather(parallel_apply(replicas, parts), devices[0])
    loss = nn.functional.cross_entropy(logits, targets.to(logits.device))
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    norms = [_size(torch.autograd.grad(loss, _copied(replica, names), retain_graph=True)) for replica in replicas]
    total = _size(torch.autograd.grad(loss, [model.get_parameter(name) for name in names]))
    return DataParallelSteps(tuple(map(len, parts)), tuple(norms), total, str(logits.device))


def _copied(replica: nn.Module, names: list[str]) -> list[Tensor]:
    return [getattr(*_owner(replica, name)) for name in names]


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Return the module that has the tensor, and the tensor's name in it."""
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf


def _size(gradients: Sequence[Tensor]) -> float:
    return torch.cat([gradient.flatten().cpu() for gradient in gradients]).norm().item()
