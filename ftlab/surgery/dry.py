"""Run a model without computing anything: on the meta device there are shapes, and no numbers."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from ftlab.modes import keep_modes
from ftlab.random_state import keep_random_state


def dry_run(model: nn.Module, example: torch.Tensor, *, training: bool = False) -> Any:
    """Return what the model gives for `example`, as shapes; the model is not changed, and nothing is computed.

    Example:
        >>> dry_run(nn.Linear(3, 2), torch.ones(5, 3)).shape
        torch.Size([5, 2])
    """
    tensors: dict[str, torch.Tensor] = {n: b.detach().to("meta") for n, b in model.named_buffers()}
    for name, parameter in model.named_parameters():
        tensors[name] = parameter.detach().to("meta").requires_grad_(parameter.is_floating_point())
    with keep_modes(model), keep_random_state():
        model.train(training)
        return functional_call(model, tensors, (example.detach().to("meta"),))


def on_meta(model: nn.Module) -> nn.Module:
    """Return a copy of the model without numbers; it takes no memory, and the model is not changed.

    Example:
        >>> on_meta(nn.Linear(3, 2)).weight.device
        device(type='meta')
    """
    memo: dict[int, Any] = {id(buffer): buffer.detach().to("meta") for buffer in model.buffers()}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
    return copy.deepcopy(model, memo)


@contextmanager
def watching(modules: dict[str, nn.Module], see: Callable[[str, tuple, Any], None]) -> Iterator[None]:
    """Call `see(name, inputs, output)` whenever one of the modules has run; afterwards no hook stays."""

    def hook_of(name: str) -> Callable:
        return lambda module, inputs, output: see(name, inputs, output)

    handles = [module.register_forward_hook(hook_of(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
