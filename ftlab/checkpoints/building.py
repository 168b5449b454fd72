"""Build a model right from a file: no random numbers, no second copy."""

import os
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ftlab.freezing.evidence import named_tensors

from .loading import load


def build(make_model: Callable[[], nn.Module], path: str | os.PathLike) -> nn.Module:
    """Make a model whose parameters are those of the file, without making random ones first.

    The plain recipe draws random numbers for every parameter, reads the file into memory, and copies it over
    them. Here the model is made on the meta device, without any numbers, and takes the tensors of the file as its
    own; they are read from the disk when they are first used. Weights that were tied are tied again.

    The trap: the parameters have the dtype of the file, be it float16. And with plain
    `load_state_dict(assign=True)` tied weights become two, and an optimizer built before has the old ones.

    Args:
        make_model: Makes the model, such as `lambda: ftlab.pretrained.load("resnet50", weights=None)`.
        path: A `state_dict`, or a checkpoint of `save`.

    Raises:
        ValueError: The file is of another model, or the model has buffers that are in no file.

    Example:
        >>> import tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "model.pt")
        >>> torch.save(nn.Linear(3, 2).state_dict(), path)
        >>> build(lambda: nn.Linear(3, 2), path).weight.device
        device(type='cpu')
    """
    with torch.device("meta"):
        model = make_model()
    ties = _ties(model)
    checkpoint = load(path, mmap=_can_be_mapped(path))
    state: dict[str, Any] = checkpoint["model"] if isinstance(checkpoint.get("model"), dict) else dict(checkpoint)
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ValueError(
            f"{path} does not fit this {type(model).__name__}; ftlab.checkpoints.diagnose(path, model) says why. "
            f"PyTorch says: {error}"
        ) from error
    for first, *others in ties:
        for name in others:
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, named_tensors(model)[first])
    empty = [name for name, tensor in named_tensors(model).items() if tensor.is_meta]
    if empty:
        raise ValueError(
            f"{empty[0]!r} is a buffer that is in no file: the model makes it itself. Build the model plainly "
            "and use load_into(model, path)"
        )
    return model


def _ties(model: nn.Module) -> list[list[str]]:
    """Return the names of each parameter that has several."""
    names = defaultdict(list)
    for name, tensor in named_tensors(model).items():
        names[id(tensor)].append(name)
    return [same for same in names.values() if len(same) > 1]


def _can_be_mapped(path: str | os.PathLike) -> bool:
    """Return whether the file is a zip archive; the old format cannot be mapped."""
    with open(path, "rb") as file:  # noqa: PTH123 - a path may be a string
        return file.read(4) == b"PK\x03\x04"
