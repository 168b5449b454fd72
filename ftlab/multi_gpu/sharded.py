"""Checkpoints of sharded models: each rank writes its part, and any number of ranks can read them."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save, torch_save_to_dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.fsdp import fully_shard
from torch.optim import Optimizer

from ftlab.table import Table


def shard(model: nn.Module) -> nn.Module:
    """Shard the parameters of `model` over the ranks with FSDP2, child by child; return the same model.

    The model is changed in place: each parameter becomes a `DTensor`, of which this rank holds some rows. The
    names stay. Every rank must call it. The trap: make the optimizer afterwards: the parameters are new objects,
    and one that was made before goes on holding the old ones.

    Args:
        model: Its children with parameters are gathered one at a time in the forward pass, which is what saves
            memory.
    """
    for child in model.children():
        if any(True for _ in child.parameters()):
            fully_shard(child)
    return fully_shard(model)


def rows_here(model: nn.Module) -> Table:
    """Return a table of what this rank holds of each parameter of a sharded model."""
    rows = []
    for name, parameter in model.named_parameters():
        here = parameter.to_local() if hasattr(parameter, "to_local") else parameter
        rows.append([name, str(tuple(parameter.shape)), str(tuple(here.shape))])
    return Table(["parameter", "whole", "here"], rows, title=f"rank {dist.get_rank()} of {dist.get_world_size()}")


def save(folder: str | Path, model: nn.Module, optimizer: Optimizer) -> None:
    """Save model and optimizer into a folder, each rank its part; every rank must call it.

    Neither is changed. The trap: to call it on rank 0 only. It is a collective operation: rank 0 waits for the
    others for ever.

    Args:
        folder: The same for all ranks, on a file system that all of them see.
        model: Sharded, wrapped in DDP, or plain.
        optimizer: Of this model. Its state is saved by the names of the parameters, not by their numbers.
    """
    with _quiet():
        dcp.save(_state(model, optimizer), checkpoint_id=folder, no_dist=not dist.is_initialized())


def load(folder: str | Path, model: nn.Module, optimizer: Optimizer) -> None:
    """Load what `save` saved, with any number of ranks; every rank must call it.

    Model and optimizer are changed; neither is if something does not fit. The number of ranks may differ from
    that at saving, and so may the wrapper.

    The trap: the optimizer's state is there for the parameters that were trained. After thawing more of them,
    give the optimizer the new ones after loading, with `add_param_group`.

    Args:
        folder: Where `save` saved.
        model: With the same parameters, sharded or not.
        optimizer: Of this model, of the same kind; its state need not be there yet.

    Raises:
        FileNotFoundError: There is no checkpoint.
        ValueError: The checkpoint lacks something that model or optimizer need, or has it in another shape.
    """
    if not (Path(folder) / ".metadata").is_file():
        raise FileNotFoundError(
            f"there is no checkpoint in {str(folder)!r}: a complete one has a file '.metadata'"
        )
    was_empty = not optimizer.state
    state = _state(model, optimizer)
    try:
        with _quiet():
            dcp.load(state, checkpoint_id=folder, no_dist=not dist.is_initialized())
    except CheckpointException as error:  # it is no Exception: only its own name catches it
        if was_empty:
            optimizer.state.clear()  # what was made for the values that did not come
        raise ValueError(_what_does_not_fit(str(folder), error)) from None
    set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])


def whole_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return the `state_dict` of a sharded model as ordinary tensors on the CPU: on rank 0; {} on the others.

    The model is not changed. Every rank must call it, since each has a part.
    """
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def to_file(folder: str | Path, file: str | Path) -> None:
    """Write a sharded checkpoint as one file for `torch.load`; one process is enough."""
    dcp_to_torch_save(folder, file)


def to_folder(file: str | Path, folder: str | Path) -> None:
    """Write one file of `torch.save`, such as `to_file` makes, as a sharded checkpoint; one process is enough."""
    torch_save_to_dcp(file, folder)


def _state(model: nn.Module, optimizer: Optimizer) -> Mapping[str, Any]:
    model_state, optimizer_state = get_state_dict(model, optimizer)
    return {"model": model_state, "optimizer": optimizer_state}


@contextmanager
def _quiet() -> Iterator[None]:
    """Do not warn that there is one process only, where that is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
        yield


def _what_does_not_fit(folder: str, error: CheckpointException) -> str:
    """Say in a line what the long message of all ranks says."""
    reason, _ = next(iter(error.failures.values()))
    text = str(reason).rstrip(".")
    missing = text.removeprefix("Missing key in checkpoint state_dict: ")
    if missing == text:
        return f"the checkpoint in {folder!r} does not fit: {text}"
    hint = ""
    if missing.startswith("optimizer.state."):
        hint = ". Were its parameters frozen when it was saved? Then give them to the optimizer after loading"
    return f"the checkpoint in {folder!r} has no {missing!r}{hint}"
