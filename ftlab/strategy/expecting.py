"""How long a training is going to take, and how far it is: said before it begins, and while it goes on."""

import time
from collections.abc import Callable

from torch import Tensor, nn

from ftlab.modes import evaluating

TRAINING, STEP = 0.3, 0.01  # seconds that a training and a step of it cost beside the layers
BACKWARD = 2  # forward passes' worth of work


class Pace:
    """How long each block of a model takes for one image: measured once, and corrected by what trainings took.

    The model is not changed. The trap: it is the time that this machine gave; under other load it is another.

    Args:
        model: The model.
        blocks: What `ftlab.learning_rates.decay.depths` calls its blocks, from the image to the head.
        images: A small batch.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        >>> pace = Pace(model, ["0", "1"], torch.zeros(8, 4))
        >>> len(pace.blocks), pace.before(1) == pace.blocks[0], pace.rest(1) == pace.blocks[1]
        (2, True, True)
    """

    def __init__(self, model: nn.Module, blocks: list[str], images: Tensor) -> None:
        with evaluating(model):
            model(images)  # the first pass through a network is slower than all others
            self.blocks = [seconds / len(images) for seconds in _block_seconds(model, blocks, images)]
        self.factor = 1.0

    def before(self, depth: int) -> float:
        """Return the seconds for one image up to the last `depth` blocks."""
        return self.factor * sum(self.blocks[:-depth])

    def rest(self, depth: int) -> float:
        """Return the seconds for one image in the last `depth` blocks."""
        return self.factor * sum(self.blocks[-depth:])

    def correct(self, expected: float, took: float) -> None:
        """Take into account how long something really took; something short says little, and changes little."""
        weight = expected / (expected + 1)
        self.factor *= (took / expected) ** weight


def _block_seconds(model: nn.Module, blocks: list[str], images: Tensor) -> list[float]:
    """Time one forward pass; a block lasts until the next one begins, and the first one from the start."""
    began: dict[int, float] = {}
    modules = [model.get_submodule(label.split(", ")[0]) for label in blocks]
    numbers = {module: number for number, module in enumerate(modules)}

    def note(module: nn.Module, inputs: tuple) -> None:
        began.setdefault(numbers[module], time.perf_counter())

    hooks = [module.register_forward_pre_hook(note) for module in modules]
    try:
        began[0] = time.perf_counter()
        model(images)
        began[len(blocks)] = time.perf_counter()
    finally:
        for hook in hooks:
            hook.remove()
    for number in range(len(blocks) - 1, 0, -1):  # one that is never called takes no time
        began.setdefault(number, began[number + 1])
    return [max(0.0, began[number + 1] - began[number]) for number in range(len(blocks))]


class Work:
    """One training in parts, with the seconds to be expected of each; reports how much of it is done.

    Args:
        should_stop: Asked before each batch.
        on_step: Called before each batch with the expected seconds that are done, and those of the whole.
    """

    def __init__(self, should_stop: Callable[[], bool], on_step: Callable[[float, float], object]) -> None:
        self.should_stop, self.on_step = should_stop, on_step
        self.total, self.done = 0.0, 0.0

    def part(self, batches: int, seconds: float) -> Callable[[], bool]:
        """Add a part of so many batches; return what is to be asked before each of them."""
        self.total += seconds
        each = seconds / max(batches, 1)

        def asked() -> bool:
            self.on_step(min(self.done, self.total), self.total)
            self.done += each
            return self.should_stop()

        return asked
