"""Freezing and unfreezing: the flag, the leftover gradient, and the norms inside."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Literal

from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy

from .norms import hold, is_held, release
from .selection import Pattern, Selection, choose, is_norm, names_by_tensor, scopes


@dataclass(frozen=True)
class FreezeReceipt:
    """What `freeze` or `unfreeze` did; its repr says it in sentences.

    Attributes:
        action: Which of the two.
        names: The parameters that were chosen, tied ones under each of their names.
        trainable: How many values of the whole model are trainable now.
        total: How many values it has.
        norms: The norms whose statistics were held or let go by this call.
        drifting: The norms inside what is frozen whose statistics still move in train mode.
        ties: The names of each tensor that has several.
        random: The dropout modules inside what is frozen: they stay random in train mode.
    """

    action: Literal["froze", "unfroze"]
    names: list[str]
    trainable: int
    total: int
    norms: list[str] = field(default_factory=list)
    drifting: list[str] = field(default_factory=list)
    ties: list[list[str]] = field(default_factory=list)
    random: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        tensors = len(self.names) - sum(len(tie) - 1 for tie in self.ties)
        held = "held, also through model.train()" if self.action == "froze" else "free to move again"
        lines = [
            f"{self.action} {tensors} parameters; {self.trainable:,} of {self.total:,} values are trainable",
            *(f"{' and '.join(tie)} are one tensor: they freeze and train together" for tie in self.ties),
            f"batch norm statistics {held}: {_few(self.norms)}" if self.norms else "",
            f"batch norm statistics still moving in train mode: {_few(self.drifting)}" if self.drifting else "",
            f"dropout inside, still random in train mode: {_few(self.random)}" if self.random else "",
        ]
        return "\n".join(line for line in lines if line)

    def _repr_html_(self) -> str:
        return "<br>".join(map(escape, repr(self).splitlines()))

    def to_dict(self) -> dict:
        """Return the fields as a dictionary."""
        return asdict(self)


def freeze(model: nn.Module, *patterns: Pattern, batch_norm: Literal["eval", "train"] = "eval") -> FreezeReceipt:
    """Freeze parameters and hold the batch norm statistics inside; the model is changed in place.

    Sets `requires_grad` to False and `grad` to None. A leftover gradient, even one of zeros, would let momentum,
    Adam's moments or weight decay move the parameter at the next `optimizer.step()`.

    The trap: the flag does not stop batch norm. In train mode its running statistics go on moving, so the frozen
    part computes something else. A norm lies inside what is frozen if all of its own parameters are frozen;
    if it has none, those of the nearest module around it count. Dropout inside a frozen part is left alone:
    it stays random in train mode.

    Held norms stay in eval mode through `model.train()`, survive `copy.deepcopy`, `pickle` and `torch.compile`,
    and end with `unfreeze`. Setting the attribute `training` by hand still gets through. The keys of
    `state_dict()` stay the same; a model pickled whole needs ftlab to be loaded.

    Args:
        model: Any module; one that `torch.compile` returned works too.
        *patterns: What to freeze, as in `select`; none means everything.
        batch_norm: `"eval"` holds the statistics of norms inside, `"train"` leaves them moving (and lets go of
            those held before).

    Raises:
        ValueError: If a pattern chooses nothing or `batch_norm` is another word; nothing is changed then.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1))
        >>> freeze(model, "0", "1")
        froze 4 parameters; 18 of 258 values are trainable
        batch norm statistics held, also through model.train(): 1 (1)
        >>> model.train()[1].training
        False
    """
    if batch_norm not in ("eval", "train"):
        raise ValueError(f"batch_norm is 'eval' (hold statistics) or 'train' (let them move), not {batch_norm!r}")
    chosen = choose(model, *patterns)
    for parameter in chosen.parameters:
        parameter.requires_grad_(False)
        parameter.grad = None
    norms = {name: module for name, module, frozen in _touched(model, chosen) if is_norm(module) and frozen}
    changed = [name for name, module in norms.items() if is_held(module) != (batch_norm == "eval")]
    for name, module in norms.items():
        (hold if batch_norm == "eval" else release)(module, _around(model, name))
    return _receipt("froze", model, chosen, changed)


def unfreeze(model: nn.Module, *patterns: Pattern) -> FreezeReceipt:
    """Make parameters trainable and let go of the norms inside; the model is changed in place.

    A norm that was held goes back to the mode of the module around it, as if it had never been held.

    The trap: an optimizer that was built from the trainable parameters only does not know the new ones. Give
    them to it with `optimizer.add_param_group`, or let `phases` do it; `audit` shows what does not move.

    Args:
        model: Any module.
        *patterns: What to unfreeze, as in `select`; none means everything, also what was frozen by other means.

    Raises:
        ValueError: If a pattern chooses nothing.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> freeze(model)
        froze 4 parameters; 0 of 13 values are trainable
        >>> unfreeze(model, "1")
        unfroze 2 parameters; 4 of 13 values are trainable
    """
    chosen = choose(model, *patterns)
    for parameter in chosen.parameters:
        if parameter.is_floating_point() or parameter.is_complex():  # whole numbers have no gradient
            parameter.requires_grad_(True)
    changed = {name: module for name, module, _ in _touched(model, chosen) if is_held(module)}
    for name, module in changed.items():
        release(module, _around(model, name))
    return _receipt("unfroze", model, chosen, list(changed))


def _touched(model: nn.Module, chosen: Selection) -> Iterator[tuple[str, nn.Module, bool]]:
    """Yield the modules that lie in what was chosen, even in part, and whether they now lie in a frozen part."""
    parameters = {id(parameter) for parameter in chosen.parameters}
    modules = {id(inner) for module in chosen.modules for inner in module.modules()}
    for name, module, scope in scopes(model):
        if id(module) in modules or any(id(parameter) in parameters for parameter in scope):
            yield name, module, not any(parameter.requires_grad for parameter in scope)


def _around(model: nn.Module, name: str) -> nn.Module | None:
    return model.get_submodule(name.rpartition(".")[0]) if name else None


def _receipt(action: str, model: nn.Module, chosen: Selection, norms: list[str]) -> FreezeReceipt:
    frozen = {name: module for name, module, inside in _touched(model, chosen) if inside}
    sizes = [(0 if is_lazy(p) else p.numel(), p.requires_grad) for p in model.parameters()]
    names = names_by_tensor(model)  # once: this runs at every click on a panel
    ties = [names[id(parameter)] for parameter in chosen.parameters if len(names[id(parameter)]) > 1]
    return FreezeReceipt(
        action,
        chosen.names,
        trainable=sum(size for size, trainable in sizes if trainable),
        total=sum(size for size, _ in sizes),
        norms=norms,
        drifting=[name for name, module in frozen.items() if is_norm(module) and not is_held(module)],
        ties=ties,
        random=[name for name, module in frozen.items() if _is_random(module)],
    )


def _is_random(module: nn.Module) -> bool:
    """Return whether the module draws random numbers in train mode: every dropout, and stochastic depth."""
    kind = isinstance(module, _DropoutNd) or type(module).__name__ == "StochasticDepth"
    return kind and module.p > 0


def _few(names: list[str], count: int = 3) -> str:
    return f"{len(names)} ({', '.join(names[:count])}{', ...' if len(names) > count else ''})"
