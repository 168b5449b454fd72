"""Noticing that the frozen part is no longer what it was when its activations were computed."""

import hashlib

import torch
from torch import Tensor, nn

from ftlab.modes.mapping import effect_of
from ftlab.training.caching.prefix import Split, parts_of, tensors_of
from ftlab.training.caching.traces import attributes, hooks_of


class Held:
    """What the frozen part of a model was like; `changed` says what is different now.

    Tensors are compared by identity, by place in memory, by autograd's count of writes, and by their norm, which
    also notices what is written through `.data`.
    """

    def __init__(self, model: nn.Module, parts: Split) -> None:
        self.model, self.steps = model, parts.steps
        self.before = self._look()

    def changed(self) -> str:
        """Return the name of the first parameter, buffer or module that changed; "" if none did."""
        try:
            now = self._look()
        except AttributeError as error:  # a module was taken away
            return str(error)
        names = [name for name, about in now.items() if self.before.get(name) != about]
        return next(iter(names), "")

    def _look(self) -> dict[str, tuple]:
        parts = list(parts_of(self.model, self.steps))
        found: dict[str, tuple] = {
            name: (id(part), effect_of(part), hooks_of(part), attributes(part))
            for name, part in parts
            if isinstance(part, nn.Module)
        }
        tensors = dict(tensors_of(parts))
        norms = _norms(list(tensors.values()))
        for (name, tensor), norm in zip(tensors.items(), norms, strict=True):
            version = 0 if tensor.is_inference() else tensor._version
            found[name] = (id(tensor), tensor.data_ptr(), version, tensor.requires_grad, norm)
        return found


def _norms(tensors: list[Tensor]) -> list[float]:
    """Return the norm of each; in one call, since there are hundreds and each epoch asks."""
    with torch.no_grad():
        norms = torch._foreach_norm([t if t.is_floating_point() else t.double() for t in tensors])
        return torch.stack([norm.double().cpu() for norm in norms]).tolist() if norms else []


def fingerprint(model: nn.Module, parts: Split, data: str) -> str:
    """Return a number that changes with the frozen part, with its values, and with the data."""
    found = hashlib.sha256(f"{torch.__version__} {parts.prefix.code} {parts.after} {data}".encode())
    for module in parts.prefix.modules():
        found.update(module.extra_repr().encode())
    for name, tensor in tensors_of(parts_of(model, parts.steps)):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(_bytes(tensor))
    return found.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
