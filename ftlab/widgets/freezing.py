"""The panel of the freezing lesson: click a block to freeze it, run a step, see what moved and why."""

import copy
from collections import Counter
from collections.abc import Callable
from textwrap import fill
from typing import Any

import ipywidgets as w
import torch
from torch import nn
from torch.nn import functional as F

from ftlab.freezing import FreezeAudit, FreezeCost, TensorAudit, audit, cost, freeze, unfreeze
from ftlab.freezing.norms import hold, is_held, release
from ftlab.widgets.background import Latest
from ftlab.widgets.blocks import Block, blocks, outline, tops
from ftlab.widgets.html import escape
from ftlab.widgets.panel import Panel
from ftlab.widgets.tree import NetworkTree

_POLICIES = [("hold its statistics (eval)", "eval"), ("let its statistics move (train)", "train")]


class FreezePanel(Panel):
    """Freeze and thaw the blocks of a model, and see what a step moves.

    The model itself is changed: a click is a call of `freeze` or `unfreeze`. `reset` puts the flags and the
    norms back as the panel found them; gradients that a freeze dropped stay dropped. Making the panel, running
    a step (an audit) and showing the code change nothing.

    The trap: when code elsewhere changes the flags, the panel shows them only after `refresh()`.

    Args:
        model: Any module.
        example: A batch, or a tuple of the model's arguments, for the step and for the cost; without it random
            numbers in the shape of images or features.
        step: Your own training step, as in `ftlab.freezing.audit`; without it one step of SGD with momentum
            and weight decay on `example`.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2))
        >>> panel = FreezePanel(model, example=torch.ones(4, 3, 3, 3))
        >>> panel.tree.toggle("1")
        >>> panel
        1 of 3 blocks frozen, 242 of 258 parameters trainable, 1 of 1 norms held
        >>> panel.batch_norm.value = "train"
        >>> panel.step.click()
        >>> panel.audit.leaks["1.running_mean"]
        'batch norm statistics'
    """

    title = "Freeze and thaw"

    def __init__(
        self,
        model: nn.Module,
        *,
        example: torch.Tensor | tuple | None = None,
        step: Callable[[], Any] | None = None,
    ) -> None:
        self.model, self.own_step = model, step
        self.example = random_batch(model) if example is None else example
        self.audit: FreezeAudit | None = None
        self._found = _state(model)
        found = blocks(model)
        self.tree = NetworkTree([], label=type(model).__name__)
        self.tree.expanded = outline(found)
        self._tops = {block.path for block in tops(found, self.tree.expanded)}
        self.batch_norm = w.Dropdown(options=_POLICIES, value=_policy(found), description="batch norm")
        self.batch_norm.layout.width = "340px"
        self.step = w.Button(description="Run one step", icon="play")
        self.reset = w.Button(description="Reset", icon="undo", tooltip="Back to the flags as they were found")
        self.saved, self.verdict = w.HTML(), w.HTML()
        self._costs: dict[tuple, FreezeCost | Exception] = {}
        self._counting = Latest(self.refresh)
        buttons = w.HBox([self.step, self.reset])
        super().__init__(self.batch_norm, self.tree, self.saved, buttons, self.verdict)
        self.tree.on_toggle(lambda path: self._act(lambda: self._toggle(path)))
        self.on(self.batch_norm, self._apply_policy)
        self.on(self.step, self._step)
        self.on(self.reset, self._reset)

    def _toggle(self, path: str) -> None:
        block = next(block for block in blocks(self.model) if block.path == path)
        patterns = [path] if path else []
        if block.trains is False:
            unfreeze(self.model, *patterns)
        else:
            freeze(self.model, *patterns, batch_norm=self.batch_norm.value)
        self.audit = None

    def _apply_policy(self) -> None:
        if not all(parameter.requires_grad for parameter in self.model.parameters()):
            freeze(self.model, lambda _, parameter: not parameter.requires_grad, batch_norm=self.batch_norm.value)
        self.audit = None

    def _step(self) -> None:
        self.step.description = "Running ..."  # a disabled button would lose the focus of the keyboard
        self.audit = None
        self.audit = audit(self.model, self.own_step) if self.own_step else self._audit_sgd()

    def _audit_sgd(self) -> FreezeAudit:
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
        inputs = _inputs(self.example)

        def step() -> None:
            self.model.train()
            optimizer.zero_grad()
            _loss(self.model(*inputs)).backward()
            optimizer.step()

        return audit(self.model, step, optimizer=optimizer)

    def _reset(self) -> None:
        flags, norms = self._found
        for parameter, trains in flags:
            parameter.requires_grad_(trains)
        for norm, held in norms:
            (hold if held else release)(norm)
        self.audit = None

    def _count(self, state: tuple, model: nn.Module) -> None:
        try:
            self._costs[state] = cost(model.train(), self.example)
        except Exception as error:  # a forward that asks for values cannot be counted
            self._costs[state] = error

    def close(self) -> None:
        """Take the view away and stop counting."""
        self._counting.drop()
        super().close()

    def _render(self) -> None:
        self.step.description = "Run one step"
        self.tree.update([_row(block, self.audit) for block in blocks(self.model)])
        self.verdict.value = _verdict(self.audit) if self.audit else ""
        state = _state_of(self.model)
        if state not in self._costs:  # counting takes up to a second: the tree does not wait for it
            copied = share_memory(self.model)
            self._counting.ask(lambda: self._count(state, copied))
        self.saved.value = _saved(self._costs.get(state), self.example)

    def describe(self) -> str:
        """Return how much is frozen, and what the last step did."""
        found = blocks(self.model)
        shown = [block for block in found if block.path in self._tops]
        frozen = sum(block.trains is False for block in shown)
        trainable = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        line = f"{frozen} of {len(shown)} blocks frozen, "
        line += f"{_short(trainable)} of {_short(found[0].size)} parameters trainable"
        if norms := found[0].norms:
            line += f", {sum(map(is_held, norms))} of {len(norms)} norms held"
        if self.audit:
            line += f"; after one step {len(self.audit.leaks)} frozen tensors have moved"
        return line

    def code(self) -> str:
        """Return plain PyTorch that brings the same model to the same state."""
        return freeze_code(self.model)


def freeze_code(model: nn.Module) -> str:
    """Return plain PyTorch that brings a fresh copy of this model to the same state.

    Flags and held norms are set; the model given here is not changed.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
        >>> _ = freeze(model, "0", "1")
        >>> print(freeze_code(model))
        # `model` is your model; it is changed in place
        model.requires_grad_(True)
        for name in ["0", "1"]:
            model.get_submodule(name).requires_grad_(False)
        for parameter in model.parameters():
            if not parameter.requires_grad:
                parameter.grad = None  # a leftover gradient would still move it at the next optimizer.step()
        # the flag does not stop batch norm: hold its statistics, also through model.train()
        for name in ["1"]:
            norm = model.get_submodule(name)
            norm.eval()
            norm.train = lambda mode=True, norm=norm: norm
    """
    found = blocks(model)
    frozen = {block.path: block for block in found if block.trains is False}
    highest = [b for path, b in frozen.items() if not path or path.rpartition(".")[0] not in frozen]
    lines = ["# `model` is your model; it is changed in place"]
    if "" in frozen:
        lines.append("model.requires_grad_(False)")
    else:
        lines.append("model.requires_grad_(True)")
        lines += _loop([b.path for b in highest if b.kind != "parameter"], "get_submodule")
        lines += _loop([b.path for b in highest if b.kind == "parameter"], "get_parameter")
    if frozen:
        lines.append(_DROP)
    if held := [name for name, module in model.named_modules() if is_held(module)]:
        lines.append(_HOLD.format(names=_names(held)))
    return "\n".join(lines)


_DROP = """\
for parameter in model.parameters():
    if not parameter.requires_grad:
        parameter.grad = None  # a leftover gradient would still move it at the next optimizer.step()"""

_HOLD = """\
# the flag does not stop batch norm: hold its statistics, also through model.train()
for name in {names}:
    norm = model.get_submodule(name)
    norm.eval()
    norm.train = lambda mode=True, norm=norm: norm"""


def _loop(names: list[str], get: str) -> list[str]:
    if not names:
        return []
    return [f"for name in {_names(names)}:", f"    model.{get}(name).requires_grad_(False)"]


def _names(names: list[str]) -> str:
    return fill("[" + ", ".join(f'"{name}"' for name in names) + "]", 88, subsequent_indent="    ")


def random_batch(model: nn.Module) -> torch.Tensor:
    """Return random numbers that most models take: 4 images, or 4 rows of features; the same ones each time.

    Raises:
        ValueError: If the model has neither a convolution on images nor a linear layer.

    Example:
        >>> random_batch(nn.Sequential(nn.Conv2d(1, 8, 3))).shape
        torch.Size([4, 1, 96, 96])
    """
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)), None)
    if first is None:
        kind = type(model).__name__
        raise ValueError(f"what does a {kind} take? Hand over a batch: FreezePanel(model, example=batch)")
    side = getattr(model, "image_size", 96)  # a vision transformer takes one size only
    shape = (4, first.in_features) if isinstance(first, nn.Linear) else (4, first.in_channels, side, side)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(first.weight.device)


def share_memory(model: nn.Module) -> nn.Module:
    """Return a copy of the model with flags of its own over the same memory: it costs milliseconds.

    It may be looked at in another thread while the flags of the model itself change.
    """
    memo: dict[int, torch.Tensor] = {id(b): b.detach() for b in model.buffers()}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach(), parameter.requires_grad)
    return copy.deepcopy(model, memo)


def _inputs(example: torch.Tensor | tuple) -> tuple:
    return example if isinstance(example, tuple) else (example,)


def _loss(output: Any) -> torch.Tensor:
    output = output if isinstance(output, torch.Tensor) else output[0]  # Inception has a second head
    if output.ndim != 2:
        return output.float().mean()
    return F.cross_entropy(output, torch.arange(len(output), device=output.device) % output.shape[1])


def _state(model: nn.Module) -> tuple[list[tuple[nn.Parameter, bool]], list[tuple[nn.Module, bool]]]:
    """Return what Reset puts back: the flags, and which norms are held."""
    norms = [module for block in blocks(model)[:1] for module in block.norms]
    return [(p, p.requires_grad) for p in model.parameters()], [(norm, is_held(norm)) for norm in norms]


def _state_of(model: nn.Module) -> tuple:
    """Return what the cost depends on, to count each state once."""
    flags = tuple((name, p.shape, p.requires_grad) for name, p in model.named_parameters())
    return flags, tuple(is_held(module) for module in model.modules())


def _policy(found: list[Block]) -> str:
    """Return the policy that the model is in: "train" if a norm in a frozen block moves."""
    moving = [norm for b in found if b.trains is False for norm in b.norms if not is_held(norm)]
    return "train" if moving else "eval"


def _row(block: Block, found: FreezeAudit | None) -> dict[str, Any]:
    mark, reason = _mark(block.path, found)
    return {
        "path": block.path,
        "name": block.path.rpartition(".")[2] or "model",
        "kind": block.kind,
        "size": f"{block.size:,}",
        "state": block.trains,
        "note": _note(block),
        "mark": mark,
        "reason": reason,
    }


def _note(block: Block) -> str:
    """Return what the norms of a block do, where it is not plain."""
    held, total = sum(map(is_held, block.norms)), len(block.norms)
    if not total or (not held and block.trains is not False):
        return ""
    if total == 1:
        return "statistics held" if held else "statistics move"
    return f"{held} of {total} norms held" if held else f"{total} norms move"


def _mark(path: str, found: FreezeAudit | None) -> tuple[str, str]:
    """Return what a step did to a block in a word, the most surprising first, and why."""
    if found is None:
        return "", ""
    inside = [t for t in found.tensors if not path or t.name == path or t.name.startswith(f"{path}.")]
    for mark, chosen in {
        "moved though frozen": [t for t in inside if t.verdict == "moved" and t.frozen],
        "stuck": [t for t in inside if t.verdict == "stuck"],
        "moved": [t for t in inside if t.verdict == "moved"],
    }.items():
        if chosen:
            return mark, _reasons(chosen)
    return "held", ""


def _reasons(tensors: list[TensorAudit]) -> str:
    count = Counter(tensor.reason for tensor in tensors)
    return ", ".join(f"{reason} ({number})" for reason, number in count.most_common())


def _verdict(found: FreezeAudit) -> str:
    table = found.table()
    note = "<br>".join(map(escape, table.note.splitlines()))
    return f'<p role="status"><b>{escape(table.title)}</b><br>{note}</p>'


def _saved(found: FreezeCost | Exception | None, example: torch.Tensor | tuple) -> str:
    """Return what the frozen parts save, as bars with their numbers."""
    if isinstance(found, Exception):
        return f"<p>The cost cannot be counted: {escape(type(found).__name__)}: {escape(str(found))}</p>"
    if found is None:
        return "<p>Counting the cost ...</p>"
    now, full = found.now, found.everything
    rows = [
        _bar("trainable parameters", now.trainable, full.trainable, _short),
        _bar("gradients and Adam's moments", now.gradients + now.adam, full.gradients + full.adam, _mib),
        _bar("activations kept for backward", now.activations, full.activations, _mib),
        _bar("backward work", now.backward, full.backward, lambda n: f"{n / 1e9:,.2f} GFLOP"),
    ]
    shapes = " and ".join("×".join(map(str, getattr(x, "shape", "?"))) for x in _inputs(example))
    return f"<table>{''.join(rows)}</table><p>of full training, for a batch of {shapes}</p>"


def _bar(label: str, now: int, full: int, unit: Callable[[int], str]) -> str:
    share = now / full if full else 0.0
    bar = f'<div class="ftlab-bar" aria-hidden="true"><div style="width: {share:.0%}"></div></div>'
    numbers = f"{share:.0%}</td><td>{unit(now)} of {unit(full)}"
    return f"<tr><td>{label}</td><td>{bar}</td><td>{numbers}</td></tr>"


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def _short(number: int) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number:,}"
