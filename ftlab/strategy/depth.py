"""Train from a chosen depth on, again and again: what lies before it is computed once."""

import time
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

from ftlab.learning_rates.decay import depths
from ftlab.random_state import keep_random_state
from ftlab.surgery import head_names
from ftlab.training import cached, fit, loader
from ftlab.training.caching.activations import CachedLoader

from .declaring import BODY, HEAD, Strategy
from .drawing import draw
from .running import Model, Run, accuracy_on, batches, fresh, memory


class DepthTrials:
    """Trainings of one model on one set of images that differ in depth, number of images, rate and seed.

    The model is not changed. What the frozen blocks give is computed once for each depth, for all images, so
    that every further training at this depth runs only what learns.

    Args:
        model: A name for `ftlab.pretrained.load`, or a classifier of your own; it gets a new head.
        train: Items are (image tensor, class number), with `classes` and `targets`.
        test: The same, never trained on.

    Raises:
        ValueError: The classes of the two differ.

    Example:
        >>> from torch import nn
        >>> from torchvision.datasets import FakeData
        >>> from torchvision.transforms import ToTensor
        >>> data = FakeData(12, (3, 8, 8), num_classes=2, transform=ToTensor())
        >>> data.classes, data.targets = ["cat", "dog"], [int(target) for _, target in data]
        >>> body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> trials = DepthTrials(nn.Sequential(body, nn.Linear(4, 2)), data, data)
        >>> trials.blocks
        ['0.0', '1']
        >>> trials.run(depth=1, images=8).images
        8
    """

    def __init__(self, model: Model, train: Dataset, test: Dataset) -> None:
        if list(train.classes) != list(test.classes):
            raise ValueError(f"the classes of train and test differ: {train.classes[:3]} and {test.classes[:3]}")
        self.train, self.test = train, test
        with keep_random_state():
            self.model = fresh(model, True, len(train.classes))
        self.blocks = [label for label, _ in depths(self.model)]
        self.head = head_names(self.model)[-1]
        self._before = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self._known: dict[int, tuple[nn.Module, Dataset, Dataset]] = {}

    def strategy(self, depth: int, lr: float = 3e-3, body_lr: float = 3e-4) -> Strategy:
        """Return the strategy that trains the last `depth` blocks: 1 is the head only.

        Raises:
            ValueError: There are not so many blocks.
        """
        if not 1 <= depth <= len(self.blocks):
            raise ValueError(f"depth is 1 (the head) to {len(self.blocks)} (everything), not {depth}")
        name = {1: "head only", len(self.blocks): "everything"}.get(depth, f"the last {depth} blocks")
        body = {} if depth == 1 else dict.fromkeys(self.parts(depth), body_lr)
        return Strategy(name, {HEAD: lr} | body)

    def parts(self, depth: int) -> list[str]:
        """Return the parts of the body that learn at this depth, as patterns."""
        if depth == len(self.blocks):
            return [BODY]
        return [part for label in self.blocks[-depth:-1] for part in label.split(", ")]

    def run(
        self,
        depth: int,
        images: int | None = None,
        *,
        lr: float = 3e-3,
        body_lr: float = 3e-4,
        epochs: int = 10,
        seed: int = 0,
        should_stop: Callable[[], bool] = lambda: False,
        on_epoch: Callable[[int], object] = lambda epoch: None,
    ) -> Run:
        """Train a new head, and the blocks before it down to `depth`, on so many images; return what came of it.

        Args:
            depth: How many blocks learn, from the head on.
            images: How many are drawn; None takes all.
            lr: Rate of the head.
            body_lr: Rate of the other blocks that learn.
            epochs: How often the images are gone through.
            seed: Of the draw, the head and the order.
            should_stop: Asked before each batch.
            on_epoch: Called with the number of each epoch before it begins.

        Raises:
            KeyboardInterrupt: It was stopped.
        """
        strategy = self.strategy(depth, lr, body_lr)
        self._restore(seed)
        optimizer, before_epoch = strategy.apply(self.model, epochs)
        model, train, test = self._from(depth, should_stop)
        start = time.process_time()
        places = None if images is None else draw(self.train, images, seed).indices
        chosen = train if places is None else Subset(train, places)
        history = fit(
            model, batches(chosen), epochs=epochs, optimizer=optimizer, seed=seed, progress=False, cache=False,
            on_epoch_start=[before_epoch, on_epoch], should_stop=should_stop,
        )  # fmt: skip
        seconds = time.process_time() - start
        if history.stopped and not history.stopped.startswith("the loss became"):
            raise KeyboardInterrupt(history.stopped)
        accuracy = accuracy_on(model, test, should_stop)
        trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        note, size = history.stopped, memory(model, chosen)
        return Run(strategy.name, "", seed, len(chosen), accuracy, seconds, size, trained, note)

    def _restore(self, seed: int) -> None:
        """Put the parameters back to what they were, with the new head of this seed."""
        with torch.no_grad():
            for name, tensor in self.model.state_dict().items():
                tensor.copy_(self._before[name])
        with keep_random_state(seed):
            self.model.get_submodule(self.head).reset_parameters()

    def _from(self, depth: int, should_stop: Callable[[], bool]) -> tuple[nn.Module, Dataset, Dataset]:
        """Return what is run in training at this depth, and what it is trained and measured on."""
        if depth == len(self.blocks):
            return self.model, self.train, self.test
        if depth not in self._known:
            train, test = loader(self.train, batch_size=32), loader(self.test, batch_size=64)
            quick = cached(self.model, train, test, should_stop=should_stop, progress=False)
            self._known[depth] = quick.model, _plain(quick.train), _plain(quick.val)
        return self._known[depth]


def _plain(kept: CachedLoader) -> TensorDataset:
    """Return stored activations without the look whether the model has changed.

    It has, in trainings at other depths, and was put back.
    """
    return TensorDataset(kept.dataset.values[0], kept.dataset.targets)
