"""The panel of the lesson on learning rates: drag the rates, choose a schedule, see what each step gets."""

from collections.abc import Mapping, Sequence

import ipywidgets as w
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, OneCycleLR, SequentialLR, StepLR

from ftlab.given import expect
from ftlab.learning_rates import Timeline, UpdateRatios, parameter_groups, timeline, update_ratio
from ftlab.learning_rates.options import check_rate
from ftlab.plural import plural
from ftlab.widgets.html import escape
from ftlab.widgets.panel import Panel
from ftlab.widgets.picture import Picture

_OPTIMIZERS = {"SGD": SGD, "AdamW": AdamW}
_WHEN = [("once per epoch", "epoch"), ("once per batch", "batch"), ("first in the epoch", "epoch first")]
# each as the expression that the code shows; "steps" is how often it is meant to be stepped
_SCHEDULES = {
    "constant": "",
    "step": "StepLR(optimizer, step_size=max(steps // 3, 1), gamma=0.1)",
    "cosine": "CosineAnnealingLR(optimizer, T_max=steps)",
    "warm-up and cosine": (
        "SequentialLR(\n    optimizer,\n    [LinearLR(optimizer, 0.1, total_iters=warm_up), "
        "CosineAnnealingLR(optimizer, max(steps - warm_up, 1))],\n    [warm_up],\n)"
    ),
    "one cycle, one rate": (
        'OneCycleLR(optimizer, max(g["lr"] for g in optimizer.param_groups), total_steps=steps)'
    ),
    "one cycle, a rate per group": (
        'OneCycleLR(optimizer, [g["lr"] for g in optimizer.param_groups], total_steps=steps)'
    ),
}
_NAMES = {
    "CosineAnnealingLR": CosineAnnealingLR,
    "LinearLR": LinearLR,
    "OneCycleLR": OneCycleLR,
    "SequentialLR": SequentialLR,
    "StepLR": StepLR,
}


class RatesPanel(Panel):
    """Rates per part, an optimizer and a schedule; the timeline, and what one real step moves.

    The model is not changed: the step is a measured one, and is taken back.

    The trap: a schedule is made for so many steps, counted in epochs or in batches. The panel lets you choose for
    which it is made, and where it is called, apart from each other, so that you can see them disagree.

    Args:
        model: Any module.
        images: A batch for the step.
        targets: Its class numbers (N,).
        parts: Patterns of `parameter_groups`, from the image to the head, with their rates; without them the
            children of the model. What they leave over is a group "default" at the rate of the first part.
        epochs: Of the timeline.
        batches: Per epoch.

    Raises:
        ValueError: If there is no part, a pattern chooses nothing, or a rate lies outside 1e-6 to 1.
        TypeError: If the parts are no patterns, or a rate is no number.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        >>> panel = RatesPanel(model, torch.ones(2, 4), torch.tensor([0, 1]), {"0": 1e-3, "1": 1e-2})
        >>> panel.schedule.value = "one cycle, one rate"
        >>> panel
        SGD, one cycle, one rate, made for 10 steps, called once per epoch (10 times): 1 thing to look at
    """

    title = "A rate for each part"

    def __init__(
        self,
        model: nn.Module,
        images: torch.Tensor,
        targets: torch.Tensor,
        parts: Mapping[str, float] | Sequence[str] | None = None,
        *,
        epochs: int = 10,
        batches: int = 5,
    ) -> None:
        self.model, self.images, self.targets = model, images, targets
        self.epochs, self.batches = epochs, batches
        self.rates = {name: _slider(name, rate) for name, rate in _parts(model, parts).items()}
        self.optimizer = w.Dropdown(options=list(_OPTIMIZERS), description="optimizer")
        self.decay = w.FloatSlider(value=1.0, min=0.1, max=1.0, step=0.05, description="decay")
        self.decay.style.description_width, self.decay.layout.width = "160px", "520px"
        self.decay.continuous_update = False
        self.decay.tooltip = "From each part to the one before, beginning with the last"
        self.schedule = w.Dropdown(options=list(_SCHEDULES), description="schedule")
        self.made_for = w.Dropdown(
            options=[("epochs", epochs), ("batches", epochs * batches)], description="made for"
        )
        self.when = w.Dropdown(options=_WHEN, description="called")
        self.step = w.Button(description="Measure one step", icon="play")
        self.step.layout.width = "190px"
        self.timeline_picture, self.ratio_picture, self.marks = Picture(), Picture(), w.HTML()
        self.ratios: UpdateRatios | None = None
        self.timeline: Timeline | None = None
        self._spreading = False
        super().__init__(
            w.VBox([*self.rates.values(), self.decay]),
            w.HBox([self.optimizer, self.schedule]),
            w.HBox([self.made_for, self.when]),
            self.timeline_picture,
            self.marks,
            self.step,
            self.ratio_picture,
        )
        for control in (*self.rates.values(), self.optimizer):
            self.on(control, self._forget)
        for control in (self.schedule, self.made_for, self.when):
            self.on(control)
        self.on(self.decay, self._decay)
        self.on(self.step, self._measure)

    def _forget(self) -> None:
        self.ratios = None

    def _decay(self) -> None:
        """Set the rates by the factor, from the last part on."""
        self.ratios = None
        sliders = list(self.rates.values())[::-1]
        self._spreading = True
        try:
            for steps, slider in enumerate(sliders[1:], 1):
                slider.value = sliders[0].value * self.decay.value**steps
        finally:
            self._spreading = False

    def _measure(self) -> None:
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            raise ValueError("nothing in the model is trainable: unfreeze what the step is to move")
        optimizer = self._optimizer()

        def step() -> None:
            optimizer.zero_grad()
            F.cross_entropy(self.model(self.images), self.targets).backward()
            optimizer.step()

        self.ratios = update_ratio(self.model, step, optimizer)

    def _optimizer(self) -> Optimizer:
        rates = {name: slider.value for name, slider in self.rates.items()}
        groups = parameter_groups(self.model, rates, default=next(iter(rates.values())), frozen=True)
        return _OPTIMIZERS[self.optimizer.value](groups)

    def _scheduler(self, optimizer: Optimizer) -> LRScheduler | None:
        expression = _SCHEDULES[self.schedule.value]
        steps = self.made_for.value
        names = _NAMES | {"optimizer": optimizer, "steps": steps, "warm_up": max(steps // 5, 1), "max": max}
        return eval(expression, names) if expression else None

    def _render(self) -> None:
        if self._spreading:  # once for all sliders that the factor sets, not once for each
            return
        constant = not _SCHEDULES[self.schedule.value]
        self.made_for.disabled = self.when.disabled = constant  # there is no scheduler to step
        optimizer = self._optimizer()
        scheduler = self._scheduler(optimizer)
        self.timeline = timeline(
            optimizer, scheduler, epochs=self.epochs, batches=self.batches, when=self.when.value
        )
        self.timeline_picture.show(self.timeline.plot(), repr(self.timeline.plot()))
        items = "".join(
            f"<li><b>{escape(mark.kind)}</b>: {escape(mark.text)}</li>" for mark in self.timeline.marks
        )
        self.marks.value = f"<ul>{items}</ul>" if items else ""
        if self.ratios:
            self.ratio_picture.show(self.ratios.plot(), repr(self.ratios.plot()))
        else:
            self.ratio_picture.value, self.ratio_picture.alt = "", ""

    def describe(self) -> str:
        """Return the choices in one line."""
        count = len(self.timeline.marks)
        things = f"{plural(count, 'thing')} to look at" if count else "nothing to object to"
        made = f", made for {plural(self.made_for.value, 'step')}, called {self.when.label}"
        made += f" ({plural(len(self.timeline.scheduled), 'time')})"
        made = made if _SCHEDULES[self.schedule.value] else ""
        return f"{self.optimizer.value}, {self.schedule.value}{made}: {things}"

    def code(self) -> str:
        """Return plain PyTorch with these rates and this schedule."""
        return rates_code(self)


def _slider(name: str, rate: float) -> w.FloatLogSlider:
    slider = w.FloatLogSlider(value=rate, min=-6, max=0, step=0.1, description=name, readout_format=".1e")
    slider.style.description_width, slider.layout.width = "160px", "520px"
    slider.continuous_update = False
    return slider


def _parts(model: nn.Module, parts: Mapping[str, float] | Sequence[str] | None) -> dict[str, float]:
    call = "RatesPanel(model, images, targets, ['layer4', 'fc'])"
    expect(model, nn.Module, "the model", call)
    if isinstance(parts, str):
        raise TypeError(f"the parts are a list, or a dictionary with rates, not the text {parts!r}: {call}")
    if parts is None:
        parts = [name for name, child in model.named_children() if any(True for _ in child.parameters())]
        parts = parts or ["*"]  # a single layer has no children
    found = dict(parts) if isinstance(parts, Mapping) else dict.fromkeys(parts, 1e-3)
    if not found:
        raise ValueError(f"a panel without a part has no rate to drag: {call}")
    for name, rate in found.items():
        expect(name, str, "the name of a part", call)
        check_rate(rate, f"part {name!r}")
        if not 1e-6 <= rate <= 1:
            raise ValueError(f"part {name!r}: the sliders go from 1e-06 to 1, and {rate:g} lies outside")
    return found


def rates_code(panel: RatesPanel) -> str:
    """Return the state of a panel as plain PyTorch; `model`, `images` and `targets` are the learner's."""
    expression = _SCHEDULES[panel.schedule.value]
    kinds = [name for name in _NAMES if name in expression]
    modules = dict(panel.model.named_modules())
    lines = ["from fnmatch import fnmatchcase", "", "import torch.nn.functional as F"]
    lines += [f"from torch.optim import {panel.optimizer.value}"]
    lines += [f"from torch.optim.lr_scheduler import {', '.join(kinds)}"] if kinds else []
    lines += ["", "# `model` is your model, `batches` gives images and class numbers", "rates = {"]
    for name, slider in panel.rates.items():
        lines.append(f'    "{f"{name}.*" if name in modules else name}": {slider.value:.4g},')
    lines += ["}", _GROUPS, f"optimizer = {panel.optimizer.value}(list(groups.values()))"]
    if expression:
        unit = "epochs" if panel.made_for.value == panel.epochs else "batches"
        lines += [f"steps = {panel.made_for.value}  # made for so many {unit}"]
        lines += ["warm_up = max(steps // 5, 1)"] * ("warm_up" in expression)
        lines += [f"scheduler = {expression}"]
    lines.append(f"for epoch in range({panel.epochs}):")
    loop = {"epoch first": "", "": _BATCHES, "batch": "", "epoch": ""}
    if expression:
        loop[panel.when.value] = "    " * (2 if panel.when.value == "batch" else 1) + "scheduler.step()"
    return "\n".join([*lines, *filter(None, loop.values())])


_GROUPS = """\
groups = {}
for name, parameter in model.named_parameters():
    pattern = next((pattern for pattern in rates if fnmatchcase(name, pattern)), None)
    lr = rates[pattern] if pattern else next(iter(rates.values()))
    groups.setdefault(pattern, {"params": [], "lr": lr})["params"].append(parameter)"""

_BATCHES = """\
    for images, targets in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(images), targets).backward()
        optimizer.step()"""
