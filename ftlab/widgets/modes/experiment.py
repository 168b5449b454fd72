"""What the panel runs: some forward passes of a copy in a chosen mode, and what came of them."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torchvision.ops import StochasticDepth

from ftlab.modes.measuring import GRADIENTS, memory_of
from ftlab.random_state import keep_random_state


@dataclass(frozen=True)
class Settings:
    """The controls of the panel; the passes begin from the model as it was handed over, with seed 0."""

    mode: str = "train"
    gradients: str = "grad"
    batch: int = 4
    dropout: float = 0.2
    momentum: float = 0.01
    passes: int = 1


@dataclass(frozen=True)
class Seen:
    """What came of it.

    Attributes:
        logits: The output of the last pass.
        afterwards: The output for the first image in eval mode, when the passes are over.
        buffers: The buffers of the model after the passes.
        moved: How many tensors the passes have changed.
        shift: How far the stored means went, in stored deviations: nine tenths of them went less far.
        kept: Bytes that one pass keeps for a backward.
        peak: Bytes of results that are alive at the same time in it.
        repeats: Whether one more pass gives the same output.
        reached: How many parameters a backward gives a gradient.
        refused: What PyTorch says if there can be no backward; else "".
    """

    logits: Tensor
    afterwards: Tensor
    buffers: dict[str, Tensor]
    moved: int
    shift: float
    kept: int
    peak: int
    repeats: bool
    reached: int
    refused: str


def run(model: nn.Module, images: Tensor, settings: Settings) -> Seen:
    """Make the passes on a copy; the model is not changed, and the random state is as before."""
    copied = prepared(model, settings)
    batch = images[: settings.batch]
    before = {name: tensor.clone() for name, tensor in copied.state_dict().items()}
    outputs: list[Tensor] = []

    def keep_last(given: Tensor) -> Tensor:
        outputs[:] = [copied(given)]
        return outputs[0]

    gradients = GRADIENTS[settings.gradients]
    with keep_random_state(seed=0):
        for _ in range(settings.passes - 1):
            with gradients():
                copied(batch)
        kept, peak = memory_of(keep_last, batch, gradients)
        after = {name: tensor.clone() for name, tensor in copied.state_dict().items()}
        reached, refused = _backward(copied, outputs[0])
        logits = outputs[0].detach()
        with torch.no_grad():
            repeats = torch.equal(copy.deepcopy(copied)(batch), logits)
            afterwards = copied.eval()(images[:1])
    return Seen(
        logits=logits,
        afterwards=afterwards,
        buffers={name: after[name] for name, _ in copied.named_buffers()},
        moved=sum(not torch.equal(before[name], after[name]) for name in before),
        shift=_shift(before, after),
        kept=kept,
        peak=peak,
        repeats=repeats,
        reached=reached,
        refused=refused,
    )


def prepared(model: nn.Module, settings: Settings) -> nn.Module:
    """Return a copy of the model with the chosen dropout, momentum and mode."""
    copied = copy.deepcopy(model)
    for module in copied.modules():
        if isinstance(module, _DropoutNd | StochasticDepth):
            module.p = settings.dropout
        if isinstance(module, _BatchNorm):
            module.momentum = settings.momentum
    return copied.train(settings.mode == "train")


def _backward(model: nn.Module, logits: Tensor) -> tuple[int, str]:
    """Try a backward pass: for how many parameters it makes a gradient, or why there is none."""
    model.zero_grad()
    try:
        F.cross_entropy(logits, logits.argmax(1)).backward()
    except RuntimeError as error:
        return 0, f"RuntimeError: {str(error).partition('. ')[0]}"
    return sum(parameter.grad is not None for parameter in model.parameters()), ""


def _shift(before: dict[str, Tensor], after: dict[str, Tensor]) -> float:
    shifts = [
        (after[name] - before[name]).abs() / before[name.replace("_mean", "_var")].clamp(min=1e-12).sqrt()
        for name in before
        if name.endswith("running_mean")
    ]
    return torch.cat(shifts).quantile(0.9).item() if shifts else 0.0
