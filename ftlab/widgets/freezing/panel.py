"""The panel of the freezing lesson: click a block to freeze it, run a step, see what moved and why."""

import threading
from collections.abc import Callable
from typing import Any

import ipywidgets as w
import torch
from torch import nn

from ftlab.freezing import FreezeAudit, FreezeCost, audit, cost, freeze, unfreeze
from ftlab.freezing.norms import hold, is_held, release
from ftlab.widgets.background import Latest
from ftlab.widgets.blocks import Block, blocks, outline, tops
from ftlab.widgets.freezing.code import freeze_code
from ftlab.widgets.freezing.step import inputs, loss, random_batch, share_memory
from ftlab.widgets.freezing.views import row, saved, short, verdict
from ftlab.widgets.panel import Panel
from ftlab.widgets.tree import NetworkTree

_POLICIES = [("hold its statistics (eval)", "eval"), ("let its statistics move (train)", "train")]


class FreezePanel(Panel):
    """Freeze and thaw the blocks of a model, and see what a step moves.

    The model itself is changed: a click is a call of `freeze` or `unfreeze` (a block of which some parts train is
    frozen), and the choice for batch norm holds for all that is frozen. `reset` puts the flags and the norms back
    as the panel found them; gradients that a freeze dropped stay dropped. Making the panel, running a step (an
    audit) and showing the code change nothing.

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
        self._whole = threading.RLock()  # held while the model is copied or audited: never both at a time
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
        with self._whole:
            self.audit = audit(self.model, self.own_step) if self.own_step else self._audit_sgd()

    def _audit_sgd(self) -> FreezeAudit:
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
        arguments = inputs(self.example)

        def step() -> None:
            self.model.train()
            optimizer.zero_grad()
            loss(self.model(*arguments)).backward()
            optimizer.step()

        return audit(self.model, step, optimizer=optimizer)

    def _reset(self) -> None:
        flags, norms = self._found
        for parameter, trains in flags:
            parameter.requires_grad_(trains)
        for norm, held in norms:
            (hold if held else release)(norm)
        self.audit = None

    def _cost(self) -> FreezeCost | Exception | None:
        """Return what this state costs, or None while it is counted: that takes up to a second."""
        state = _state_of(self.model)
        if state not in self._costs:
            self._counting.ask(lambda: self._count(state))
        return self._costs.get(state)

    def _count(self, state: tuple) -> None:
        found: FreezeCost | Exception
        try:
            with self._whole:
                copied = share_memory(self.model)
            found = cost(copied.train(), self.example)
        except Exception as error:  # an example that does not fit, or a forward that asks for values
            found, copied = error, self.model
        if _state_of(copied) == state:  # no click came in between; if one did, it has asked anew
            self._costs[state] = found

    def close(self) -> None:
        """Take the view away and stop counting."""
        self._counting.drop()
        super().close()

    def _render(self) -> None:
        self.step.description = "Run one step"
        self.tree.update([row(block, self.audit) for block in blocks(self.model)])
        self.verdict.value = verdict(self.audit) if self.audit else ""
        self.saved.value = saved(self._cost(), self.example)

    def describe(self) -> str:
        """Return how much is frozen, and what the last step did."""
        found = blocks(self.model)
        shown = [block for block in found if block.path in self._tops]
        frozen = sum(block.trains is False for block in shown)
        trainable = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        line = f"{frozen} of {len(shown)} blocks frozen, "
        line += f"{short(trainable)} of {short(found[0].size)} parameters trainable"
        if norms := found[0].norms:
            line += f", {sum(map(is_held, norms))} of {len(norms)} norms held"
        if self.audit:
            line += f"; after one step {len(self.audit.leaks)} frozen tensors have moved"
        return line

    def code(self) -> str:
        """Return plain PyTorch that brings the same model to the same state."""
        return freeze_code(self.model)


def _state(model: nn.Module) -> tuple[list[tuple[nn.Parameter, bool]], list[tuple[nn.Module, bool]]]:
    """Return what Reset puts back: the flags, and which norms are held."""
    norms = [module for block in blocks(model)[:1] for module in block.norms]
    return [(p, p.requires_grad) for p in model.parameters()], [(norm, is_held(norm)) for norm in norms]


def _state_of(model: nn.Module) -> tuple:
    """Return what the cost depends on, to count each state once."""
    parameters = list(model.parameters())
    flags, held = bytes(p.requires_grad for p in parameters), bytes(map(is_held, model.modules()))
    return sum(p.numel() for p in parameters), flags, held


def _policy(found: list[Block]) -> str:
    """Return the policy that the model is in: "train" if a norm in a frozen block moves."""
    moving = [norm for b in found if b.trains is False for norm in b.norms if not is_held(norm)]
    return "train" if moving else "eval"
