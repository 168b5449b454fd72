"""The panel of the lesson on strategy: how many images, which, how deep, how fast; the result at once."""

import time
from collections.abc import Mapping
from typing import Any

import ipywidgets as w
from torch.utils.data import Dataset

from ftlab.strategy import DepthTrials, Run
from ftlab.strategy.drawing import whole
from ftlab.strategy.running import Model
from ftlab.table import Table
from ftlab.widgets.background import Latest
from ftlab.widgets.job import Job
from ftlab.widgets.panel import Panel
from ftlab.widgets.picture import Picture
from ftlab.widgets.strategy.code import strategy_code
from ftlab.widgets.strategy.surface import Result, surface

SHOWN = 6  # rows of the table in the panel
BETWEEN = 0.7  # seconds between two pictures of a training that goes on: drawing takes time from it


class StrategyPanel(Panel):
    """Move a slider, and a training with these settings begins; see it beside all that you tried before.

    The model is not changed, nor is the random state: a training draws its own numbers, in the background, and is
    stopped by the next move. What lies before the chosen depth is computed once for each data set and depth, so
    that the first training at a depth takes seconds, and each further one only what learns. The same settings
    give the same number, whatever was trained before.

    The trap: one point is one seed. Change the seed before you believe that one setting is better.

    Args:
        data: From a name to a pair of datasets, to train on and to measure on. Items are (image tensor, class
            number), with `classes` and `targets`; or `Subset`s of such datasets.
        model: A name for `ftlab.pretrained.load`, or a classifier of your own.
        epochs: How often the images are gone through.
        live: Whether a move starts a training. On a slow machine switch it off, and press Train.

    Raises:
        TypeError: The data are no dictionary of pairs, or a dataset has no `classes` or no `targets`.
        ValueError: There are no data, or the classes of a pair differ.

    Example:
        >>> from torch import nn
        >>> from torchvision.datasets import FakeData
        >>> from torchvision.transforms import ToTensor
        >>> data = FakeData(40, (3, 8, 8), num_classes=2, transform=ToTensor())
        >>> data.classes, data.targets = ["cat", "dog"], [int(target) for _, target in data]
        >>> body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> panel = StrategyPanel({"noise": (data, data)}, nn.Sequential(body, nn.Linear(4, 2)), live=False)
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
        live: bool = True,
    ) -> None:
        _refuse_no_pairs(data)
        if whole("epochs", epochs) < 1:
            raise ValueError(f"epochs is 1 or more, not {epochs}")
        self.trials = _trials(data, model)
        self.epochs = epochs
        self.results: list[Result] = []
        self._now: Result | None = None  # the training that goes on
        self._soon = Latest(self.refresh)
        self._filling = self._closed = self._waiting = False  # waiting: a training is about to begin
        self._state, self._drawn = None, 0.0  # of the picture
        self._make_controls(list(data), live)
        self._fill_images()
        super().__init__(
            self.data, self.images, self.depth, self.body_lr, w.HBox([self.seed, self.live, self.clear]),
            self.job, self.picture, self.list,
        )  # fmt: skip
        self.on(self.data, self._other_data)
        for control in (self.images, self.depth, self.body_lr, self.seed, self.live):
            self.on(control, self._moved)
        self.on(self.clear, self.results.clear)

    def _make_controls(self, names: list[str], live: bool) -> None:
        blocks = self.trials[names[0]].blocks
        self.data = w.Dropdown(options=names, description="data")
        self.images = w.SelectionSlider(options=[1], description="images")
        self.depth = w.SelectionSlider(
            options=[(_depth_name(blocks, depth), depth) for depth in range(1, len(blocks) + 1)],
            description="learns",
        )
        self.body_lr = w.FloatLogSlider(
            value=3e-4, min=-6, max=-1, step=0.25, description="body's rate", readout_format=".1e"
        )
        for slider in (self.images, self.depth, self.body_lr):
            slider.layout.width, slider.continuous_update = "560px", False
        self.seed = w.BoundedIntText(value=0, min=0, max=999, description="seed")
        self.seed.layout.width = "160px"
        self.live = w.Checkbox(value=live, description="Train as I move", indent=False)
        self.live.layout.width = "160px"
        self.clear = w.Button(description="Forget results", icon="trash")
        self.job = Job(self._train, name="Train", on_end=self.refresh)
        self.picture, self.list = Picture(), w.HTML()

    @property
    def settings(self) -> dict[str, Any]:
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
        return next((one.run for one in self.results if one.settings == self.settings), None)

    def close(self) -> None:
        """Stop what is running, start nothing more, and take the view away."""
        self._closed = True
        self._soon.drop()
        super().close()

    def _other_data(self) -> None:
        self._fill_images()
        self._moved()

    def _fill_images(self) -> None:
        """Offer doublings, from two images of each class to all there are."""
        trials = self.trials[self.data.value]
        counts, count = [], 2 * len(trials.classes)
        while count < len(trials.targets):
            counts.append(count)
            count *= 2
        options = [*counts, len(trials.targets)]
        before = self.images.value
        self._filling = True  # new options choose the first one for a moment
        self.images.options = options
        self.images.value = min(options, key=lambda one: abs(one - before))
        self._filling = False

    def _moved(self) -> None:
        """Begin a training soon, unless the result is known; what is going on is for other settings: stop it."""
        if self._filling or not self.live.value:
            return
        self.job.stop()
        self._waiting = self.result is None
        if self._waiting:
            self._soon.ask(self._restart)
        else:
            self._soon.drop()

    def _restart(self) -> None:
        self.job.stop()
        self.job.wait()
        self._waiting = False
        if self.result is None and not self._closed:
            self.job.start()

    def _train(self, job: Job) -> Run:
        settings, epochs = self.settings, self.epochs
        trials, (count, how) = self.trials[settings["data"]], self._order(settings)
        seconds = trials.expected(settings["depth"], count, epochs=epochs)
        self._now = now = Result(settings, seconds=seconds)
        job.bar.value = 0.0  # it may be full of the training before
        self.refresh()

        def look(epoch: int, accuracy: float) -> None:
            now.looks.append((epoch, accuracy))
            self.refresh()

        def step(done: float, expected: float) -> None:
            job.tick(round(done, 1), round(expected, 1), unit="expected seconds")  # where Stop ends it

        try:
            run = trials.run(settings["depth"], count, **how, epochs=epochs, on_look=look, on_step=step)
        finally:
            self._now = None
        now.looks.append((epochs, run.accuracy))
        now.run = run
        self.results[:] = [one for one in self.results if one.settings != settings] + [now]
        job.tick(epochs, epochs, unit="epochs")
        return run

    def _order(self, settings: dict[str, Any]) -> tuple[int | None, dict[str, Any]]:
        """Return the number of images as `DepthTrials.run` takes it, and rate and seed."""
        count, every = settings["images"], len(self.trials[settings["data"]].targets)
        rate = {} if settings["body_lr"] is None else {"body_lr": settings["body_lr"]}
        return None if count == every else count, rate | {"seed": settings["seed"]}

    def _render(self) -> None:
        self.body_lr.disabled = self.depth.value == 1
        self.list.value = self._table_html()
        if not self._is_shown():
            self._draw_picture()

    def _is_shown(self) -> bool:
        """Return whether the picture need not be drawn: nothing new, or too soon while a training goes on."""
        now = self._shown_now()
        state = (self.settings, [id(one) for one in self.results], len(now.looks) if now else 0)
        soon = time.monotonic() - self._drawn < BETWEEN
        if state == self._state or self._waiting or (self._now and (soon or not self._now.looks)):
            return True
        self._state, self._drawn = state, time.monotonic()
        return False

    def _draw_picture(self) -> None:
        now = self._shown_now()
        results = [one for one in self.results if one.settings["data"] == self.data.value]
        if not results and not (now and now.looks):
            self.picture.value, self.picture.alt = "", ""
            return
        figure = surface(
            results, now, self._names([*results, *([now] if now else [])]), self.images.options, self.epochs,
            chance=1 / len(self.trials[self.data.value].classes),
        )  # fmt: skip
        self.picture.show(figure, f"{self.data.value}: {figure.says}")

    def _shown_now(self) -> Result | None:
        """Return the training of the present settings, finished or going on."""
        known = [*self.results, *([self._now] if self._now else [])]
        return next((one for one in known if one.settings == self.settings), None)

    def _names(self, results: list[Result]) -> dict[tuple, str]:
        """Return what each kind of result is called; the rate is said where a depth was tried with several."""
        blocks = self.trials[self.data.value].blocks
        kinds = {one.kind for one in results}
        rates = {depth: [rate for other, rate in kinds if other == depth] for depth, _ in kinds}
        return {
            (depth, rate): _depth_name(blocks, depth) + (f", body at {rate:.2g}" if len(rates[depth]) > 1 else "")
            for depth, rate in kinds
        }

    def _name(self, settings: dict[str, Any]) -> str:
        """Return what learns, in the words of the slider."""
        return _depth_name(self.trials[settings["data"]].blocks, settings["depth"])

    def _table_html(self) -> str:
        if not self.results:
            return ""
        more = len(self.results) - SHOWN
        note = f"<p>and {more} more: <code>panel.table()</code></p>" if more > 0 else ""
        return self.table(SHOWN)._repr_html_() + note

    def table(self, rows: int | None = None) -> Table:
        """Return a row per training, the latest first; `rows` of them, or all."""
        found = [
            [
                s["data"], s["images"], self._name(s), s["body_lr"], s["seed"],
                f"{100 * run.accuracy:.1f}", f"{run.seconds:.1f}", f"{run.memory / 2**20:.1f}",
            ]
            for s, run in [(one.settings, one.run) for one in reversed(self.results)]
        ]  # fmt: skip
        headers = ["data", "images", "learns", "body's rate", "seed", "accuracy, %", "seconds", "MiB"]
        return Table(headers, found[:rows])

    def describe(self) -> str:
        """Return the settings, and the result or how far it is."""
        s = self.settings
        strategy = self.trials[s["data"]].strategy(s["depth"], body_lr=self.body_lr.value)
        rate = f" at {next(iter(strategy.rates.values())):g}"
        rate += f", body at {s['body_lr']:.2g}" if s["body_lr"] else ""
        more = f"; {len(self.results)} results to compare" if len(self.results) > 1 else ""
        return f"{s['data']}, {s['images']} images, {self._name(s)}{rate}: {self._found()}{more}"

    def _found(self) -> str:
        now = self._shown_now()
        if now is None:
            return "not trained yet"
        if now.run:
            return f"{now.run.accuracy:.1%} on test images"
        so_far = f"; {now.looks[-1][1]:.1%} after epoch {now.looks[-1][0]}" if now.looks else ""
        return f"training, about {now.seconds:.0f} s in all{so_far}"

    def code(self) -> str:
        """Return the training in plain PyTorch, from `model`, `train` and `test` on."""
        settings = self.settings
        return strategy_code(self.trials[settings["data"]], settings, self.epochs)


def _refuse_no_pairs(data: Any) -> None:
    wanted = "hand over {name: (train, test)}"
    if not isinstance(data, Mapping):
        raise TypeError(f"data is a dictionary, not a {type(data).__name__}: {wanted}")
    if not data:
        raise ValueError(f"there are no data: {wanted}")
    for name, pair in data.items():
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"{name!r} is a {type(pair).__name__}, and no pair of datasets: {wanted}")


def _trials(data: Mapping[str, tuple[Dataset, Dataset]], model: Model) -> dict[str, DepthTrials]:
    """Return trials by name; those with the same training images share what is computed of them."""
    by_train: dict[int, DepthTrials] = {}
    found = {}
    for name, (train, test) in data.items():
        if id(train) in by_train:
            found[name] = by_train[id(train)].on(test)
        else:
            found[name] = by_train[id(train)] = DepthTrials(model, train, test)
    return found


def _depth_name(blocks: list[str], depth: int) -> str:
    if depth == len(blocks):
        return "everything"
    return "head only" if depth == 1 else f"{blocks[-depth].split(', ')[0]} and later"
