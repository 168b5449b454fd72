"""The state of a model as plain PyTorch."""

from textwrap import fill

from torch import nn

from ftlab.freezing.norms import is_held
from ftlab.widgets.blocks import blocks


def freeze_code(model: nn.Module) -> str:
    """Return plain PyTorch that brings a fresh copy of this model to the same state.

    Flags and held norms are set; the model given here is not changed.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
        >>> from ftlab.freezing import freeze
        >>> _ = freeze(model, "0", "1")
        >>> print(freeze_code(model))
        # `model` is your model; it is changed in place
        model.requires_grad_(True)
        for name in ["0", "1"]:
            model.get_submodule(name).requires_grad_(False)
        for parameter in model.parameters():
            if not parameter.requires_grad:
                parameter.grad = None  # a leftover gradient would still move it at the next optimizer.step()
        # the flag does not stop batch norm: hold its statistics, also through model.train()
        for name in ["1"]:
            norm = model.get_submodule(name)
            norm.eval()
            norm.train = lambda mode=True, norm=norm: norm
    """
    found = blocks(model)
    frozen = {block.path: block for block in found if block.trains is False}
    highest = [b for path, b in frozen.items() if not path or path.rpartition(".")[0] not in frozen]
    lines = ["# `model` is your model; it is changed in place"]
    if "" in frozen:
        lines.append("model.requires_grad_(False)")
    else:
        lines.append("model.requires_grad_(True)")
        lines += _loop([b.path for b in highest if b.kind != "parameter"], "get_submodule")
        lines += _loop([b.path for b in highest if b.kind == "parameter"], "get_parameter")
    if frozen:
        lines.append(_DROP)
    if held := [name for name, module in model.named_modules() if is_held(module)]:
        lines.append(_HOLD.format(names=_names(held)))
    return "\n".join(lines)


_DROP = """\
for parameter in model.parameters():
    if not parameter.requires_grad:
        parameter.grad = None  # a leftover gradient would still move it at the next optimizer.step()"""

_HOLD = """\
# the flag does not stop batch norm: hold its statistics, also through model.train()
for name in {names}:
    norm = model.get_submodule(name)
    norm.eval()
    norm.train = lambda mode=True, norm=norm: norm"""


def _loop(names: list[str], get: str) -> list[str]:
    if not names:
        return []
    return [f"for name in {_names(names)}:", f"    model.{get}(name).requires_grad_(False)"]


def _names(names: list[str]) -> str:
    return fill("[" + ", ".join(f'"{name}"' for name in names) + "]", 88, subsequent_indent="    ")
