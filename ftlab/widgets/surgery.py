"""The panel of the surgery lesson: cut a network, give it heads, see shapes and parameters."""

from dataclasses import asdict

import ipywidgets as w
import torch
from torch import nn

from ftlab.surgery import Assembly, MultiHead, assemble, stages
from ftlab.surgery.assembly import heads_of
from ftlab.surgery.dry import on_meta
from ftlab.widgets.html import escape, table_html
from ftlab.widgets.panel import Panel

_RESTS = [
    ("no later stage", "none"),
    ("its own copy of the later stages", "own"),
    ("the same later stages", "shared"),
]
_WORDS = {value: label for label, value in _RESTS}
_POOLS = [("average", "average"), ("maximum", "maximum"), ("both", "both")]


class SurgeryPanel(Panel):
    """Put a network together: where to cut, what each head begins with, the pool, the heads.

    The model is not changed, and while you click nothing is computed and no parameter is copied. `build` makes
    the network.

    Args:
        model: A row of stages, as `ftlab.surgery.stages` finds them: a ResNet, any network with `features`.
        example: A batch of images, for the shapes; without it, one of 64 x 64.

    Example:
        >>> from torchvision import models
        >>> panel = SurgeryPanel(models.resnet18())
        >>> panel.after.value, panel.rest.value, panel.heads.value = "layer3", "own", 10
        >>> panel
        cut after layer3; 10 heads, each with its own copy of the later stages; 86.8 M parameters
        >>> panel.rest.value = "shared"
        >>> panel
        cut after layer3; 10 heads, each with the same later stages; 11.2 M parameters
    """

    title = "Put a network together"

    def __init__(self, model: nn.Module, *, example: torch.Tensor | None = None) -> None:
        self.model = model
        self.example = torch.zeros(1, 3, 64, 64) if example is None else example
        self._blank = on_meta(model)
        self._stages = {stage.name: stage for stage in stages(model, self.example)}
        self._built: dict[Assembly, MultiHead] = {}
        options = [(_label(stage), name) for name, stage in self._stages.items()]
        self.after = w.Dropdown(options=options, value=options[-1][1], description="cut after")
        self.rest = w.Dropdown(options=_RESTS, description="a head begins with")
        self.pool = w.Dropdown(options=_POOLS, description="pool")
        self.heads = w.IntSlider(value=1, min=1, max=10, description="heads")
        self.classes = w.BoundedIntText(value=10, min=1, max=1000, description="classes")
        controls = [self.after, self.rest, self.pool, self.heads, self.classes]
        for control in controls:
            control.style.description_width, control.layout.width = "130px", "460px"
        self.network = w.HTML()
        super().__init__(*controls, self.network)
        for control in controls:
            self.on(control)

    @property
    def plan(self) -> Assembly:
        """What the controls say; at the last stage there is nothing later that a head could begin with."""
        rest = self.rest.value if self._later() else "none"
        return Assembly(self.after.value, rest, self.pool.value, self.heads.value, self.classes.value)

    def build(self) -> MultiHead:
        """Return the network. Its backbone, and later stages that are shared, are those of the model itself."""
        return assemble(self.model, self.example, self.plan)

    def _later(self) -> list[str]:
        names = list(self._stages)
        return names[names.index(self.after.value) + 1 :]

    def _network(self) -> MultiHead:
        """Return the network without numbers: it has shapes and counts."""
        plan, names = self.plan, list(self._stages)
        if plan not in self._built:
            kept = [self._blank.get_submodule(name) for name in names[: names.index(plan.after) + 1]]
            with torch.device("meta"):
                heads = heads_of(self._blank, list(self._stages.values()), plan)
            self._built = {plan: MultiHead(nn.Sequential(*kept), heads, shared=True)}
        return self._built[plan]

    def _render(self) -> None:
        network = self._network()
        features = self._stages[self.after.value].shape
        scores = (features[0], self.classes.value)
        rows = [
            ("images", tuple(self.example.shape), None),
            (f"backbone, to {self.after.value}", features, _size(network.backbone)),
            *[(self._head_line(i), scores, _size(head)) for i, head in enumerate(network.heads)],
        ]
        total, every = _size(network), _size(network.backbone) + sum(_size(head) for head in network.heads)
        self.network.value = _table(rows, total) + _note(network, total, every)

    def _head_line(self, number: int) -> str:
        later = self._later() if self.plan.rest != "none" else []
        parts = [" to ".join(dict.fromkeys([later[0], later[-1]]))] if later else []
        return f"head {number}: " + ", ".join([*parts, _POOL_WORDS[self.pool.value], "linear"])

    def describe(self) -> str:
        """Return where the model is cut, what the heads are, and how many parameters there are."""
        plan = self.plan
        heads = "1 head" if plan.heads == 1 else f"{plan.heads} heads, each"
        line = f"cut after {plan.after}; {heads} with {_WORDS[plan.rest]}"
        return f"{line}; {_short(_size(self._network()))} parameters"

    def code(self) -> str:
        """Return plain PyTorch that makes this network of `model`."""
        names, plan = list(self._stages), self.plan
        cut = names.index(plan.after) + 1
        inputs = self._network().heads[0][-1].in_features
        rest = {
            "none": "[]",
            "own": "[copy.deepcopy(model.get_submodule(name)) for name in REST]",
            "shared": "[model.get_submodule(name) for name in REST]  # one object in every head",
        }[plan.rest]
        values = asdict(plan) | {"inputs": inputs, "rest": rest, "pool": _POOL_CODE[plan.pool]}
        lines = _CODE.format(**values, backbone_names=_names(names[:cut]))
        lines = lines.replace("REST", _names(names[cut:]))
        imports = "import copy\n\n" if plan.rest == "own" else ""
        return imports + "import torch\nfrom torch import nn\n\n" + (_BOTH if plan.pool == "both" else "") + lines


_POOL_WORDS = {"average": "average pool", "maximum": "maximum pool", "both": "both pools"}
_POOL_CODE = {"average": "nn.AdaptiveAvgPool2d(1)", "maximum": "nn.AdaptiveMaxPool2d(1)", "both": "BothPools()"}

_BOTH = """
class BothPools(nn.Module):
    def forward(self, features):
        return torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1)

"""

_CODE = """
class Network(nn.Module):
    def __init__(self, model):
        super().__init__()
        stages = [model.get_submodule(name) for name in {backbone_names}]
        self.backbone = nn.Sequential(*stages)
        self.heads = nn.ModuleList([self.head(model) for _ in range({heads})])

    def head(self, model):
        rest = {rest}
        return nn.Sequential(*rest, {pool}, nn.Flatten(), nn.Linear({inputs}, {num_classes}))

    def forward(self, images):
        features = self.backbone(images)
        return [head(features) for head in self.heads]


# `model` is your model; the backbone of the network is a part of it, not a copy
network = Network(model)"""


def _names(names: list[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


def _label(stage) -> str:
    channels, height, width = stage.shape[1:]
    return f"{stage.name}: {channels} channels of {height} × {width}"


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _short(number: int) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number:,}"


def _table(rows: list[tuple[str, tuple[int, ...], int | None]], total: int) -> str:
    lines = []
    for name, shape, size in rows:
        share = (size or 0) / total
        bar = f'<div class="ftlab-bar" aria-hidden="true"><div style="width: {share:.0%}"></div></div>'
        cells = [escape(name), " × ".join(map(str, shape)), "" if size is None else f"{size:,}"]
        cells.append("" if size is None else bar)
        lines.append(cells)
    return table_html("llrl", lines, ["part", "gives", "parameters", ""])


def _note(network: MultiHead, total: int, every: int) -> str:
    text = f"<p>{total:,} parameters in all; the state_dict has {len(network.state_dict()):,} names."
    if every != total:
        text += f" <b>{every - total:,} are counted above, and are not there</b>: the heads share their stages."
    return text + "</p>"
