"""Put a checkpoint back into a model and its training, in the order that works."""

import os
from typing import Any

from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ftlab.freezing.snapshot import Snapshot
from ftlab.nearest import nearest

from .content import Checkpoint
from .loading import load
from .names import bare_names, optimizer_names
from .random_states import random_state, set_random_state


def restore(
    source: str | os.PathLike | dict[str, Any],
    *,
    model: nn.Module,
    optimizer: Optimizer | None = None,
    scheduler: LRScheduler | None = None,
    scaler: GradScaler | None = None,
) -> Checkpoint:
    """Put a saved checkpoint back, so that the training goes on as if it had not stopped.

    The model and whatever else is given are changed, all of them or, if anything does not fit, none. Gradients
    and the random states are put back if they are in the file.

    The trap: to make a scheduler writes its first learning rate into the optimizer. So make all of them first,
    as at the start of the training, and then call this. It loads the optimizer before the scheduler, which is
    right for every scheduler of torch.

    Args:
        source: A file of `save`, or what `load` gave.
        model: The model, wrapped or not, as it was when it was saved or not.
        optimizer: Built as it was. If other parameters are trained now, use `remap_optimizer` instead.
        scheduler: Built on this very optimizer.
        scaler: The GradScaler of a training in float16.

    Returns:
        The checkpoint; your own values are in `["extra"]`.

    Raises:
        ValueError: A part that you gave is not in the file, or does not fit. Nothing was changed.

    Example:
        >>> import tempfile, torch
        >>> from ftlab.checkpoints.saving import save
        >>> path = os.path.join(tempfile.mkdtemp(), "last.pt")
        >>> model = nn.Linear(2, 1)
        >>> _ = save(path, model=model, extra={"epoch": 4})
        >>> again = nn.Linear(2, 1)
        >>> restore(path, model=again)["extra"]["epoch"]
        4
        >>> torch.equal(again.weight, model.weight)
        True
    """
    checkpoint = Checkpoint(source) if isinstance(source, dict) else load(source)
    parts = {"optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
    parts = {name: part for name, part in parts.items() if part is not None}
    _check(checkpoint, model, parts)
    before, random = Snapshot(model, *parts.values()), random_state()
    name = "model"
    try:
        load_bare(model, checkpoint["model"])
        for name, part in parts.items():  # the optimizer first, then the scheduler
            part.load_state_dict(checkpoint[name])
        name = "gradients"
        _set_gradients(model, checkpoint.get("gradients"))
        name = "random_state"
        set_random_state(checkpoint.get("random_state", {}))
    except BaseException as error:  # also Ctrl-C: nothing is ever left half restored
        before.restore()
        set_random_state(random)
        if not isinstance(error, Exception):
            raise
        raise ValueError(_does_not_fit(name, error)) from error
    return checkpoint


def load_bare(model: nn.Module, state: dict[str, Any], *, strict: bool = True) -> None:
    """Load a state_dict with bare names into a model that may be wrapped."""
    bare = bare_names(model)
    own = {bare(name): name for name in model.state_dict()}
    renamed = type(state)((own.get(name, name), value) for name, value in state.items())
    if hasattr(state, "_metadata") and all(name == other for name, other in own.items()):
        renamed._metadata = state._metadata
    model.load_state_dict(renamed, strict=strict)


def _check(checkpoint: Checkpoint, model: nn.Module, parts: dict[str, Any]) -> None:
    """Say what is missing or cannot be right, before anything is changed."""
    for name in ("model", *parts):
        if name not in checkpoint:
            hint = "; the file looks like a state_dict alone: model.load_state_dict(load(path))"
            known = ", ".join(map(str, list(checkpoint)[:5]))
            bare = hint if name == "model" and set(checkpoint) & set(model.state_dict()) else ""
            raise ValueError(f"there is no {name!r} in this checkpoint; it has {known}{bare}")
    if "scheduler" in parts and "optimizer" in parts and parts["scheduler"].optimizer is not parts["optimizer"]:
        raise ValueError("the scheduler belongs to another optimizer; build it on the one that you give here")
    if "optimizer" in parts and "optimizer_names" in checkpoint:
        _check_names(checkpoint["optimizer_names"], optimizer_names(model, parts["optimizer"]))


def _check_names(saved: list[list[str]], here: list[list[str]]) -> None:
    """Refuse an optimizer whose parameters are others: torch matches them by position, without a word."""
    if saved == here:
        return
    were, are = [name for group in saved for name in group], [name for group in here for name in group]
    place = next((i for i, (one, other) in enumerate(zip(were, are, strict=False)) if one != other), None)
    what = (
        f"number {place} was {were[place]!r} and is {are[place]!r}" if place is not None else "the groups differ"
    )
    raise ValueError(
        f"the optimizer was saved for {len(were)} parameters in {len(saved)} groups and here has {len(are)} in "
        f"{len(here)}: {what}. PyTorch would match them by position; remap_optimizer matches them by name"
    )


def _set_gradients(model: nn.Module, gradients: dict[str, Any] | None) -> None:
    if gradients is None:
        return
    bare = bare_names(model)
    parameters = {bare(name): parameter for name, parameter in model.named_parameters()}
    for name in gradients:
        if name not in parameters:
            raise ValueError(f"no parameter is called {name!r}; {nearest(name, parameters)}")
    for name, parameter in parameters.items():
        gradient = gradients.get(name)
        parameter.grad = None if gradient is None else gradient.to(parameter, copy=True)


def _does_not_fit(name: str, error: Exception) -> str:
    text = f"the {name} in this checkpoint does not fit what you gave ({type(error).__name__}: {error}). "
    text += "Nothing was changed. "
    if name == "scaler":
        return text + "A scaler that was off saves {}; then give none, or GradScaler(enabled=False)"
    if name == "model":
        return text + "ftlab.checkpoints.diagnose(path, model) says why"
    return text + "Build it as it was built when the checkpoint was saved"
