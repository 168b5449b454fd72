"""The state of an optimizer, carried over by the names of the parameters."""

import copy
import inspect
import re
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ftlab.nearest import nearest
from ftlab.table import Table, Tabled

from .names import bare_names, optimizer_names

_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")
KEPT, FRESH, DROPPED = "kept", "fresh", "dropped"


@dataclass(frozen=True, repr=False)
class Remap(Tabled):
    """What became of each parameter's state; the repr is the table.

    Attributes:
        rows: Name, verdict ("kept", "fresh" or "dropped") and reason, the new optimizer's order first.
    """

    rows: list[tuple[str, str, str]]

    @property
    def kept(self) -> list[str]:
        """Names whose state was carried over."""
        return self._with(KEPT)

    @property
    def fresh(self) -> list[str]:
        """Names that begin without a state."""
        return self._with(FRESH)

    @property
    def dropped(self) -> list[str]:
        """Names whose saved state nobody took."""
        return self._with(DROPPED)

    def _with(self, verdict: str) -> list[str]:
        return [name for name, found, _ in self.rows if found == verdict]

    def table(self) -> Table:
        """Return one row per parameter."""
        note = f"{len(self.kept)} kept, {len(self.fresh)} fresh, {len(self.dropped)} dropped"
        return Table(["parameter", "state", "why"], self.rows, note=note)

    def to_dict(self) -> dict[str, Any]:
        """Return the names by verdict."""
        return {"kept": self.kept, "fresh": self.fresh, "dropped": self.dropped}


def remap_optimizer(
    optimizer: Optimizer, saved: dict[str, Any], *, model: nn.Module, names: list[str] | None = None
) -> Remap:
    """Give an optimizer the saved state of the parameters that have the same name and shape.

    The optimizer's state is changed; the model and the saved state are not. Learning rates and the other options
    stay as you built the optimizer: the old ones belong to the old groups.

    The trap: `optimizer.load_state_dict` matches by position. After unfreezing, reordering or a new head it
    either raises "doesn't match the size of optimizer's group" or, with the same count, silently gives one
    parameter the moments of another. And it brings back the old learning rate.

    Args:
        optimizer: The new one, over whatever is trained now.
        saved: A checkpoint of `save`, or an optimizer's `state_dict()`.
        model: Names the parameters of `optimizer`.
        names: The names in the saved order, if the state does not have them. (A checkpoint of `save` has
            them, and so has the state of an optimizer that was built with `model.named_parameters()`.)

    Raises:
        ValueError: The names are not known, or the state is that of another kind of optimizer. Nothing was
            changed.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        >>> old = torch.optim.Adam(model[1].parameters())
        >>> model(torch.ones(1, 2)).sum().backward()
        >>> old.step()
        >>> new = torch.optim.Adam(model.parameters(), lr=1e-4)
        >>> remap_optimizer(new, old.state_dict(), model=model, names=["1.weight", "1.bias"])
        parameter    state    why
        -----------  -------  ----------------------
        0.weight     fresh    not in the saved state
        0.bias       fresh    not in the saved state
        1.weight     kept
        1.bias       kept
        2 kept, 2 fresh, 0 dropped
    """
    state = saved.get("optimizer", saved)
    by_name = _states_by_name(state, names or _flat(saved.get("optimizer_names")) or _own_names(state), model)
    taken, rows = {}, []
    for group, group_names in zip(optimizer.param_groups, optimizer_names(model, optimizer), strict=True):
        for parameter, name in zip(group["params"], group_names, strict=True):
            why = _misfit(optimizer, group, parameter, by_name.get(name))
            if not why:
                taken[parameter] = _moved(by_name[name], parameter, group)
            rows.append((name, FRESH if why else KEPT, why))
    here = {name for name, _, _ in rows}
    rows += [(name, DROPPED, "not in the optimizer") for name in by_name if name not in here and by_name[name]]
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state.pop(parameter, None)
    optimizer.state.update(taken)
    return Remap(rows)


def _flat(groups: list[list[str]] | None) -> list[str]:
    return [name for group in groups or [] for name in group]


def _own_names(state: dict[str, Any]) -> list[str]:
    return _flat([group.get("param_names", []) for group in state.get("param_groups", [])])


def _states_by_name(state: dict[str, Any], names: list[str], model: nn.Module) -> dict[str, dict]:
    """Return the saved state of each parameter by its name."""
    if "state" not in state or "param_groups" not in state:
        raise ValueError(f"this is no state of an optimizer; its keys are {', '.join(map(str, list(state)[:5]))}")
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    if len(names) != len(numbers):
        raise ValueError(
            f"the saved state has {len(numbers)} parameters and {len(names)} names; give names=[...], the names "
            "of the parameters in the order in which the old optimizer got them"
        )
    bare = bare_names(model)
    known = {bare(name) for name, _ in model.named_parameters()}
    names = [bare(name) for name in names]
    if known.isdisjoint(names):
        names = [_WRAPPERS.sub("", name) for name in names]  # the old model was wrapped, this one is not
    if names and known.isdisjoint(names):
        raise ValueError(f"none of the saved names is in the model: {names[0]!r}; {nearest(names[0], known)}")
    return {name: _filled(state["state"].get(number, {})) for name, number in zip(names, numbers, strict=True)}


def _misfit(optimizer: Optimizer, group: dict, parameter: Tensor, saved: dict | None) -> str:
    """Return why the saved state is of no use for this parameter; "" if it is."""
    if saved is None:
        return "not in the saved state"
    wanted = _state_like(optimizer, group, parameter)
    if not saved:
        return "" if wanted == {} else "never stepped before it was saved"
    if wanted is not None and wanted.keys() != saved.keys():
        raise ValueError(
            f"the saved state has {', '.join(sorted(saved))}, and {type(optimizer).__name__} with these options "
            f"keeps {', '.join(sorted(wanted)) or 'nothing'}: it is that of another kind of optimizer"
        )
    for key, value in saved.items():
        like = (wanted or {}).get(key, value if key == "step" else parameter)
        if isinstance(value, Tensor) and isinstance(like, Tensor) and value.shape != like.shape:
            return f"{key} was {_sizes(value)}, the parameter is {_sizes(parameter)}"
    return ""


def _state_like(optimizer: Optimizer, group: dict, parameter: Tensor) -> dict[str, Any] | None:
    """Return the state that this optimizer keeps for a parameter, tried out on a copy; None if that fails."""
    tried = torch.ones_like(parameter.detach()).requires_grad_()
    tried.grad = torch.ones_like(tried)
    known = inspect.signature(type(optimizer)).parameters
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            options = {key: value for key, value in group.items() if key in known and key != "params"}
            twin = type(optimizer)([tried], **options)
            twin.step()
    except Exception:  # sparse gradients only, a closure wanted, ...: then there is nothing to compare with
        return None
    return _filled(twin.state[tried])


def _filled(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state without what is None: SGD notes a momentum that it does not keep."""
    return {key: value for key, value in state.items() if value is not None}


def _moved(saved: dict, parameter: Tensor, group: dict) -> dict:
    """Return a copy of the state where the optimizer wants it: with the parameter, and steps on the CPU."""
    on_device = group.get("capturable") or group.get("fused")
    result = {}
    for key, value in saved.items():
        there = isinstance(value, Tensor) and (value.dim() or on_device)
        result[key] = value.to(parameter.device, copy=True) if there else copy.deepcopy(value)
    return result


def _sizes(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "one number"
