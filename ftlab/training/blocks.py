"""A training loop made of blocks, in any order: its code, and what three real steps of it do."""

import copy
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ftlab.nearest import nearest
from ftlab.runner import no_trace
from ftlab.table import Table, Tabled

if TYPE_CHECKING:
    from ftlab.plots import Picture

# what a block is called, and the line that it stands for
BLOCKS = {
    "zero_grad": "optimizer.zero_grad()",
    "forward": "outputs = model(images)",
    "loss": "loss = F.cross_entropy(outputs, targets)",
    "backward": "loss.backward()",
    "clip": "torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)",
    "step": "optimizer.step()",
    "schedule": "scheduler.step()",
    "softmax": "outputs = outputs.softmax(1)",
    "detach": "outputs = outputs.detach()",
    "eval": "model.eval()",
    "train": "model.train()",
    "total": "total += loss",
}
RIGHT = ("zero_grad", "forward", "loss", "backward", "clip", "step", "schedule")

_HEAD = """\
import torch
import torch.nn.functional as F

# `model` is your model, `batches` gives images and class numbers
optimizer = torch.optim.SGD(model.parameters(), lr={lr:g})
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
total = 0
for images, targets in batches:
"""
COLUMNS = {
    "losses": "loss",
    "gradients": "gradient norm",
    "norms": "norm at the step",
    "rates": "rate of the step",
    "distances": "moved by",
}
FIRST = _HEAD.count("\n") + 1  # the line of the first block


def loop_code(blocks: Sequence[str], lr: float = 0.05) -> str:
    """Return a loop of blocks as plain PyTorch, from `model` and `batches` on.

    Args:
        blocks: Names of `BLOCKS`, in the order in which they run for each batch.
        lr: Learning rate.

    Raises:
        ValueError: There is no block of that name.

    Example:
        >>> print(loop_code(["zero_grad", "forward"]).splitlines()[-1].strip())
        outputs = model(images)
    """
    for name in blocks:
        if name not in BLOCKS:
            raise ValueError(f"there is no block {name!r}; {nearest(name, BLOCKS)}")
    lines = [BLOCKS[name] for name in blocks] or ["pass"]
    return _HEAD.format(lr=lr) + "\n".join(f"    {line}" for line in lines)


def raises_in(blocks: Sequence[str]) -> tuple[int, str]:
    """Return the first line that raises, from 1, and why; 0 and "" if none does.

    A line may need what no line above it has made, or go back through a graph that is no longer there.

    Args:
        blocks: Names of `BLOCKS`.

    Example:
        >>> raises_in(["zero_grad", "loss", "forward"])
        (2, 'no line above it has made `outputs`')
        >>> raises_in(["forward", "loss", "backward", "backward"])
        (4, '`backward()` has freed the graph already')
    """
    graph: dict[str, bool] = {}  # of what is made: whether the graph behind it is still there
    for line, name in enumerate(blocks, 1):
        for needed in _NEEDS.get(name, ()):
            if needed not in graph:
                return line, f"no line above it has made `{needed}`"
        if name == "backward" and not graph["loss"]:
            return line, "`backward()` has freed the graph already"
        graph = _graph_after(name, graph)
    return 0, ""


def _graph_after(name: str, graph: dict[str, bool]) -> dict[str, bool]:
    if name == "forward":
        return graph | {"outputs": True}
    if name == "loss":
        return graph | {"loss": graph["outputs"]}
    return dict.fromkeys(graph, False) if name == "backward" else graph


_NEEDS = {
    "loss": ["outputs"],
    "softmax": ["outputs"],
    "detach": ["outputs"],
    "backward": ["loss"],
    "total": ["loss"],
}


@dataclass(repr=False)
class LoopRun(Tabled):
    """What each batch did; the repr is the table.

    Attributes:
        losses: The loss of each batch; None where there was none.
        gradients: The norm of the gradients right after `backward()`; 0 where there was none.
        norms: The norm of the gradients that the step took: after clipping, if there was any; 0 without a step.
        rates: The learning rate of the step.
        distances: How far the parameters are from where they began, relative to their size.
        error: What ended it early; empty if nothing did.
    """

    losses: list[float | None] = field(default_factory=list)
    gradients: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)
    error: str = ""

    def table(self) -> Table:
        """Return a row per batch."""
        columns = zip(self.losses, self.gradients, self.norms, self.rates, self.distances, strict=True)
        rows = [[number, *values] for number, values in enumerate(columns, 1)]
        return Table(["batch", *COLUMNS.values()], rows, note=self.error)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain data."""
        return asdict(self)

    def plot(self, other: "LoopRun | None" = None) -> "Picture":
        """Return a picture of the four numbers by batch, beside those of another run."""
        return _draw(self, other)


def run_blocks(
    blocks: Sequence[str], model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], *, lr: float = 0.05
) -> LoopRun:
    """Run a loop of blocks on a copy of `model`, and measure after each batch; the model is not changed.

    The trap: a loop in the wrong order hardly ever raises. What it does shows in the numbers: a norm that grows
    from batch to batch, a rate that begins too low, parameters that stay where they are.

    Args:
        blocks: Names of `BLOCKS`.
        model: Takes images to logits.
        batches: Images and class numbers.
        lr: Learning rate.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> batches = [(torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))] * 3
        >>> run = run_blocks(["zero_grad", "forward", "loss", "backward"], nn.Linear(2, 2), batches)
        >>> run.distances
        [0.0, 0.0, 0.0]
    """
    code = loop_code(blocks, lr)
    with no_trace(0), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they warn of is the lesson
        measured = _Measured(copy.deepcopy(model), batches)
        try:
            exec(compile(code, "<loop>", "exec"), {"model": measured.model, "batches": measured})
        except Exception as error:  # of the learner's order of the blocks
            measured.run.error = f"batch {measured.number}: it raised {type(error).__name__}: {error}"
        finally:
            measured.hook.remove()
    return measured.run


class _Measured:
    """Give the batches, and measure the model after each of them."""

    def __init__(self, model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> None:
        self.model, self.batches, self.number = model, batches, 0
        self.parameters = list(model.parameters())
        self.start = [p.detach().clone() for p in self.parameters]
        self.run, self.norm, self.rate, self.loss = LoopRun(), 0.0, 0.0, None
        self.squares: dict[int, float] = {}  # of the gradients of each parameter, after the last backward
        for place, parameter in enumerate(self.parameters):
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(partial(self._accumulated, place))
        own = {id(p) for p in self.parameters}
        self.hook = register_optimizer_step_pre_hook(lambda optimizer, *_: self._step(optimizer, own))
        self.losses = self.model.register_forward_hook(self._forward)

    def __iter__(self):
        for images, targets in self.batches:
            self.number, self.targets, self.norm, self.loss = self.number + 1, targets, 0.0, None
            self.squares.clear()
            yield images, targets
            self._measure()

    def _forward(self, model: nn.Module, inputs: tuple, outputs: Tensor) -> None:
        """Measure the loss from outside: what the blocks do to it must not matter."""
        with torch.no_grad():
            self.loss = nn.functional.cross_entropy(outputs, self.targets).item()

    def _accumulated(self, place: int, parameter: Tensor) -> None:
        self.squares[place] = parameter.grad.detach().float().square().sum().item()

    def _step(self, optimizer: torch.optim.Optimizer, own: set[int]) -> None:
        if own.isdisjoint(id(p) for group in optimizer.param_groups for p in group["params"]):
            return  # somebody else's
        self.norm, self.rate = self._gradient_norm(), optimizer.param_groups[0]["lr"]

    def _gradient_norm(self) -> float:
        squares = [p.grad.detach().float().square().sum() for p in self.parameters if p.grad is not None]
        return torch.stack(squares).sum().sqrt().item() if squares else 0.0

    def _measure(self) -> None:
        with torch.no_grad():
            pairs = list(zip(self.parameters, self.start, strict=True))
            moved = sum((p - start).square().sum() for p, start in pairs) ** 0.5
            size = sum(start.square().sum() for start in self.start) ** 0.5
        self.run.losses.append(self.loss)
        self.run.gradients.append(sum(self.squares.values()) ** 0.5)
        self.run.norms.append(self.norm)
        self.run.rates.append(self.rate)
        self.run.distances.append(float(moved / size))


def _draw(run: LoopRun, other: LoopRun | None) -> "Picture":
    """Draw loss, norm, rate and distance beside each other; the right loop has dashes and squares."""
    from ftlab.plots import RIGHT as RIGHT_COLOUR
    from ftlab.plots import WRONG, Picture

    figure = Picture(
        10, 2.1, says=f"this loop: {_says(run)}" + (f"; the right one: {_says(other)}" if other else "")
    )
    looks = [(run, "this loop", WRONG, "o-"), (other, "the right loop", RIGHT_COLOUR, "s--")]
    for axes, name in zip(figure.subplots(1, 5), COLUMNS, strict=True):
        for shown, label, colour, marker in looks:
            values = getattr(shown, name) if shown else []
            axes.plot(range(1, len(values) + 1), values, marker, color=colour, label=label, alpha=0.8)
        axes.set_title(COLUMNS[name], fontsize=9)
        axes.set_xticks([1, 2, 3], ["1", "2", "3"])
        highest = max((v for shown in (run, other) if shown for v in getattr(shown, name) if v), default=1)
        axes.set_ylim(0, 1.1 * highest)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(fontsize=8)
    return figure


def _says(run: LoopRun) -> str:
    losses = ", ".join("none" if loss is None else f"{loss:.3f}" for loss in run.losses)
    norms = ", ".join(f"{norm:.3g}" for norm in run.gradients)
    moved = f"{run.distances[-1]:.2%}" if run.distances else "nothing"
    return f"losses {losses or 'none'}; gradient norms {norms or 'none'}; moved by {moved}"
