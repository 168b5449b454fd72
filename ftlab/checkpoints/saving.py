"""Save a checkpoint: plain, whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .content import Checkpoint, Saved
from .names import bare_names, bare_state_dict, optimizer_names
from .plain import Plain
from .random_states import random_state
from .replacing import NewFile
from .sums import announce, sha256_of, sum_file


def save(
    path: str | os.PathLike,
    *,
    model: nn.Module,
    optimizer: Optimizer | None = None,
    scheduler: LRScheduler | None = None,
    scaler: GradScaler | None = None,
    extra: dict[str, Any] | None = None,
    gradients: bool = False,
    sha256: bool = False,
) -> Saved:
    """Save a model, and what its training needs to go on as if it had not stopped.

    The model is not changed, and no random number is drawn. The file has only tensors on the CPU and Python
    numbers, so that `torch.load` reads it with its safe default on any machine. Names are those of the model
    itself, without the prefixes of DataParallel, DistributedDataParallel and `torch.compile`. The old file is
    replaced in one step: a crash or a full disk at any moment leaves it whole.

    The trap: what is left out here starts anew after the restart, and nothing says so. A model alone is enough to
    predict. To train on, give `optimizer`, `scheduler` and `scaler`; the random states are saved with them.

    Args:
        path: The file. With the ending `.safetensors` only the model is saved, in that format, which holds
            nothing but tensors (`pip install safetensors`).
        model: The model, wrapped or not.
        optimizer: Its state is saved with the names of its parameters, for `remap_optimizer`.
        scheduler: Any of `torch.optim.lr_scheduler`.
        scaler: The GradScaler of a training in float16. (bfloat16 has none.)
        extra: What else you want back: epoch, best accuracy, class names. Numbers, strings, tensors, lists and
            dictionaries; numbers and arrays of NumPy are converted.
        gradients: Save them too: needed between two steps of an accumulation, else a waste.
        sha256: Write the sum into `<path>.sha256`; `load` compares it.

    Returns:
        What was written, by part; the repr is the table. It holds no tensors.

    Raises:
        TypeError: Something cannot be loaded again by the safe loader. The message says where it is.
        ValueError: The optimizer owns parameters that are not in the model, or a tensor has no values.
        OSError: The file could not be written; the old one is as it was.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "last.pt")
        >>> model = nn.Linear(2, 1)
        >>> saved = save(path, model=model, optimizer=torch.optim.SGD(model.parameters()), extra={"epoch": 4})
        >>> saved.parts
        ['model', 'optimizer', 'optimizer_names', 'random_state', 'extra', 'torch']
        >>> torch.load(path)["extra"]
        {'epoch': 4}
    """
    path = Path(path)
    parts = {"optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
    parts = {name: part for name, part in parts.items() if part is not None}
    if path.suffix == ".safetensors":
        return _save_safetensors(path, model, [*parts, *(["extra"] if extra else [])], sha256)
    content = Checkpoint(model=bare_state_dict(model))
    for name, part in parts.items():
        content[name] = part.state_dict()
        if name == "optimizer":
            content["optimizer_names"] = optimizer_names(model, optimizer)
    if gradients:
        content["gradients"] = _gradients(model)
    if parts:
        content["random_state"] = random_state()
    content |= {"extra": extra or {}, "torch": torch.__version__}
    plain = Plain()
    content = Checkpoint({name: plain(part, name) for name, part in content.items()})
    return _write(path, lambda file: torch.save(dict(content), file), content, sha256=sha256)


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    bare = bare_names(model)
    return {bare(name): p.grad for name, p in model.named_parameters() if p.grad is not None}


def _write(path: Path, write: Callable[[NewFile], Any], content: Checkpoint, *, sha256: bool) -> Saved:
    """Let `write(file)` write a new file, and put it with its sum in the place of the old one."""
    given, path = path, Path(os.path.realpath(path))
    with NewFile(path) as file:
        write(file)
        file.flush()
        digest = sha256_of(file.part) if sha256 else ""
        old = [sha256_of(path)] if sha256 and path.is_file() else []
        if sha256:
            announce(path, *old, digest)
        else:
            sum_file(path).unlink(missing_ok=True)  # it would be the sum of a file that is gone
        file.put_in_place()
    if old:
        announce(path, digest)
    return Saved(given, path.stat().st_size, digest, content.table())


def _save_safetensors(path: Path, model: nn.Module, others: list[str], sha256: bool) -> Saved:
    """Save the model alone; of tied tensors one is written, the other names are noted beside it."""
    if others:
        raise ValueError(
            f"a .safetensors file holds tensors only, not {', '.join(others)}; save them into a .pt file"
        )
    try:
        from safetensors.torch import save as to_bytes
    except ImportError as error:
        raise ModuleNotFoundError(
            "saving .safetensors needs the package safetensors: pip install safetensors; a file ending in .pt "
            "needs nothing"
        ) from error
    tensors = Plain()(bare_state_dict(model), "model")
    first: dict[tuple, str] = {}
    notes, kept = {"format": "pt"}, {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"model[{name!r}] is a {type(tensor).__name__}; a .safetensors file holds tensors only"
            )
        other = first.setdefault((tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype), name)
        if other == name or tensor.numel() == 0:
            kept[name] = tensor.contiguous()
        else:
            notes[name] = other  # the way in which safetensors' own save_model says it
    content = Checkpoint(model=tensors)
    # not save_file: that one makes a file of its own, which would be neither locked nor synced
    return _write(path, lambda file: file.write(to_bytes(kept, metadata=notes)), content, sha256=sha256)
