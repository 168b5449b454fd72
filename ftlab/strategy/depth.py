"""Train from a chosen depth on, again and again: what lies before it is computed once."""

import copy
import math
import time
from collections.abc import Callable
from functools import cache

import torch
from torch import nn
from torch.utils.data import Dataset, Subset

from ftlab.learning_rates.decay import depths
from ftlab.random_state import keep_random_state, own_random_state
from ftlab.surgery import head_names
from ftlab.training import fit
from ftlab.training.caching.images import places

from .declaring import BODY, HEAD, Strategy
from .drawing import classes_of, draw, refuse_other_classes, targets_of
from .expecting import BACKWARD, STEP, TRAINING, Pace, Work
from .kept import Kept
from .running import BATCH, MEASURED, Model, Run, accuracy_on, batches, fresh, memory

LOOKED_AT = 200  # test images, at most, that are looked at while a training goes on


class DepthTrials:
    """Trainings of one model on one set of images that differ in depth, number of images, rate and seed.

    The model is not changed. What the frozen blocks give is computed once for each depth, for all images, so
    that every further training at this depth runs only what learns. The same settings give the same result,
    whatever was trained before or stopped halfway, and whatever draws random numbers in another thread meanwhile:
    a training draws its own, and leaves the random state alone.

    Args:
        model: A name for `ftlab.pretrained.load`, or a classifier of your own; it gets a new head.
        train: Items are (image tensor, class number), with `classes` and `targets`, or a `Subset` of that.
        test: The same, never trained on.

    Raises:
        ValueError: The classes of the two differ, or an image is another one each time (a random augmentation).

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
        refuse_other_classes(train, test)
        self.train, self.test = train, test
        self.classes, self.targets = classes_of(train), targets_of(train)
        with keep_random_state():
            self.model = fresh(model, True, len(self.classes))
        self.blocks = [label for label, _ in depths(self.model)]
        self.head = head_names(self.model)[-1]
        self._before = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.kept = Kept(self.model, len(self.blocks))
        self.kept.add(train)
        self.kept.add(test)
        self.pace = cache(self._measure)  # once, when it is first asked for
        self._memory: dict[tuple[int, int], int] = {}  # by depth and size of the batches

    def on(self, test: Dataset) -> "DepthTrials":
        """Return trials that are measured on other images; what is computed of the training images is shared.

        Never train with both at the same time.

        Raises:
            ValueError: As for the class itself.
        """
        refuse_other_classes(self.train, test)
        self.kept.add(test)
        other = copy.copy(self)
        other.test = test
        return other

    def _measure(self) -> Pace:
        """Measure how long each block takes for an image."""
        images = [self.train[place][0] for place in places(len(self.train), 8)]
        return Pace(self.model, self.blocks, torch.stack(images).contiguous(memory_format=torch.channels_last))

    def expected(self, depth: int, images: int | None = None, *, epochs: int = 10) -> float:
        """Return about how many seconds `run` is going to take, with what has to be computed once before it."""
        return sum(seconds for _, seconds in self._parts(depth, images, epochs).values())

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
        on_look: Callable[[int, float], object] = lambda epochs, accuracy: None,
        on_step: Callable[[float, float], object] = lambda done, expected: None,
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
            on_look: Called after 1, 2, 4, 8, ... epochs with their number and the accuracy on test images, on 200
                of them if there are more.
            on_step: Called before each batch with the expected seconds that are done, and those of the whole.

        Raises:
            KeyboardInterrupt: It was stopped.
        """
        strategy = self.strategy(depth, lr, body_lr)
        chosen = None if images is None else draw(self.train, images, seed).indices
        work, start = Work(should_stop, on_step), time.perf_counter()
        ask = {name: work.part(*part) for name, part in self._parts(depth, images, epochs).items()}
        with own_random_state(seed):
            self._restore(seed)
            optimizer, _ = strategy.apply(self.model, epochs)  # nothing thaws later: once is enough
            model = self.kept.rest(depth)
            train = self.kept.of(depth, self.train, ask["train images"])
            train = train if chosen is None else Subset(train, chosen)
            test = self.kept.of(depth, self.test, ask["test images"])
            some = test if len(test) <= LOOKED_AT else Subset(test, places(len(test), LOOKED_AT))

            def look(epoch: int) -> None:
                if epoch in _looks(epochs):
                    on_look(epoch, accuracy_on(model, some, ask["looks"]))

            began = time.process_time()
            history = fit(
                model, batches(train), epochs=epochs, optimizer=optimizer, seed=seed, progress=False, cache=False,
                on_epoch_start=look, should_stop=ask["training"],
            )  # fmt: skip
            seconds = time.process_time() - began
            if history.stopped and not history.stopped.startswith("the loss became"):
                raise KeyboardInterrupt(history.stopped)
            accuracy = accuracy_on(model, test, ask["test"])
            size = self._bytes(depth, model, train)
        self.pace().correct(work.total, time.perf_counter() - start)
        trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        return Run(strategy.name, "", seed, len(train), accuracy, seconds, size, trained, history.stopped)

    def _parts(self, depth: int, images: int | None, epochs: int) -> dict[str, tuple[int, float]]:
        """Return how many batches each part of a training has, and the seconds to be expected."""
        count, tests = len(self.train) if images is None else images, len(self.test)
        before, rest = self.pace().before(depth), self.pace().rest(depth)
        some, looks = min(tests, LOOKED_AT), len(_looks(epochs))
        parts = {
            f"{name} images": (math.ceil(len(dataset) / BATCH), len(dataset) * before)
            for name, dataset in (("train", self.train), ("test", self.test))
        }
        for name, dataset in (("train", self.train), ("test", self.test)):
            if self.kept.has(depth, dataset):
                parts[f"{name} images"] = (0, 0.0)
        steps = epochs * math.ceil(count / BATCH)
        parts["training"] = steps, TRAINING + epochs * count * (1 + BACKWARD) * rest + steps * STEP
        parts["looks"] = looks * math.ceil(some / MEASURED), looks * some * rest
        parts["test"] = math.ceil(tests / MEASURED), tests * rest
        return parts

    def _bytes(self, depth: int, model: nn.Module, train: Dataset) -> int:
        """Return what a step holds; it depends on the depth and on the size of the batches only."""
        key = depth, min(BATCH, len(train))
        if key not in self._memory:
            self._memory[key] = memory(model, train)
        return self._memory[key]

    def _restore(self, seed: int) -> None:
        """Put the parameters back to what they were, with the new head of this seed."""
        with torch.no_grad():
            for name, tensor in self.model.state_dict().items():
                tensor.copy_(self._before[name])
        with keep_random_state(seed):
            self.model.get_submodule(self.head).reset_parameters()


def _looks(epochs: int) -> list[int]:
    """Return after how many epochs it is looked at test images: often in the beginning, where much happens.

    Example:
        >>> _looks(10)
        [1, 2, 4, 8]
    """
    return [2**power for power in range(epochs.bit_length()) if 2**power < epochs]
