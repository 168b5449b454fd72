"""What a choice of frozen parts costs, counted without running the model for real."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensorMode,
    UnsupportedFakeTensorException,
)
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from ftlab.given import expect, inside
from ftlab.table import Table, Tabled

from .evidence import check_lazy
from .snapshot import Snapshot

MIB = 2**20


@dataclass(frozen=True)
class StepCost:
    """What one training step costs; memory in bytes, work in floating point operations."""

    trainable: int
    gradients: int
    momentum: int
    adam: int
    activations: int
    forward: int
    backward: int


@dataclass(frozen=True, repr=False)
class FreezeCost(Tabled):
    """A step of the model as it is, beside one with everything trainable; the repr is the table."""

    now: StepCost
    everything: StepCost

    @property
    def backward_share(self) -> float:
        """The backward work that is left, as a share of that with everything trainable."""
        return self.now.backward / self.everything.backward if self.everything.backward else 0.0

    def table(self) -> Table:
        """Return the costs as a table with a row per kind."""
        rows = [
            ("trainable values", "trainable", 1, ""),
            ("gradients", "gradients", MIB, " MiB"),
            ("optimizer state: SGD", None, MIB, " MiB"),
            ("optimizer state: SGD with momentum", "momentum", MIB, " MiB"),
            ("optimizer state: Adam, AdamW", "adam", MIB, " MiB"),
            ("activations kept for backward", "activations", MIB, " MiB"),
            ("forward", "forward", 1e9, " GFLOP"),
            ("backward", "backward", 1e9, " GFLOP"),
        ]
        title = (
            f"Backward does {self.backward_share:.0%} of the work of full training, and keeps "
            f"{self.now.activations / MIB:.1f} of {self.everything.activations / MIB:.1f} MiB of activations."
        )
        headers = ["one step", "now", "all trainable", "share"]
        return Table(headers, [self._row(*row) for row in rows], title=title)

    def to_dict(self) -> dict[str, dict[str, int]]:
        """Return both steps as dictionaries, in bytes and operations."""
        return asdict(self)

    def _row(self, label: str, field: str | None, unit: float, name: str) -> list[str]:
        now, full = (getattr(step, field) if field else 0 for step in (self.now, self.everything))
        shown = [f"{n:,}" if unit == 1 else f"{n / unit:,.2f}{name}" for n in (now, full)]
        return [label, *shown, f"{now / full:.0%}" if full else ""]


def cost(model: nn.Module, example: Any) -> FreezeCost:
    """Count what one training step costs with the parts that are frozen now; the model is not changed.

    The trap: position decides, not the share of frozen parameters. Backward goes from the loss to the first
    trainable tensor, so freezing the first layers saves most of it, and freezing the last ones saves no
    activation at all.

    The model runs on tensors without values, so that the count takes neither its memory nor its time. Activations
    are what autograd saves for backward, without parameters, buffers and the input; work counts matrix products
    and convolutions, as `torch.utils.flop_counter` does. Of the loss nothing is counted.

    Args:
        model: The model, in the mode (train or eval) that is meant.
        example: A batch, or a tuple of the arguments of `forward`; only shapes, types and devices matter.

    Raises:
        RuntimeError: If `forward` decides by values, for example with `if x.sum() > 0`.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> model[0].requires_grad_(False)
        Linear(in_features=8, out_features=8, bias=True)
        >>> cost(model, torch.zeros(4, 8)).now
        StepCost(trainable=18, gradients=72, momentum=72, adam=152, activations=128, forward=640, backward=128)
    """
    expect(model, nn.Module, "the model", "cost(model, example)")
    model = inside(model)
    check_lazy(model)
    inputs = example if isinstance(example, tuple) else (example,)
    now = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    full = {name: p.is_floating_point() or p.is_complex() for name, p in model.named_parameters()}
    attributes = Snapshot(model, values=False)
    try:
        everything = _count(model, inputs, full)
        return FreezeCost(everything if now == full else _count(model, inputs, now), everything)
    except (UnsupportedFakeTensorException, DataDependentOutputException) as error:
        error.add_note("ftlab: the cost is counted on tensors without values, and forward asks for a value")
        raise
    finally:
        attributes.restore()


def _count(model: nn.Module, inputs: tuple, trainable: dict[str, bool]) -> StepCost:
    """Run forward and backward on fake tensors and count."""
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        state = {name: _fake(fake, tensor) for name, tensor in named_state(model)}
        for name, flag in trainable.items():
            state[name] = state[name].requires_grad_(flag)
        inputs = tree_map_only(Tensor, lambda tensor: _fake(fake, tensor), inputs)
        with (
            FlopCounterMode(display=False) as forward,
            saved_bytes([*state.values(), *tree_leaves(inputs)]) as saved,
        ):
            outputs = functional_call(model, state, inputs)
        roots = [out for out in tree_leaves(outputs) if isinstance(out, Tensor) and out.requires_grad]
        with FlopCounterMode(display=False) as backward:
            if roots:
                torch.autograd.backward(roots, [torch.ones_like(root) for root in roots])
        gradients = [_size(state[name].grad) for name in trainable if state[name].grad is not None]
    return StepCost(
        trainable=sum(state[name].numel() for name, flag in trainable.items() if flag),
        gradients=sum(gradients),
        momentum=sum(gradients),
        adam=2 * sum(gradients) + 4 * len(gradients),  # two moments, and a float32 counter for each tensor
        activations=sum(saved.values()),
        forward=forward.get_total_flops(),
        backward=backward.get_total_flops(),
    )


def _fake(fake: FakeTensorMode, tensor: Tensor) -> Tensor:
    # By `data`: a `detach()` counts the writes of batch norm on the original, which autograd would then miss.
    return fake.from_tensor(tensor.data).requires_grad_(tensor.requires_grad)


def named_state(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter and buffer with its name, each tensor once."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@contextmanager
def saved_bytes(excluded: list[Any]) -> Iterator[dict[int, int]]:
    """Collect the bytes of every storage that autograd saves for backward, each storage once."""
    own = {t.untyped_storage()._cdata for t in excluded if isinstance(t, Tensor)}
    sizes: dict[int, int] = {}
    alive = []  # or the next tensor might get the same address

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            sizes[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes
