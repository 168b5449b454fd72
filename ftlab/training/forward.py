"""The forward pass that `fit` and `evaluate` use: that of the model, with the channels last where it pays."""

from typing import Any

from torch import Tensor, nn

from ftlab.training.caching.depthwise import QuickDepthwise
from ftlab.training.caching.memory_format import in_format, takes_channels_last
from ftlab.training.caching.prefix import Rest
from ftlab.training.caching.walk import is_watched

KNOWN = {"torch", "torchvision", "ftlab"}


class Forward:
    """The forward pass of `model`, with the channels last where that is quicker and gives the same.

    The first batch in each mode decides: two of its images are run both ways. A class of the user's own is left
    alone, since its forward may count its calls or print; so is a model that somebody listens to by a hook.
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
            own = any(map(_is_own, self.model.modules()))
            self._found[now] = not own and takes_channels_last(self.model, self.model, images[:2])
        return self._found[now]


def _is_own(module: nn.Module) -> bool:
    return type(module).__module__.partition(".")[0] not in KNOWN or is_watched(module)
