"""Which weights a call of torchvision asks for: what it decides before it downloads anything."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torchvision.models._api import WeightsEnum

from ftlab.random_state import keep_random_state


class _Asked(BaseException):  # no error: it ends the call at the moment at which it asks for a file
    def __init__(self, entry: WeightsEnum) -> None:
        self.entry = entry


def asked_weights(call: Callable[[], Any]) -> WeightsEnum | None:
    """Run `call` until it asks for a weights file, and return the entry that it asks for; None means random.

    Nothing is downloaded, no file is read, and the model has no memory (it is built on the meta device), so a
    large network takes as long as a small one. Errors and warnings of the call come through.

    Args:
        call: Calls a builder of `torchvision.models` without an argument, such as `lambda: models.resnet50()`.

    Example:
        >>> from torchvision import models
        >>> print(asked_weights(lambda: models.resnet50()))
        None
        >>> asked_weights(lambda: models.resnet50(weights="DEFAULT"))
        ResNet50_Weights.IMAGENET1K_V2
    """
    with keep_random_state(), torch.device("meta"), _no_file():
        try:
            call()
        except _Asked as asked:
            return asked.entry
    return None


@contextmanager
def _no_file() -> Iterator[None]:
    """Make every entry say in this thread that it was asked for, where it would give its tensors."""
    here, classes = threading.get_ident(), [WeightsEnum, *_own_readers(WeightsEnum)]
    originals = {kind: vars(kind)["get_state_dict"] for kind in classes}

    def asks(original: Callable) -> Callable:
        def get_state_dict(self: WeightsEnum, *args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() == here:
                raise _Asked(self)
            return original(self, *args, **kwargs)

        return get_state_dict

    for kind, original in originals.items():
        kind.get_state_dict = asks(original)
    try:
        yield
    finally:
        for kind, original in originals.items():
            kind.get_state_dict = original


def _own_readers(kind: type[WeightsEnum]) -> list[type[WeightsEnum]]:
    """Return the kinds of weights that read their file in their own way, as those of `efficientnet_lite0` do."""
    below = [sub for direct in kind.__subclasses__() for sub in (direct, *_own_readers(direct))]
    return list(dict.fromkeys(sub for sub in below if "get_state_dict" in vars(sub)))
