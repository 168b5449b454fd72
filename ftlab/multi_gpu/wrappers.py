"""What is around a model: DataParallel, DistributedDataParallel, FSDP, torch.compile, in any nesting."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from ftlab.given import inside


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside all wrappers: the object that was wrapped, with its own names.

    The model is not changed, and nothing is copied: training the wrapper trains what is returned.

    The trap: to ask the machine (`torch.cuda.device_count() > 1`) whether a model is wrapped. The answer is wrong
    on the next machine. This asks the model. FSDP's `fully_shard` is no wrapper: it changes the model in place
    and leaves the names; its parameters stay sharded here. Wrappers of single layers inside stay too.

    Args:
        model: Any model; one that is not wrapped is returned as it is.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> list(nn.DataParallel(nn.DataParallel(model)).state_dict())
        ['module.module.weight', 'module.module.bias']
        >>> unwrap(nn.DataParallel(nn.DataParallel(model))) is model
        True
    """
    return inside(model)


def strip_prefixes(names: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state_dict with the names of the model itself, whatever it was wrapped in when it was saved.

    The trap: a model whose own first part is called `module` cannot be told from a wrapped one by its names.

    Args:
        names: The entries by name, of one or of several nested wrappers. It is not changed.

    Raises:
        ValueError: Two entries would get the same name.

    Example:
        >>> strip_prefixes({"_orig_mod.module.fc.weight": 1, "fc.bias": 2})
        {'fc.weight': 1, 'fc.bias': 2}
    """
    stripped: dict[str, Any] = {}
    for name, value in names.items():
        short = name.replace("_orig_mod.", "")  # a layer inside may have been compiled as well
        while short.startswith("module."):
            short = short.removeprefix("module.")
        if short in stripped:
            raise ValueError(
                f"both {name!r} and another entry are {short!r} without prefixes: load them one by one"
            )
        stripped[short] = value
    return stripped
