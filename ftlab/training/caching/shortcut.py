"""What `fit` asks for at the start of each epoch: the model and the loaders to train with."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn
from torch.utils.data import DataLoader

from ftlab.training.caching.activations import CachedLoader
from ftlab.training.caching.cache import Cache
from ftlab.training.caching.traces import layout
from ftlab.training.forward import Forward


@dataclass
class Shortcut:
    """Train on activations that are computed once where that gives the same; on the images otherwise.

    Args:
        model: The whole model.
        train: Batches of images.
        val: The same, or None.
        wanted: False always trains on the images.
        should_stop: As in `fit`.
        note: What was done, in words.
    """

    model: nn.Module
    train: DataLoader
    val: DataLoader | None
    wanted: bool = True
    should_stop: Callable[[], bool] = lambda: False
    note: str = ""
    _cache: Cache | None = None
    _loaders: dict[str, CachedLoader] = field(default_factory=dict)
    _flags: list[tuple] | None = None

    def __post_init__(self) -> None:
        self._forward = Forward(self.model)

    def training(self, epochs_left: int) -> tuple[Forward, DataLoader]:
        """Return the forward pass and the batches to train with in the next epoch."""
        if self.wanted:
            self._look(epochs_left)
        return self._with("train", self.train)

    def validation(self) -> tuple[Forward, DataLoader]:
        """Return the forward pass and the batches to measure with."""
        return self._with("val", self.val)

    def _with(self, name: str, images: DataLoader) -> tuple[Forward, DataLoader]:
        kept = self._loaders.get(name)
        return (Forward(self._cache.parts.rest), kept) if kept is not None else (self._forward, images)

    def _look(self, epochs_left: int) -> None:
        """Compute the activations if that is worth it; again if something has changed, an unfreezing say."""
        flags = layout(self.model)
        if flags == self._flags and not (self._loaders and self._cache.changed()):
            return
        self._flags, self._cache, self._loaders = flags, None, {}
        if epochs_left < 2:  # once through the images is needed anyway
            return
        try:
            self._cache = Cache(self.model, self.train, self.should_stop, progress=False, disk=False)
        except Exception:  # whatever stands in the way, the plain loop is still there
            return
        for name, images in (("train", self.train), ("val", self.val)):
            if images is not None:
                self._keep(name, images)

    def _keep(self, name: str, images: DataLoader) -> None:
        try:
            self._loaders[name] = self._cache.loader(images)
            self._loaders[name].asks = False  # `_look` does, once per epoch
        except Exception:  # images of another size, say
            return
        what = "frozen part" if "train" in self._loaders else "frozen part (of the validation only)"
        self.note = f"{what} computed once, up to {', '.join(self._cache.parts.after)}"
