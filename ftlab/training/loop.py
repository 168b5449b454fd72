"""The training loop, short enough to read."""

import warnings
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ftlab.modes import evaluating
from ftlab.random_state import keep_random_state
from ftlab.training.caching.shortcut import Shortcut
from ftlab.training.clipping import share_above
from ftlab.training.forward import Forward
from ftlab.training.results import Evaluation, History
from ftlab.training.stepping import Stepper, check_schedule, fused

Loss = Callable[[Tensor, Tensor], Tensor]


def fit(
    model: nn.Module,
    train: DataLoader,
    val: DataLoader | None = None,
    *,
    epochs: int,
    optimizer: Optimizer,
    scheduler: LRScheduler | None = None,
    scheduler_per: str = "epoch",
    clip: float | None = None,
    accumulate: int = 1,
    precision: str = "float32",
    loss: Loss = F.cross_entropy,
    seed: int | None = None,
    on_epoch_start: Callable[[int], Any] | Sequence[Callable[[int], Any]] = (),
    should_stop: Callable[[], bool] = lambda: False,
    progress: bool = True,
    cache: bool = True,
) -> History:
    """Train `model` and return what happened, epoch by epoch.

    The model is changed: it is the trained one afterwards. `History.best_state_dict` keeps a copy of the
    parameters and buffers of the best epoch, by value.

    The trap: a loop that calls `model.train()` in each epoch undoes a batch norm that was put in eval mode. This
    one leaves every module in the mode in which it finds it, and says so if nothing is in train mode. Ctrl-C and
    the kernel's stop button end the training cleanly: the history so far is returned.

    The numbers are those of the plain loop, up to rounding, in less time: Adam and AdamW make fused steps, and on
    a processor the images go through a model of torch's and torchvision's classes with the channels last in
    memory, where a look at two of them says that it gives the same.

    Args:
        model: Takes a batch of images (N, C, H, W) to logits (N, classes), on whatever device it is.
        train: Batches of images and class numbers (N,).
        val: Measured after each epoch; decides which epoch is the best.
        epochs: How often the training images are gone through.
        optimizer: Owns the parameters that shall move.
        scheduler: Is stepped after each epoch; `ReduceLROnPlateau` is given the validation loss.
        scheduler_per: "epoch", or "step" for a schedule that is counted in optimizer steps, such as OneCycleLR. A
            step that float16 skips is not counted.
        clip: The largest global norm of the gradients, as in `GradientClip`; the history then has the median norm
            before clipping, and the share of the steps that were clipped.
        accumulate: Batches per optimizer step. With a loss that is a mean over images, the step is that of one
            large batch, but for batch norm, which sees the small ones.
        precision: Of the forward pass in training: "float32", "bfloat16" or "float16" (the latter with a gradient
            scaler). Parameters and validation stay in float32.
        loss: Takes logits and class numbers to a number.
        seed: Same seed, same numbers on the same machine: shuffling, dropout and augmentation start from it. The
            random state outside is not touched. None goes on from the random state as it is.
        on_epoch_start: Called with the number of the epoch, from 0, before it begins: gradual unfreezing, say.
        should_stop: Asked before each batch; True ends the training as Ctrl-C does.
        progress: Show a bar.
        cache: Compute what the frozen part gives once instead of in each epoch, where that gives the same numbers
            up to rounding; the history says so. `training.cached` explains when. False never does.

    Raises:
        ValueError: Nothing would be trained, a loader is empty, an option is out of range, the schedule is too
            short for the training, or a class number does not fit the model.

    Example:
        >>> images, labels = torch.randn(8, 4), torch.tensor([0, 1] * 4)
        >>> batches = loader(torch.utils.data.TensorDataset(images, labels), batch_size=4)
        >>> model = nn.Linear(4, 2)
        >>> fit(model, batches, epochs=2, optimizer=torch.optim.SGD(model.parameters()), progress=False).epochs
        2
    """
    _check(model, train, val, optimizer)
    if not isinstance(cache, bool):
        raise TypeError(f"cache is True or False, not {cache!r}; training.cached(..., folder=...) fills a folder")
    check_schedule(scheduler, scheduler_per, epochs=epochs, batches=len(train), accumulate=accumulate)
    per_epoch, per_step = (scheduler, None) if scheduler_per == "epoch" else (None, scheduler)
    options = {"clip": clip, "accumulate": accumulate, "precision": precision, "scheduler": per_step}
    stepper = Stepper(optimizer, _device(model), **options)
    hooks = [on_epoch_start] if callable(on_epoch_start) else list(on_epoch_start)
    history = History()
    # In another precision the frozen part would give other numbers than those that are computed once.
    shortcut = Shortcut(model, train, val, cache and precision == "float32", should_stop)
    bar = tqdm(total=epochs * len(train), disable=not progress, leave=False)
    with keep_random_state(seed), fused(optimizer), bar:
        try:
            for epoch in range(epochs):
                for hook in hooks:
                    hook(epoch)
                row = {"epoch": epoch, "lr": optimizer.param_groups[-1]["lr"]}
                row |= _train_one_epoch(*shortcut.training(epochs - epoch), stepper, loss, should_stop, bar)
                history.cached = shortcut.note
                if val is not None:
                    measured = _measure(*shortcut.validation(), loss, should_stop, progress=False)
                    row |= {"val loss": measured.loss, "val accuracy": measured.accuracy}
                history._add(row, model)
                _step(per_epoch, row)
        except KeyboardInterrupt as stop:
            history.stopped = str(stop) or "stopped by hand"
    return history


def _train_one_epoch(forward, train, stepper, loss, should_stop, bar) -> dict[str, float]:
    """Go once through the training images; the lines in the middle are all there is to training."""
    device = _device(forward.model)
    running, steps_before = _Mean(), len(stepper.norms)
    for images, targets in train:
        if should_stop():
            raise _Stop
        images, targets = images.to(device), targets.to(device)
        stepper.begin()  # optimizer.zero_grad()
        with stepper.autocast():
            logits = forward(images)  # model(images)
            value = _checked(loss, logits, targets)
        _or_stop(stepper.add, value, len(images))  # value.backward(), optimizer.step()
        running.add(logits.detach(), targets, value.detach())
        bar.update()
        bar.set_postfix(loss=f"{running.loss:.3f}", refresh=False)
    _or_stop(stepper.step)  # the rest of a window that the epoch cut short
    row = {"train loss": running.loss, "train accuracy": running.accuracy}
    norms = stepper.norms[steps_before:]
    return row | (
        {"grad norm": median(norms), "clipped": share_above(norms, stepper.clip.max_norm)} if norms else {}
    )


def _or_stop(step: Callable, *args: Any) -> None:
    """Make a step; gradients that are no numbers end the training, before they reach the parameters."""
    try:
        step(*args)
    except FloatingPointError as error:
        raise _Stop(str(error)) from None


def evaluate(
    model: nn.Module,
    batches: DataLoader,
    *,
    loss: Loss = F.cross_entropy,
    should_stop: Callable[[], bool] = lambda: False,
    progress: bool = True,
) -> Evaluation:
    """Measure `model` on `batches` in eval mode.

    The model is not changed: afterwards every module has the mode that it had before, no graph is kept, and the
    random state is as it was.

    Args:
        model: As in `fit`.
        batches: Batches of images and class numbers (N,); not shuffled, if the predictions are to be matched
            with the images.
        loss: As in `fit`.
        should_stop: As in `fit`; True ends with KeyboardInterrupt.
        progress: Show a bar.

    Returns:
        Loss, accuracy and, image by image, target, prediction and probabilities.
    """
    return _measure(Forward(model), batches, loss, should_stop, progress)


def _measure(forward, batches, loss, should_stop, progress) -> Evaluation:
    device = _device(forward.model)
    all_logits, all_targets = [], []
    # Random state too: a DataLoader draws from it even if it does not shuffle.
    with evaluating(forward.model), keep_random_state():
        for images, targets in tqdm(batches, disable=not progress, leave=False):
            if should_stop():
                raise _Stop
            all_logits.append(forward(images.to(device)).float().cpu())
            all_targets.append(targets)
    if not all_logits:
        raise ValueError("there is nothing to evaluate: the loader gave no batch")
    logits, targets = torch.cat(all_logits), torch.cat(all_targets)
    classes = list(getattr(batches.dataset, "classes", [])) or [str(i) for i in range(logits.shape[1])]
    return Evaluation(float(_checked(loss, logits, targets)), targets, logits.softmax(1), classes)


def loader(dataset: Dataset, *, batch_size: int = 32, shuffle: bool = False) -> DataLoader:
    """Return a DataLoader that is safe in a notebook.

    The images are read in the notebook's own process (`num_workers=0`). The trap: worker processes are started
    anew in each epoch, cannot see a class or function of a notebook cell on Windows and macOS, and take a second
    each to start; for a few hundred small images they are slower, and one that dies hangs the kernel.

    Args:
        dataset: Anything with a length and items (image tensor, class number).
        batch_size: Images per batch.
        shuffle: In a new order each epoch; for training.

    Raises:
        ValueError: The dataset is empty.
    """
    if len(dataset) == 0:
        raise ValueError(f"{type(dataset).__name__} has no images")
    return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle, num_workers=0)


class _Stop(KeyboardInterrupt):  # it is no error: it ends the loop as Ctrl-C does
    """The training ends here; the text is the reason."""


def _device(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))


class _Mean:
    """Loss and accuracy so far, each image counting the same. Numbers only: no graph is kept."""

    def __init__(self) -> None:
        self.count, self.total, self.right = 0, 0.0, 0

    def add(self, logits: Tensor, targets: Tensor, value: Tensor) -> None:
        self.count += len(targets)
        self.total += value.item() * len(targets)
        self.right += (logits.argmax(1) == targets).sum().item()

    @property
    def loss(self) -> float:
        return self.total / self.count

    @property
    def accuracy(self) -> float:
        return self.right / self.count


def _step(scheduler: LRScheduler | None, row: dict[str, float]) -> None:
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(row.get("val loss", row["train loss"]))
    elif scheduler is not None:
        scheduler.step()


def _check(model: nn.Module, train: DataLoader, val: DataLoader | None, optimizer: Optimizer) -> None:
    """Refuse what would train nothing, before anything is changed."""
    for name, batches in (("training", train), ("validation", val)):
        if batches is not None and len(batches) == 0:
            raise ValueError(f"the {name} loader gives no batch: its dataset is empty, or smaller than one batch")
    trainable = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise ValueError("every parameter of the model is frozen; unfreeze some: model.requires_grad_(True)")
    owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
    missing = [name for key, name in trainable.items() if key not in owned]
    if len(missing) == len(trainable):
        raise ValueError(
            f"the optimizer owns none of the {len(trainable)} trainable parameters ({missing[0]}, ...); was it "
            "built before the head was replaced? Build it again"
        )
    if missing:
        warnings.warn(
            f"{len(missing)} trainable parameters are in no group of the optimizer and will not move: "
            f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}",
            stacklevel=3,
        )
    if not any(module.training for module in model.modules()):
        warnings.warn(
            "the whole model is in eval mode: dropout is off and batch norm holds its statistics. "
            "If that is not meant, call model.train() before fit",
            stacklevel=3,
        )


def _checked(loss: Loss, logits: Tensor, targets: Tensor) -> Tensor:
    """Return the loss; say it in plain words if it cannot be computed or is no number."""
    try:
        value = loss(logits, targets)
    except (IndexError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"the loss cannot be computed from logits of shape {tuple(logits.shape)} and targets of shape "
            f"{tuple(targets.shape)} with values from {targets.min().item()} to {targets.max().item()}: "
            f"{str(error).rstrip('.')}. "
            f"A model with {logits.shape[-1]} outputs knows the classes 0 to {logits.shape[-1] - 1}"
        ) from error
    if not value.isfinite():  # said before the step, so that the parameters are still numbers
        raise _Stop(f"the loss became {value.item()}; try a smaller learning rate")
    return value
