"""The plan of a run: every choice, and why it was made."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ftlab import pretrained
from ftlab.learning_rates import parameter_groups
from ftlab.nearest import nearest
from ftlab.surgery import head_names, stages
from ftlab.table import Table, Tabled
from ftlab.training.stepping import PRECISIONS

STRATEGIES = ("head", "last third", "everything")
FEW, MANY = 30, 500  # images per class
UNEVEN = 3  # the largest class, in smallest classes


@dataclass(frozen=True, repr=False)
class Plan(Tabled):
    """What a run does. Two runs with the same plan and the same images are the same run.

    The model stays in eval mode while it is trained: batch norm uses the statistics that came with the weights,
    and dropout is off. So it does not matter how many processes share a batch.

    Attributes:
        folder: The images, as given.
        backbone: A name of `ftlab.pretrained.available()`.
        size: Height and width of the images in pixels; None is the size that belongs to the weights.
        strategy: "head", "last third" or "everything": what is trained. The rest is frozen.
        epochs: How often the training images are gone through.
        batch_size: Images per step, over all processes.
        lr: The learning rate of the head; the body gets `body` times as much.
        body: See `lr`.
        weight_decay: Of AdamW; not for biases and norms.
        balance: Let each class count the same in the loss, however many images it has.
        augment: Show each image anew in each epoch: mirrored, cropped a little otherwise.
        precision: Of the training steps: "float32", "bfloat16" or "float16". Parameters stay float32, and what is
            measured is measured in float32, as `predict` computes. In a choice, "auto" is what suits the device.
        seed: Decides the split, the new head, the order and the augmentation.
        val_fraction: How much of each class is for validation, where the folder is not split already.
        skip_bad: Leave files out that are no images, instead of ending.
        why: For each choice that was made here and not by you, the reason.
    """

    folder: str
    backbone: str = "efficientnet_lite0"
    size: int | None = None
    strategy: str = "head"
    epochs: int = 10
    batch_size: int = 32
    lr: float = 3e-3
    body: float = 0.1
    weight_decay: float = 0.01
    balance: bool = False
    augment: bool = False
    precision: str = "float32"
    seed: int = 0
    val_fraction: float = 0.3
    skip_bad: bool = False
    why: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, known in {"strategy": STRATEGIES, "precision": tuple(PRECISIONS)}.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} {getattr(self, name)!r} is unknown; {nearest(getattr(self, name), known)}"
                )
        for name in ("epochs", "batch_size", "lr", "size"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in ("body", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, as {getattr(self, name)} is")

    def table(self) -> Table:
        """Return a row per choice."""
        rows = [
            [name, _text(value), self.why.get(name, "")] for name, value in asdict(self).items() if name != "why"
        ]
        return Table(["choice", "value", "why"], rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the choices as plain numbers and strings."""
        return asdict(self)


def choose(per_class: Sequence[int], given: dict[str, Any], suited: tuple[str, str] = ("float32", "")) -> Plan:
    """Return a plan: what is given, and for the rest what suits so many training images per class.

    Args:
        per_class: The number of training images of each class.
        given: Choices by name; None stands for "not given", and so does "auto" as the precision.
        suited: The precision that suits the model and the device, and why, from `precision.suits`.

    Raises:
        TypeError: There is no such choice.
        ValueError: A choice has no legal value.

    Example:
        >>> plan = choose([12, 15], {"folder": "pets"})
        >>> plan.strategy, plan.why["strategy"]
        ('head', '14 images per class are few: a body would learn them by heart')
    """
    known = [one.name for one in fields(Plan)]
    for name in given:
        if name not in known:
            raise TypeError(f"{name!r} is no choice of a plan; {nearest(name, known)}")
    given = {name: value for name, value in given.items() if value is not None}
    if given.get("precision") == "auto":
        del given["precision"]
    strategy, reason = _strategy(sum(per_class) / max(len(per_class), 1))
    why = {} if "strategy" in given else {"strategy": reason}
    own = {"strategy": strategy, "backbone": pretrained.backbone()} | given
    if own["strategy"] == "head":
        defaults = {"epochs": 30, "augment": False}
        reasons = {
            "epochs": "they cost little: the features of the frozen body are computed once",
            "augment": "off, so that the features of the frozen body are computed once",
        }
    else:
        defaults = {"epochs": 10, "augment": True}
        reasons = {"augment": "a body that is trained should not see the same pixels in each epoch"}
    if max(per_class) > UNEVEN * min(per_class):
        defaults["balance"] = True
        reasons["balance"] = f"the largest class has {max(per_class)} images, the smallest {min(per_class)}"
    if not (own["strategy"] == "head" and not (defaults | own)["augment"]):  # else the body is run once only
        defaults["precision"], reasons["precision"] = suited
    why |= {name: reason for name, reason in reasons.items() if name not in given}
    return Plan(**(defaults | own), why=why)


def _strategy(per_class: float) -> tuple[str, str]:
    count = f"{per_class:.0f} images per class"
    if per_class < FEW:
        return "head", f"{count} are few: a body would learn them by heart"
    if per_class < MANY:
        return "last third", f"{count} are enough for the last blocks, at a tenth of the head's rate"
    return "everything", f"{count} are many"


def freeze_rest(model: nn.Module, plan: Plan, size: int) -> None:
    """Freeze what the plan does not train; the flags of the model's parameters are changed.

    Auxiliary heads stay frozen: in eval mode they take no part.

    Args:
        model: With its new head.
        plan: Its `strategy` is used.
        size: Height and width of the images, for finding the stages.
    """
    model.requires_grad_(plan.strategy == "everything")
    for name in _last_third(model, size) if plan.strategy == "last third" else ():
        model.get_submodule(name).requires_grad_(True)
    *auxiliary, head = head_names(model)
    model.get_submodule(head).requires_grad_(True)
    for name in auxiliary:
        model.get_submodule(name.partition(".")[0]).requires_grad_(False)


def _last_third(model: nn.Module, size: int) -> list[str]:
    """Return the names of the last third of the stages, or of a transformer's blocks."""
    try:
        names = [stage.name for stage in stages(model, torch.zeros(1, 3, size, size))]
    except ValueError:  # a transformer: its blocks are the longest row of equal modules
        names = max(
            (
                [f"{name}.{key}" for key, _ in module.named_children()]
                for name, module in model.named_modules()
                if isinstance(module, nn.Sequential | nn.ModuleList)
            ),
            key=len,
        )
    names = [name for name in names if next(model.get_submodule(name).parameters(), None) is not None]
    return names[-max(1, len(names) // 3) :]


def build_optimizer(model: nn.Module, plan: Plan) -> Optimizer:
    """Return AdamW over what is trainable: the head at `lr`, the rest at `body` times as much."""
    groups = parameter_groups(model, {head_names(model)[-1]: plan.lr}, default=plan.lr * plan.body, no_decay=True)
    return AdamW(groups, lr=plan.lr, weight_decay=plan.weight_decay)


def build_schedule(optimizer: Optimizer, steps: int) -> LambdaLR:
    """Return a schedule by step: up over the first tenth, then down to nothing along a cosine."""
    warm = max(1, steps // 10)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        done = (step - warm) / max(1, steps - warm)
        return 0.5 * (1 + torch.cos(torch.tensor(done * torch.pi)).item())

    return LambdaLR(optimizer, factor)


def _text(value: Any) -> str:
    if value is None:
        return "that of the weights"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
