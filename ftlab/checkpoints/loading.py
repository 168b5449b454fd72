"""Load a checkpoint, safely: no code in the file is run, and what is wrong with it is said."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from .content import Checkpoint
from .sums import check_sum


def load(path: str | os.PathLike, map_location: Any = "cpu", *, mmap: bool = False) -> Checkpoint:
    """Read a checkpoint into memory. Nothing in the file is run, whoever made it.

    The trap: a file that was saved on a GPU goes back to that GPU by itself, and on a machine without one it does
    not load at all. So the tensors come to the CPU here, and `load_state_dict` copies them to where the model is.

    Args:
        path: A file of `save` or `torch.save`, or `.safetensors` (`pip install safetensors`).
        map_location: Where the tensors shall be; None means where they were when they were saved.
        mmap: Leave the tensors on the disk until they are used. For big files: loading is then a matter of
            milliseconds. A later `save` to the same path does not disturb it.

    Returns:
        A dictionary with what is in the file. What is no dictionary is put under the key "content".

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not whole, is no checkpoint, or its sha256 is not the one beside it.
        TypeError: It holds more than plain tensors and numbers, for which code would have to be run. The message
            names the classes.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "best.pt")
        >>> torch.save({"weight": torch.zeros(2, 3)}, path)
        >>> load(path)
        part      tensors    bytes  what
        ------  ---------  -------  ------
        weight          1       24
    """
    path = Path(path)
    if not path.is_file():
        reason = "it is a folder" if path.is_dir() else f"looked in {Path.cwd()}"
        raise FileNotFoundError(f"there is no file {str(path)!r}; {reason}")
    check_sum(path)
    if path.suffix == ".safetensors":
        return Checkpoint(model=_safetensors(path, map_location))
    content = _read(path, map_location, mmap)
    return Checkpoint(content) if isinstance(content, dict) else Checkpoint(content=content)


def _read(path: Path, map_location: Any, mmap: bool) -> Any:
    try:
        return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        classes = _classes(path)
        if not classes:
            raise ValueError(_damaged(path, error)) from error
        raise TypeError(
            f"{path} holds more than tensors and numbers: it asks for {', '.join(classes[:5])}"
            f"{', ...' if len(classes) > 5 else ''}. To make these, code would have to be run, and the file says "
            "which. Look at it with ftlab.checkpoints.diagnose, and save the state_dict instead"
        ) from error
    except (RuntimeError, OSError, EOFError, KeyError, ValueError) as error:
        if "mmap can only be used" in str(error):
            raise ValueError(
                f"{path} is in the old format, which cannot be mapped; load it with mmap=False"
            ) from error
        if "device" in str(error).lower():
            raise ValueError(
                f"{path} cannot be loaded to {map_location or 'its own device'!r}: {error}"
            ) from error
        raise ValueError(_damaged(path, error)) from error


def _damaged(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        beginning, size = file.read(24), path.stat().st_size
    first = str(error).strip().splitlines()[0][:160] if str(error).strip() else ""
    return (
        f"{path} cannot be read as a checkpoint. It has {size:,} bytes, begins with {beginning!r}, "
        f"and reading it ends with {type(error).__name__}: {first!r}. Was it cut off, or is it of another kind? "
        "ftlab.checkpoints.diagnose says more"
    )


def _classes(path: Path) -> list[str]:
    """Return the classes that the safe loader refuses; they are read, not imported."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # whatever is in a broken file
        return []


def _safetensors(path: Path, map_location: Any) -> dict[str, Any]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise ModuleNotFoundError(f"{path} needs the package safetensors: pip install safetensors") from error
    try:
        with safe_open(path, framework="pt", device=str(map_location or "cpu")) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            notes = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(_damaged(path, error)) from error
    return tensors | {name: tensors[other] for name, other in notes.items() if other in tensors}
