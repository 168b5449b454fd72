"""The random states of torch, NumPy and Python, as plain tensors and numbers that the safe loader accepts."""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor


def random_state() -> dict[str, Any]:
    """Return where the random generators of torch (every device), NumPy and Python are now; nothing is drawn.

    The trap: `random.getstate()` and NumPy's `get_state()` go into a file as they are, and then NumPy's does not
    come out again: the safe loader refuses its array. Here everything is a tensor or a number.

    Example:
        >>> before = random_state()
        >>> first = torch.rand(1), np.random.rand(), random.random()
        >>> set_random_state(before)
        >>> (torch.rand(1), np.random.rand(), random.random()) == first
        True
    """
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 - augmentations draw from it
    state = {
        "torch": torch.get_rng_state(),
        "numpy": {
            "kind": kind,
            "keys": torch.tensor(keys.astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
    }
    if devices := _device_states():
        state["devices"] = devices
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put the random generators back to where `random_state` found them; a missing entry is left alone.

    The state of devices is put back if this machine has as many of them.
    """
    if "torch" in state:
        torch.set_rng_state(state["torch"].cpu())
    if "numpy" in state:
        numpy = state["numpy"]
        keys = numpy["keys"].numpy().astype(np.uint32)
        np.random.set_state(  # noqa: NPY002
            (numpy["kind"], keys, numpy["position"], numpy["has_gauss"], numpy["cached"])
        )
    if "python" in state:
        python = state["python"]
        random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    devices = state.get("devices", [])
    if devices and torch.cuda.is_available() and torch.cuda.device_count() == len(devices):
        torch.cuda.set_rng_state_all([one.cpu() for one in devices])


def _device_states() -> list[Tensor]:
    # to ask for the state starts CUDA; if nothing has used it yet there is no state worth keeping
    return torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
