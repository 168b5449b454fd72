"""One training: a strategy, some data, a seed; and what came of it."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ftlab.freezing.costs import saved_bytes
from ftlab.freezing.selection import is_norm
from ftlab.pretrained import load
from ftlab.random_state import keep_random_state
from ftlab.surgery import replace_head
from ftlab.training import evaluate, fit, loader

from .declaring import Strategy
from .drawing import Case, classes_of

BATCH = 32  # images per step
MEASURED = 64  # images per batch where nothing is trained
Model = str | nn.Module


@dataclass(frozen=True)
class Run:
    """What one training gave.

    Attributes:
        strategy: Its name.
        case: The name of the data.
        seed: Decides the draw of images, the new head, the order of the batches, and dropout.
        images: How many it was trained on.
        accuracy: On the test images.
        seconds: Processor time of the training, with what is computed once before it; what else the machine does,
            and an accelerator, does not count.
        memory: Bytes that the largest step holds: parameters, gradients, optimizer state, and what is kept for
            backward. Counted, not looked up in the system, where other work shows as well.
        trained: How many values learned.
        note: Why the training ended early, if it did.
    """

    strategy: str
    case: str
    seed: int
    images: int
    accuracy: float
    seconds: float
    memory: int
    trained: int
    note: str = ""


def train(
    model: Model,
    strategy: Strategy,
    images: Dataset,
    epochs: int,
    seed: int,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[nn.Module, dict]:
    """Return a trained copy of `model`, and what the training took; `model` itself is not changed.

    What is frozen is in eval mode, so `fit` computes it once where that pays.

    Raises:
        KeyboardInterrupt: It was stopped.
    """
    with keep_random_state(seed):
        start = time.process_time()
        new = fresh(model, strategy.pretrained, len(classes_of(images)))
        optimizer, before_epoch = strategy.apply(new, epochs)
        history = fit(
            new, batches(images), epochs=epochs, optimizer=optimizer, seed=seed,
            on_epoch_start=before_epoch, should_stop=should_stop, progress=False,
        )  # fmt: skip
        seconds = time.process_time() - start
    note = history.stopped
    if note and not note.startswith("the loss became"):
        raise KeyboardInterrupt(note)
    trained = sum(p.numel() for p in new.parameters() if p.requires_grad)
    return new, {"seconds": seconds, "trained": trained, "memory": memory(new, images), "note": note}


def run(
    model: Model,
    strategy: Strategy,
    cases: dict[str, Case],
    seed: int,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Run]:
    """Train once and measure on the test images of each case; the cases differ in nothing but these."""
    case = next(iter(cases.values()))
    images = case.drawn(seed)
    trained, took = train(model, strategy, images, case.epochs, seed, should_stop=should_stop)
    accuracies = {name: accuracy_on(trained, one.test, should_stop) for name, one in cases.items()}
    return [
        Run(strategy.name, name, seed, len(images), accuracy=accuracy, **took)
        for name, accuracy in accuracies.items()
    ]


def accuracy_on(model: nn.Module, images: Dataset, should_stop: Callable[[], bool] = lambda: False) -> float:
    """Return how often the model is right in eval mode; one whose numbers ran away is measured as well."""
    found = evaluate(
        model, loader(images, batch_size=MEASURED), loss=lambda logits, targets: torch.zeros(()),
        should_stop=should_stop, progress=False,
    )  # fmt: skip
    return found.accuracy


def fresh(model: Model, pretrained: bool, num_classes: int) -> nn.Module:
    """Return a model of its own with a new head: pretrained, or with random numbers; `model` is not changed."""
    if isinstance(model, str):
        new = load(model, weights="DEFAULT" if pretrained else None, num_classes=num_classes)
    else:
        new = copy.deepcopy(model)
        if not pretrained:
            _reset(new)
        replace_head(new, num_classes)
    if not pretrained:
        _quick_statistics(new)
    # The numbers are the same; convolutions on a CPU are two to three times as fast with the channels last.
    return new.to(memory_format=torch.channels_last)


def _quick_statistics(model: nn.Module) -> None:
    """Let the batch norm statistics follow at PyTorch's own pace.

    Some networks set a hundredth per batch, made for a million images. After forty batches that is still mostly
    the mean 0 and variance 1 of the beginning, and eval mode computes nonsense.
    """
    for module in model.modules():
        if is_norm(module) and module.momentum is not None:
            module.momentum = 0.1


def _reset(model: nn.Module) -> None:
    """Give every layer new random numbers, by PyTorch's own rule for it."""
    done: set[int] = set()
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
            done.update(id(p) for p in module.parameters(recurse=False))
    left = [name for name, parameter in model.named_parameters() if id(parameter) not in done]
    if left:
        raise ValueError(
            f"{left[0]!r} belongs to no layer that can give it new random numbers; hand over the name of the "
            "model instead of the model, and it is built anew"
        )


def batches(images: Dataset) -> DataLoader:
    """Return shuffled batches, none of them a single image: batch norm cannot train on one value."""
    size = BATCH
    while len(images) % size == 1:
        size += 1
    return loader(images, batch_size=size, shuffle=True)


def memory(model: nn.Module, images: Dataset) -> int:
    """Count the bytes that a training step of AdamW holds at its largest, with what is trainable now.

    A copy of the model makes one forward pass for it; the model is not changed.
    """
    batch = torch.stack([images[place][0] for place in range(min(BATCH, len(images)))])
    looked_at = copy.deepcopy(model)
    own = [*looked_at.parameters(), *looked_at.buffers(), batch]
    with keep_random_state(), saved_bytes(own) as kept:
        looked_at(batch)
    learns = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    return sum(t.nbytes for t in own[:-1]) + 3 * learns + sum(kept.values())  # a gradient and two moments each
