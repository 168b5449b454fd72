"""The panel of lesson 04: one picture, its company, and the switches."""

import ipywidgets as w
import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights

from ftlab import plots
from ftlab.widgets.background import Latest
from ftlab.widgets.html import escape
from ftlab.widgets.modes.experiment import Seen, Settings, run
from ftlab.widgets.panel import Panel, Picture

KEEP = 64  # results that are kept, so that going back and forth costs nothing
MIB = 2**20


class ModesPanel(Panel):
    """Choose mode, gradients, batch size, dropout and momentum, and see what a network makes of one picture.

    The model is not changed: every choice begins anew, with a copy. The first image is the one that is looked
    at; the others keep it company in its batch.

    Args:
        model: Takes images to the scores of classes. That of the lessons if None.
        images: A batch (N, C, H, W) that it takes. A photograph of a cat and fifteen emoji if None.
        classes: The names of the classes; their numbers if None, for a model of your own.

    Raises:
        ValueError: There is a model, but no images for it.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
        >>> panel = ModesPanel(model, torch.ones(4, 3, 8, 8), ["cat", "dog"])
        >>> panel.mode.value = "eval"
        >>> panel.seen.moved
        0
    """

    title = "Modes"

    def __init__(
        self, model: nn.Module | None = None, images: Tensor | None = None, classes: list[str] | None = None
    ) -> None:
        if model is not None and images is None:
            raise ValueError("which images does the model take? Hand over a batch: ModesPanel(model, images)")
        self.model, self.images, self.classes = _example() if model is None else (model, images, classes)
        self._known: dict[Settings, Seen | Exception] = {}
        self._shown: Seen | None = None
        self._running = Latest(self.refresh)
        self.mode = w.ToggleButtons(options=["train", "eval"], description="mode")
        self.gradients = w.ToggleButtons(options=["grad", "no_grad", "inference_mode"], description="gradients")
        self.batch = w.IntSlider(value=min(4, len(self.images)), min=1, max=len(self.images), description="batch")
        self.dropout = w.FloatSlider(value=0.2, min=0, max=0.9, step=0.1, description="dropout")
        self.momentum = w.SelectionSlider(options=[0.0, 0.01, 0.1, 0.5, 1.0], value=0.01, description="momentum")
        self.passes = w.SelectionSlider(options=[1, 2, 5, 10], value=1, description="passes")
        self.picture, self.table = Picture(), w.HTML()
        self.controls = [self.mode, self.gradients, self.batch, self.dropout, self.momentum, self.passes]
        for slider in self.controls[2:]:
            slider.continuous_update = False
        rows = [w.HBox(self.controls[2:4]), w.HBox(self.controls[4:])]
        super().__init__(self.mode, self.gradients, *rows, self.picture, self.table)
        for control in self.controls:
            self.on(control)

    @property
    def settings(self) -> Settings:
        """What is chosen now."""
        return Settings(*(control.value for control in self.controls))

    @property
    def seen(self) -> Seen | None:
        """What came of the settings; None while they are being run."""
        found = self._known.get(self.settings)
        if isinstance(found, Exception):
            raise found
        return found

    def _look(self) -> Seen | None:
        settings = self.settings
        if settings not in self._known:
            self._running.ask(lambda: self._run(settings))
        return self.seen

    def _run(self, settings: Settings) -> None:
        if len(self._known) >= KEEP:
            self._known.clear()
        try:
            self._known[settings] = run(self.model, self.images, settings)
        except Exception as error:  # images that do not fit, or a batch of one: shown where it is drawn
            self._known[settings] = error

    def close(self) -> None:
        """Take the view away and run nothing more."""
        self._running.drop()
        super().close()

    def _render(self) -> None:
        seen = self._look()
        if seen is None:
            self.table.layout.visibility = self.picture.layout.visibility = "hidden"  # old numbers are no answer
            return
        self.table.layout.visibility = self.picture.layout.visibility = "visible"
        if seen is not self._shown:
            self._shown = seen
            figure = plots.probabilities(self.images[0], self._best(seen.logits))
            self.picture.show(figure, f"In this mode the network says: {figure.says}")
            self.table.value = self._rows(seen)

    def _best(self, logits: Tensor, count: int = 3) -> dict[str, float]:
        top = logits[0].softmax(0).topk(min(count, logits.shape[1]))
        names = [self.classes[i] if self.classes else f"class {i}" for i in top.indices.tolist()]
        return dict(zip(names, top.values.tolist(), strict=True))

    def _says(self, logits: Tensor) -> str:
        ((name, share),) = self._best(logits, 1).items()
        return f"{name}, {share:.0%}"

    def _rows(self, seen: Seen) -> str:
        total = sum(1 for _ in self.model.parameters())
        backward = seen.refused or f"gives {seen.reached} of {total} parameters a gradient"
        rows = {
            "says, in this mode": self._says(seen.logits),
            "says, in eval mode afterwards": self._says(seen.afterwards),
            "one more pass gives": "the same output" if seen.repeats else "another output",
            "changed by looking": self._moved(seen),
            "kept for backward": f"{seen.kept / MIB:.1f} MiB of {seen.peak / MIB:.1f} MiB at the peak",
            "a backward": backward,
        }
        left = 'style="text-align: left"'  # JupyterLab sends the cells of an output to the right
        cells = [
            f'<tr><th scope="row" {left}>{escape(k)}</th><td {left}>{escape(v)}</td></tr>'
            for k, v in rows.items()
        ]
        return f"<table>{''.join(cells)}</table>"

    def _moved(self, seen: Seen) -> str:
        if not seen.moved:
            return "nothing"
        return f"{seen.moved} tensors; a tenth of the stored means by {seen.shift:.2g} deviations or more"

    def describe(self) -> str:
        """Return what the network says now and in eval mode, and what looking has changed."""
        now = self.settings
        images, passes = _count(now.batch, "image"), _count(now.passes, "pass", "passes")
        line = f"{now.mode} mode, {now.gradients}, {images}, {passes}: "
        seen = self._known.get(now)
        if isinstance(seen, Exception):
            return f"{line}{type(seen).__name__}"
        if seen is None:
            return f"{line}running ..."
        line += f"{self._says(seen.logits)}; looking changed {seen.moved or 'no'} tensors; "
        return f"{line}{seen.kept / MIB:.1f} MiB kept"

    def code(self) -> str:
        """Return plain PyTorch that makes the same passes."""
        now = self.settings
        around = {"grad": "torch.enable_grad()"}.get(now.gradients, f"torch.{now.gradients}()")
        return f"""\
# `model` is your model, and is changed; of the batch `images` the first is looked at
import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torchvision.ops import StochasticDepth

for module in model.modules():
    if isinstance(module, (_DropoutNd, StochasticDepth)):
        module.p = {now.dropout}
    if isinstance(module, _BatchNorm):
        module.momentum = {now.momentum}

torch.manual_seed(0)
model.{"train" if now.mode == "train" else "eval"}()
for _ in range({now.passes}):
    with {around}:
        logits = model(images[:{now.batch}])
print(logits[0].softmax(0).topk(3))"""


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _example() -> tuple[nn.Module, Tensor, list[str]]:
    """Return the network of the lessons, a cat with fifteen emoji, and the names of the classes."""
    from PIL import Image
    from skimage import data as photographs

    from ftlab import data, pretrained

    small = pretrained.preprocessing(size=96)
    emoji = data.emoji("val", transform=small)
    cat = small(Image.fromarray(photographs.chelsea()))
    images = torch.stack([cat, *(emoji[9 * number][0] for number in range(15))])
    weights = get_model_weights(pretrained.backbone()).DEFAULT
    return pretrained.load(), images, weights.meta["categories"]
