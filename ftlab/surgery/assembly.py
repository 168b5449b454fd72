"""Put a network together: cut, copy the rest for each head, pool, classify."""

import copy
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ftlab.given import refuse_wrapped
from ftlab.nearest import nearest
from ftlab.surgery.cutting import cut
from ftlab.surgery.dry import dry_run, watching
from ftlab.surgery.parts import AdaptiveConcatPool2d, MultiHead

Pool = Literal["average", "maximum", "both"]
Rest = Literal["none", "own", "shared"]
POOLS = {"average": nn.AdaptiveAvgPool2d, "maximum": nn.AdaptiveMaxPool2d, "both": AdaptiveConcatPool2d}


@dataclass(frozen=True)
class Stage:
    """A part of a model that takes what the part before it gives, and nothing else.

    Attributes:
        name: Of the module in the model.
        shape: Of what it gives (N, C, H, W).
    """

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Assembly:
    """How to put a network together; `assemble` does it.

    Attributes:
        after: The stage after which the model is cut.
        rest: What each head begins with: "none" of the later stages, its "own" copy, or the "shared" ones.
        pool: "average", "maximum" or "both".
        heads: How many.
        num_classes: Of each head.
    """

    after: str
    rest: Rest = "none"
    pool: Pool = "average"
    heads: int = 1
    num_classes: int = 10


def stages(model: nn.Module, example: Tensor) -> list[Stage]:
    """Return the stages that images go through one after the other; the model is not changed.

    These are the model's children, or those of its `features`, as long as each takes exactly what the one before
    it gives, and up to the last one with parameters that gives a map (N, C, H, W).

    The trap: what `forward` does after them is no stage. The ReLU at the end of a DenseNet is missing, and only
    `cut` has it.

    Raises:
        TypeError: It is no model, or the example is no tensor.
        ValueError: There are no two such stages, as in a vision transformer.

    Example:
        >>> from torchvision import models
        >>> [stage.name for stage in stages(models.resnet18(), torch.zeros(1, 3, 64, 64))]
        ['conv1', 'bn1', 'relu', 'maxpool', 'layer1', 'layer2', 'layer3', 'layer4']
    """
    refuse_wrapped(model)
    chain = _chain(model, example)
    if len(chain) > 1:
        height, width = example.shape[-2:]
        double = example.new_empty(*example.shape[:-2], 2 * height, 2 * width, device="meta")
        larger = _chain(model, double, whole=False)
        if any(one.shape[1] != other.shape[1] for one, other in zip(chain, larger, strict=False)):
            chain = []  # the second dimension grows with the image, so it is not the channels: a Swin transformer
    if len(chain) < 2:
        raise ValueError(
            f"this {type(model).__name__} is no row of stages that give maps (N, C, H, W); "
            "ftlab.surgery.cut(model, after=...) cuts any model that can be traced"
        )
    return chain


def _chain(model: nn.Module, example: Tensor, *, whole: bool = True) -> list[Stage]:
    """Return the stages; `whole=False` takes those that come before an error, such as a head of a fixed size."""
    features = getattr(model, "features", None)
    prefix, parent = ("features.", features) if isinstance(features, nn.Sequential) else ("", model)
    runs: list[tuple[str, Any, Any]] = []
    children = {f"{prefix}{name}": child for name, child in parent.named_children()}

    def see(name: str, inputs: tuple, output: Any) -> None:
        runs.append((name, inputs[0] if inputs else None, output))

    errors = () if whole else (RuntimeError, AssertionError, ValueError)
    with watching(children, see), torch.no_grad(), suppress(*errors):
        dry_run(model, example)
    chain: list[tuple[str, Any, Any]] = []
    for run in runs:
        if (chain and run[1] is not chain[-1][2]) or getattr(run[2], "ndim", 0) != 4:
            break
        chain.append(run)
    while chain and not list(children[chain[-1][0]].parameters()):
        chain.pop()  # a pool at the end is for the head to choose
    return [Stage(name, tuple(output.shape)) for name, _, output in chain]


def assemble(model: nn.Module, example: Tensor, plan: Assembly) -> MultiHead:
    """Return the network of a plan; the model is not changed.

    The trap: the backbone, and a "shared" rest, are those of the model, not copies.

    Args:
        model: A row of stages, see `stages`.
        example: A batch of images that the model takes.
        plan: What to build.

    Raises:
        ValueError: There is no such stage, or no stage that could be the rest.

    Example:
        >>> from torchvision import models
        >>> plan = Assembly("layer3", rest="own", heads=2, num_classes=5)
        >>> network = assemble(models.resnet18(), torch.zeros(1, 3, 64, 64), plan)
        >>> [scores.shape for scores in network(torch.zeros(4, 3, 64, 64))]
        [torch.Size([4, 5]), torch.Size([4, 5])]
    """
    heads = heads_of(model, stages(model, example), plan)
    return MultiHead(cut(model, plan.after), heads, shared=plan.rest == "shared")


def heads_of(model: nn.Module, found: list[Stage], plan: Assembly) -> list[nn.Module]:
    """Return the heads of a plan, given the stages of the model."""
    names = [stage.name for stage in found]
    if plan.after not in names:
        raise ValueError(f"there is no stage {plan.after!r}; {nearest(plan.after, names)}")
    later = names[names.index(plan.after) + 1 :]
    if plan.rest != "none" and not later:
        raise ValueError(f"after {plan.after!r}, the last stage, there is no rest for the heads")
    channels = found[-1 if plan.rest != "none" else names.index(plan.after)].shape[1]
    inputs = channels * (2 if plan.pool == "both" else 1)

    def head() -> nn.Sequential:
        rest = [model.get_submodule(name) for name in later] if plan.rest != "none" else []
        rest = copy.deepcopy(rest) if plan.rest == "own" else rest
        return nn.Sequential(*rest, POOLS[plan.pool](1), nn.Flatten(), nn.Linear(inputs, plan.num_classes))

    return [head() for _ in range(plan.heads)]
