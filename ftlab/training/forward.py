"""The forward pass that `fit` and `evaluate` use: that of the model, with the channels last where it pays."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from ftlab.given import child_of_wrapper, first_lazy
from ftlab.training.caching.depthwise import QuickDepthwise
from ftlab.training.caching.memory_format import in_format, takes_channels_last
from ftlab.training.caching.prefix import Rest
from ftlab.training.caching.walk import is_watched

KNOWN = {"torch", "torchvision", "ftlab"}


class Forward:
    """The forward pass of `model`, with the channels last where that is quicker and gives the same.

    The first batch in each mode decides: two of its images are run both ways. Left alone is what would notice
    that, or be changed: a class of the user's own, whose forward may count its calls or print; a hook; what is
    compiled for a shape; a wrapper of several processes; a parameter that takes its shape from the first batch.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._found: dict[tuple, bool] = {}

    def __call__(self, images: Tensor) -> Any:
        """Return what the model gives for these images."""
        if not self.channels_last(images):
            return self.model(images)
        with QuickDepthwise():
            return self.model(in_format(images))

    def channels_last(self, images: Tensor) -> bool:
        """Return whether these images are run with the channels last."""
        if images.ndim != 4 or images.device.type != "cpu":
            return False
        if isinstance(self.model, Rest):  # it sees to it by itself
            return False
        now = tuple((id(module), module.training) for module in self.model.modules())
        if now not in self._found:
            whole = _has_any_global_hook() or first_lazy(self.model)
            alone = whole or any(map(_is_left_alone, self.model.modules()))
            self._found[now] = not alone and takes_channels_last(self.model, self.model, images[:2])
        return self._found[now]


def _is_left_alone(module: nn.Module) -> bool:
    own = type(module).__module__.partition(".")[0] not in KNOWN
    compiled = isinstance(module, torch.jit.ScriptModule) or getattr(module, "_compiled_call_impl", None)
    return bool(own or compiled) or is_watched(module) or child_of_wrapper(module) is not None
