"""The panel of the lesson on strategy: how many images, which, how deep, how fast; the result at once."""

from collections.abc import Mapping

import ipywidgets as w
from torch.utils.data import Dataset

from ftlab.strategy import DepthTrials, Run, draw
from ftlab.strategy.running import BATCH, Model
from ftlab.table import Table
from ftlab.widgets.job import Job, Stopped
from ftlab.widgets.panel import Panel
from ftlab.widgets.picture import Picture

_MARKS = "osD^vPX*"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")


class StrategyPanel(Panel):
    """Choose data, number of images, depth and rate; train; see it beside all that you tried before.

    The model is not changed. What lies before the chosen depth is computed once for each data set and depth, so
    that the first training at a depth takes seconds, and each further one only what learns.

    The trap: one point is one seed. Change the seed before you believe that one setting is better.

    Args:
        data: From a name to a pair of datasets, to train on and to measure on. Items are (image tensor, class
            number), with `classes` and `targets`.
        model: A name for `ftlab.pretrained.load`, or a classifier of your own.
        epochs: How often the images are gone through.

    Example:
        >>> from torch import nn
        >>> from torchvision.datasets import FakeData
        >>> from torchvision.transforms import ToTensor
        >>> data = FakeData(40, (3, 8, 8), num_classes=2, transform=ToTensor())
        >>> data.classes, data.targets = ["cat", "dog"], [int(target) for _, target in data]
        >>> body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> panel = StrategyPanel({"noise": (data, data)}, nn.Sequential(body, nn.Linear(4, 2)))
        >>> panel.images.value = 16
        >>> panel
        noise, 16 images, head only at 0.003: not trained yet
    """

    title = "How many images, how deep, how fast?"

    def __init__(
        self,
        data: Mapping[str, tuple[Dataset, Dataset]],
        model: Model = "efficientnet_lite0",
        *,
        epochs: int = 10,
    ) -> None:
        if not data:
            raise ValueError("there are no data: hand over {name: (train, test)}")
        self.trials = {name: DepthTrials(model, *pair) for name, pair in data.items()}
        self.epochs = epochs
        self.results: list[tuple[dict, Run]] = []
        blocks = next(iter(self.trials.values())).blocks
        self.data = w.Dropdown(options=list(data), description="data")
        self.images = w.SelectionSlider(options=[1], description="images")
        self.depth = w.SelectionSlider(
            options=[(_depth_label(blocks, depth), depth) for depth in range(1, len(blocks) + 1)],
            description="learns",
        )
        self.body_lr = w.FloatLogSlider(
            value=3e-4, min=-6, max=-1, step=0.25, description="body's rate", readout_format=".1e"
        )
        self.seed = w.BoundedIntText(value=0, min=0, max=999, description="seed")
        self.clear = w.Button(description="Forget results", icon="trash")
        self.job = Job(self._train, name="Train", on_end=self.refresh)
        self.picture, self.list = Picture(), w.HTML()
        self._fill_images()
        for slider in (self.images, self.depth, self.body_lr):
            slider.layout.width, slider.continuous_update = "560px", False
        super().__init__(
            self.data, self.images, self.depth, self.body_lr, w.HBox([self.seed, self.clear]),
            self.job, self.picture, self.list,
        )  # fmt: skip
        self.on(self.data, self._fill_images)
        for control in (self.images, self.depth, self.body_lr, self.seed):
            self.on(control)
        self.on(self.clear, self.results.clear)

    @property
    def settings(self) -> dict:
        """What is chosen now."""
        return {
            "data": self.data.value,
            "images": self.images.value,
            "depth": self.depth.value,
            "body_lr": self.body_lr.value if self.depth.value > 1 else None,
            "seed": self.seed.value,
        }

    @property
    def result(self) -> Run | None:
        """What the training with the present settings gave; None if there was none."""
        return next((run for settings, run in reversed(self.results) if settings == self.settings), None)

    def _fill_images(self) -> None:
        """Offer doublings, from two images of each class to all there are."""
        train = self.trials[self.data.value].train
        counts, count = [], 2 * len(train.classes)
        while count < len(train.targets):
            counts.append(count)
            count *= 2
        options = [*counts, len(train.targets)]
        before = self.images.value
        self.images.options = options
        self.images.value = min(options, key=lambda one: abs(one - before))

    def _train(self, job: Job) -> Run | None:
        settings = self.settings
        trials = self.trials[settings["data"]]
        count = settings["images"]
        try:
            run = trials.run(
                settings["depth"], None if count == len(trials.train.targets) else count,
                body_lr=settings["body_lr"] or 3e-4, epochs=self.epochs, seed=settings["seed"],
                should_stop=job._stop.is_set, on_epoch=lambda epoch: job.tick(epoch, self.epochs),
            )  # fmt: skip
        except KeyboardInterrupt:
            raise Stopped from None
        self.results.append((settings, run))
        job.tick(self.epochs, self.epochs, accuracy=run.accuracy)
        return run

    def _render(self) -> None:
        self.body_lr.disabled = self.depth.value == 1
        self.list.value = self.table()._repr_html_() if self.results else ""
        if self.results:
            figure = self._draw_results()
            self.picture.show(figure, figure.says)
        else:
            self.picture.value, self.picture.alt = "", ""

    def table(self) -> Table:
        """Return a row per training, the latest first."""
        rows = [
            [
                s["data"], s["images"], run.strategy, s["body_lr"], s["seed"],
                f"{run.accuracy:.1%}", f"{run.seconds:.1f}", f"{run.memory / 2**20:.0f}",
            ]
            for s, run in reversed(self.results)
        ]  # fmt: skip
        headers = ["data", "images", "learns", "body's rate", "seed", "accuracy", "seconds", "MiB"]
        return Table(headers, rows)

    def _draw_results(self):
        from ftlab.plots import Picture as Figure

        kinds = list(dict.fromkeys(_kind(settings, run) for settings, run in self.results))
        figure = Figure(7, 3.2, says=f"accuracy by number of images: {self._said()}")
        axes = figure.subplots()
        for number, kind in enumerate(kinds):
            points = sorted((s["images"], run.accuracy) for s, run in self.results if _kind(s, run) == kind)
            axes.plot(
                *zip(*points, strict=True), linestyle=":", marker=_MARKS[number % 8],
                color=_COLOURS[number % 8], label=kind, markersize=7,
            )  # fmt: skip
        axes.set_xscale("log", base=2)
        counts = sorted({s["images"] for s, _ in self.results})
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.set(xlabel="images to learn from", ylabel="accuracy on test images", ylim=(0, 1))
        axes.minorticks_off()
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
        return figure

    def _said(self) -> str:
        return "; ".join(
            f"{_kind(settings, run)}, {settings['images']} images, seed {settings['seed']}: {run.accuracy:.0%}"
            for settings, run in self.results
        )

    def describe(self) -> str:
        """Return the settings and, if they were trained, the result."""
        s = self.settings
        strategy = self.trials[s["data"]].strategy(s["depth"], body_lr=self.body_lr.value)
        rate = f" at {next(iter(strategy.rates.values())):g}"
        rate += f", body at {s['body_lr']:.2g}" if s["body_lr"] else ""
        found = f"{self.result.accuracy:.1%} on test images" if self.result else "not trained yet"
        more = f"; {len(self.results)} results to compare" if len(self.results) > 1 else ""
        return f"{s['data']}, {s['images']} images, {strategy.name}{rate}: {found}{more}"

    def code(self) -> str:
        """Return the training in plain PyTorch, from `model`, `train` and `test` on."""
        return strategy_code(self)


def _depth_label(blocks: list[str], depth: int) -> str:
    if depth == len(blocks):
        return "everything"
    return "head only" if depth == 1 else f"{blocks[-depth].split(', ')[0]} and later"


def _kind(settings: dict, run: Run) -> str:
    rate = f", body at {settings['body_lr']:.2g}" if settings["body_lr"] else ""
    return f"{settings['data']}, {run.strategy}{rate}"


def strategy_code(panel: StrategyPanel) -> str:
    """Return the present settings as plain PyTorch; what is frozen is run in each epoch here."""
    s = panel.settings
    trials = panel.trials[s["data"]]
    everything = s["images"] == len(trials.train.targets)
    places = "range(len(train))" if everything else str(draw(trials.train, s["images"], s["seed"]).indices)
    depth, blocks = s["depth"], len(trials.blocks)
    learns = "[]" if depth == 1 else '[""]' if depth == blocks else repr([f"{p}." for p in trials.parts(depth)])
    size = BATCH
    while s["images"] % size == 1:
        size += 1
    return _CODE.format(
        head=trials.head, classes=len(trials.train.classes), seed=s["seed"], places=places, learns=learns,
        body_lr=f"{s['body_lr'] or 3e-4:.6g}", batch=size, epochs=panel.epochs,
    )  # fmt: skip


_CODE = """\
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset

# `model` is a pretrained classifier, `train` and `test` give images and class numbers
torch.manual_seed({seed})
old = model.get_submodule("{head}")
head = nn.Linear(old.in_features, {classes})
model.set_submodule("{head}", head)

chosen = {places}
learns = {learns}  # beginnings of names in the body

body = []
for name, parameter in model.named_parameters():
    is_head = any(parameter is one for one in head.parameters())
    parameter.requires_grad = is_head or name.startswith(tuple(learns))
    if parameter.requires_grad and not is_head:
        body.append(parameter)
groups = [{{"params": head.parameters(), "lr": 0.003}}, {{"params": body, "lr": {body_lr}}}]
optimizer = torch.optim.AdamW(groups)

# what is frozen is in eval mode, and no batch norm moves
model.eval()
for module in model.modules():
    if any(parameter.requires_grad for parameter in module.parameters()):
        for part in [module, *module.children()]:
            own = list(part.parameters())
            is_norm = isinstance(part, nn.modules.batchnorm._BatchNorm)
            if not is_norm and (not own or any(parameter.requires_grad for parameter in own)):
                part.training = True

torch.manual_seed({seed})
for epoch in range({epochs}):
    for images, targets in DataLoader(Subset(train, chosen), batch_size={batch}, shuffle=True):
        optimizer.zero_grad()
        F.cross_entropy(model(images), targets).backward()
        optimizer.step()

model.eval()
with torch.no_grad():
    right = [(model(images).argmax(1) == targets) for images, targets in DataLoader(test, batch_size=64)]
accuracy = torch.cat(right).float().mean().item()
print(f"{{accuracy:.1%}}")
"""
