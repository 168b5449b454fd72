"""Run a model without computing anything: on the meta device there are shapes, and no numbers."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from ftlab.freezing.snapshot import Snapshot
from ftlab.given import inside, refuse_lazy, refuse_no_model
from ftlab.random_state import keep_random_state


def dry_run(model: nn.Module, example: torch.Tensor, *, training: bool = False) -> Any:
    """Return what the model gives for `example`, as shapes; the model is not changed, and nothing is computed.

    Raises:
        TypeError: It is no model, or the example no tensor.
        ValueError: The model has parameters without a shape yet (lazy modules).

    Example:
        >>> dry_run(nn.Linear(3, 2), torch.ones(5, 3)).shape
        torch.Size([5, 2])
    """
    refuse_no_model(model)
    if not isinstance(example, torch.Tensor):
        raise TypeError(
            f"the example must be a batch, a tensor (N, C, H, W), not a {type(example).__name__}; only its shape "
            "matters, so torch.zeros(2, 3, 224, 224) will do"
        )
    model = inside(model)
    refuse_lazy(model, "try again")
    tensors: dict[str, torch.Tensor] = {n: b.detach().to("meta") for n, b in model.named_buffers()}
    for name, parameter in model.named_parameters():
        tensors[name] = parameter.detach().to("meta").requires_grad_(parameter.is_floating_point())
    # functional_call itself leaves its tensors in a module that has two names, so all attributes are put back.
    attributes = Snapshot(model, values=False)
    try:
        with keep_random_state():
            model.train(training)
            return functional_call(model, tensors, (example.detach().to("meta"),))
    finally:
        attributes.restore()


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
