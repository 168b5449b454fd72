"""Parameter groups by pattern: complete, disjoint, each tensor once."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from ftlab.freezing.selection import Pattern, choose, plain_name
from ftlab.given import expect
from ftlab.table import Table, Tabled

from .options import check_options

NOTHING = "nothing in the model is trainable; unfreeze some of it, or use frozen=True"
Options = float | Mapping[str, Any]
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


class ParameterGroups(Tabled, list):
    """A list of groups, as every optimizer takes it; its repr is a table."""

    def table(self) -> Table:
        """Return a row per group: its name, its options, how much is in it."""
        options = list(dict.fromkeys(key for group in self for key in group if key not in ("name", "params")))
        rows = [
            [
                group["name"],
                *(group.get(option, "optimizer's") for option in options),
                len(group["params"]),
                sum(p.numel() for p in group["params"]),
            ]
            for group in self
        ]
        return Table(["group", *options, "tensors", "values"], rows)

    def to_dict(self) -> list[dict[str, Any]]:
        """Return one dictionary per group, with numbers in the place of tensors."""
        return self.table().to_dict()


def parameter_groups(
    model: nn.Module,
    rates: Mapping[Pattern | tuple[Pattern, ...], Options],
    *,
    default: Options | None = None,
    no_decay: bool = False,
    frozen: bool = False,
) -> ParameterGroups:
    """Return groups with every trainable parameter in exactly one; the model is not changed.

    The trap that this is for: a parameter in no group is not trained, and nobody says so. A rule by a part of
    the name, such as `"layer1" in name`, also catches `layer10`, or forgets the batch norms. Here what is left
    over is an error, and so is what two patterns want.

    A tied parameter is in one group, once. The `"name"` of a group is kept by the optimizer, in its
    `param_groups` and in its `state_dict()`, and is what `xray` and `timeline` call the group.

    Args:
        model: Any module.
        rates: From a pattern as in `ftlab.freezing.select`, or a tuple of them, to a learning rate or to a
            dictionary of options such as `{"lr": 1e-4, "weight_decay": 0}`. What is not given there comes from
            the optimizer; a `"name"` there is the group's name.
        default: The rate or the options of all parameters that no pattern chooses; without it they are an error.
        no_decay: Give biases and the parameters of norms a group of their own with weight decay 0.
        frozen: Take frozen parameters too. They cost nothing while they have no gradient, and are ready when
            they thaw.

    Raises:
        ValueError: If a trainable parameter is in no group or chosen twice, if a pattern chooses nothing
            trainable, if nothing is trainable at all, or if an option is misspelt or a rate negative, which an
            optimizer would accept.
        TypeError: If a rate is no number.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        >>> groups = parameter_groups(model, {"2": 1e-2}, default=1e-3)
        >>> groups
        group       lr    tensors    values
        -------  -----  ---------  --------
        2        0.01           2        10
        default  0.001          4        28
        >>> import torch
        >>> [group["name"] for group in torch.optim.AdamW(groups).param_groups]
        ['2', 'default']
        >>> parameter_groups(model, {"2": 1e-2})
        Traceback (most recent call last):
        ValueError: 4 trainable parameters are in no group: '0.weight', '0.bias', ...
    """
    call = "parameter_groups(model, {pattern: lr})"
    expect(model, nn.Module, "the model", call)
    expect(rates, Mapping, "what has the rates", call)
    wanted = [p for p in model.parameters() if p.requires_grad or frozen]
    chosen: dict[int, str] = {}
    parts: list[tuple[str, list[nn.Parameter], dict]] = []
    for pattern, options in rates.items():
        label = _label(model, pattern)
        found = _choose(model, pattern, label, {id(p) for p in wanted})
        _refuse_twice(model, found, label, chosen)
        chosen |= {id(p): label for p in found}
        options = _options(options, label)
        parts.append((options.pop("name", label), found, options))
    rest = [p for p in wanted if id(p) not in chosen]
    if rest and default is None:
        what = "parameters are" if frozen else "trainable parameters are"
        raise ValueError(
            f"{len(rest)} {what} in no group: {_some(model, rest)}; add a pattern for them, or default="
        )
    if rest:
        options = _options(default, "default")
        parts.append((options.pop("name", "default"), rest, options))
    if not parts:
        raise ValueError(NOTHING)
    return split_decay(model, parts, no_decay)


def split_decay(
    model: nn.Module, parts: Sequence[tuple[str, list[nn.Parameter], dict]], no_decay: bool
) -> ParameterGroups:
    """Make groups of named parts; with `no_decay`, biases and norms apart, with weight decay 0."""
    bare = without_decay(model) if no_decay else set()
    groups = ParameterGroups()
    for label, parameters, options in parts:
        for name, members, more in (
            (label, [p for p in parameters if id(p) not in bare], {}),
            (f"{label}, no decay", [p for p in parameters if id(p) in bare], {"weight_decay": 0.0}),
        ):
            if members:
                groups.append({"name": name, "params": members} | options | more)
    return groups


def without_decay(model: nn.Module) -> set[int]:
    """Return the ids of biases, norms and other vectors: weight decay is not for them."""
    norms = {id(p) for m in model.modules() if isinstance(m, _NORMS) for p in m.parameters(recurse=False)}
    return norms | {id(p) for p in model.parameters() if p.ndim <= 1}


def _choose(model: nn.Module, pattern: Any, label: str, wanted: set[int]) -> list[nn.Parameter]:
    patterns = pattern if isinstance(pattern, tuple) else (pattern,)
    if not patterns:
        raise ValueError("an empty tuple chooses nothing: name the parts that learn at this rate")
    found = choose(model, *patterns).parameters
    trainable = [p for p in found if id(p) in wanted]
    if not trainable:
        raise ValueError(
            f"{label!r} chooses {len(found)} parameters, all of them frozen: unfreeze them before you make the "
            f"optimizer, or take them along with frozen=True"
        )
    return trainable


def _refuse_twice(model: nn.Module, found: list[nn.Parameter], label: str, chosen: dict[int, str]) -> None:
    twice = [p for p in found if id(p) in chosen]
    if twice:
        raise ValueError(
            f"both {chosen[id(twice[0])]!r} and {label!r} choose {_some(model, twice)}; patterns must not overlap"
        )


def _options(options: Options | None, label: str) -> dict[str, Any]:
    found = dict(options) if isinstance(options, Mapping) else {"lr": options}
    check_options(found, f"group {label!r}")
    return found


def _label(model: nn.Module, pattern: Any) -> str:
    if isinstance(pattern, tuple):
        return " + ".join(_label(model, one) for one in pattern)
    if isinstance(pattern, nn.Module):
        names = [plain_name(model, name) for name, module in model.named_modules() if module is pattern]
        return (names[0] or type(pattern).__name__) if names else type(pattern).__name__
    return pattern if isinstance(pattern, str) else getattr(pattern, "__name__", str(pattern))


def _some(model: nn.Module, parameters: list[nn.Parameter], show: int = 3) -> str:
    """Name the first ones, each by all the names it has."""
    ids = {id(p): None for p in parameters}
    names: dict[int, list[str]] = {key: [] for key in ids}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in names:
            names[id(parameter)].append(repr(plain_name(model, name)))
    shown = [" = ".join(known) for known in list(names.values())[:show]]
    return ", ".join(shown) + (", ..." if len(names) > show else "")
