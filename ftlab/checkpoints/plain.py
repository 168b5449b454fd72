"""Plain values: tensors and Python numbers that every loader accepts, and no byte more than is meant."""

from collections import Counter, OrderedDict
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_SCALARS = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)


class Plain:
    """Turn values into plain ones: tensors on the CPU, Python numbers and strings, in dictionaries and lists.

    NumPy's numbers and arrays become Python's numbers and tensors; paths become strings. A tensor that shows only
    a part of its memory is copied, because `torch.save` writes the memory whole. Tensors that are one and the
    same stay one.

    Example:
        >>> Plain()({"alpha": np.float64(0.25), "best": np.arange(2)}, "extra")
        {'alpha': 0.25, 'best': tensor([0, 1])}
        >>> Plain()(torch.zeros(1000)[:3], "extra").untyped_storage().nbytes()
        12
    """

    def __init__(self) -> None:
        self._copies: dict[tuple, tuple[Tensor, Tensor]] = {}  # with the source: its address must stay taken

    def __call__(self, value: Any, where: str) -> Any:
        """Return the plain value.

        Args:
            value: What is to be saved.
            where: What it is called in an error.

        Raises:
            TypeError: It is of a type that the safe loader refuses.
        """
        value = _python(value)
        if isinstance(value, Tensor):
            return self._tensor(value, where)
        if isinstance(value, _SCALARS):
            return _without_subclass(value)
        if isinstance(value, dict):
            return self._dict(value, where)
        for kind in (list, tuple, set):
            if isinstance(value, kind):
                return kind(self(item, f"{where}[{number}]") for number, item in enumerate(value))
        raise TypeError(_refused(value, where))

    def _dict(self, value: dict, where: str) -> dict:
        kind = next((kind for kind in (OrderedDict, Counter) if isinstance(value, kind)), dict)
        result = kind()
        for key, item in value.items():
            result[self(key, f"a key of {where}")] = self(item, f"{where}[{key!r}]")
        if kind is OrderedDict and hasattr(value, "_metadata"):
            result._metadata = value._metadata
        return result

    def _tensor(self, tensor: Tensor, where: str) -> Tensor:
        _refuse(tensor, where)
        tensor = tensor.detach()
        if tensor.layout is not torch.strided or tensor.is_quantized:
            return tensor.cpu()
        memory = tensor.untyped_storage()
        whole = memory.nbytes() <= tensor.numel() * tensor.element_size()
        if whole and tensor.device.type == "cpu":
            return tensor
        view = tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device
        key = memory.data_ptr(), *view
        if key not in self._copies:
            self._copies[key] = tensor, tensor.clone() if tensor.device.type == "cpu" else _to_cpu(tensor)
        return self._copies[key][1]


def _python(value: Any) -> Any:
    """Return what NumPy and pathlib have made as a tensor, number or string; anything else as it is."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return torch.tensor(value)
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, PurePath) else value


def _to_cpu(tensor: Tensor) -> Tensor:
    copy = tensor.cpu()
    small = copy.untyped_storage().nbytes() <= copy.numel() * copy.element_size()
    return copy if small else copy.clone()


def _refused(value: Any, where: str) -> str:
    hint = "vars() of it" if hasattr(value, "__dict__") else "its numbers"
    hint = "its state_dict()" if hasattr(value, "state_dict") else hint
    return f"{where} is a {type(value).__name__}, which the safe loader refuses; save {hint} instead"


def _without_subclass(value: Any) -> Any:
    """Return a string as `str`, a number as `int`, ...: torch's version and enumerations are subclasses."""
    kind = next(kind for kind in _SCALARS if isinstance(value, kind))
    return value if type(value) is kind or kind is type(None) else kind(value)


def _refuse(tensor: Tensor, where: str) -> None:
    """Say why a tensor cannot be saved."""
    if nn.parameter.is_lazy(tensor):
        raise ValueError(f"{where} has no shape yet; run one batch through the model before saving it")
    if tensor.is_meta:
        raise ValueError(f"{where} is on the meta device and has no values; load or initialise the model first")
    kind = type(tensor.detach())
    if kind is not Tensor:
        raise TypeError(
            f"{where} is a {kind.__name__}, not a plain tensor; a sharded one is saved with "
            "torch.distributed.checkpoint, or made whole by its full_tensor()"
        )
