"""The panel of the lesson on several processes: choose, see who gets what and where it meets, run it."""

import linecache
from collections.abc import Callable

import ipywidgets as w

from ftlab.multi_gpu import launch
from ftlab.multi_gpu.plan import BATCH_NORMS, EPOCHS, SAMPLERS, WRAPPERS, RanksPlan
from ftlab.widgets.html import escape
from ftlab.widgets.job import Job
from ftlab.widgets.panel import Panel

_FILE = "<train.py>"
HANGS = 10.0  # seconds that a training gets which is going to hang; a second would be enough
TIMEOUT = 600.0  # seconds for any other one, also on a slow machine


class RanksPanel(Panel):
    """Choose ranks, batch size, wrapper, sampler and batch norm; run it with real processes.

    Nothing of the notebook is changed: the processes have a model of their own.

    The trap: what hangs. Choose "each image once" with a number of images that the ranks cannot share out, and
    run it; after ten seconds you read which rank waits in which line.

    Example:
        >>> panel = RanksPanel()
        >>> panel.images.value, panel.ranks.value = 6, 4
        >>> panel
        4 processes, DistributedDataParallel, DistributedSampler: a full step sees 8 images
    """

    title = "Several processes, one model"

    def __init__(self) -> None:
        self.ranks = w.IntSlider(value=2, min=1, max=4, description="ranks")
        self.batch_size = w.IntSlider(value=2, min=1, max=8, description="batch size")
        self.images = w.IntSlider(value=8, min=1, max=24, description="images")
        self.wrapper = w.Dropdown(options=WRAPPERS, description="wrapper")
        self.sampler = w.Dropdown(options=SAMPLERS, description="sampler")
        self.batch_norm = w.Dropdown(options=BATCH_NORMS, description="batch norm")
        self.batch_size.tooltip = "Images per step in each process"
        self.picture, self.notes, self.log = w.HTML(), w.HTML(), w.HTML()
        self.lines: list[tuple[int, str]] = []
        self.job = Job(self._run, name="Run it", on_end=self.refresh)
        super().__init__(
            w.HBox([self.ranks, self.batch_size, self.images]),
            w.HBox([self.wrapper, self.sampler, self.batch_norm]),
            self.picture,
            self.notes,
            self.job,
            self.log,
        )
        for control in (self.ranks, self.batch_size, self.images, self.wrapper, self.sampler, self.batch_norm):
            self.on(control, self._forget)

    @property
    def plan(self) -> RanksPlan:
        """The choices, and what follows from them."""
        names = ("ranks", "batch_size", "images", "wrapper", "sampler", "batch_norm")
        return RanksPlan(**{name: getattr(self, name).value for name in names})

    def _forget(self) -> None:
        if not self.job.running:
            self.lines = []

    def _run(self, job: Job) -> int:
        """Run the script that is shown; return how many lines the ranks printed."""
        plan, self.lines = self.plan, []
        steps = sum(len(rank) for epoch in range(EPOCHS) for rank in plan.batches(epoch))

        def show(rank: int, line: str) -> None:
            self.lines.append((rank, line))

        def should_stop() -> bool:
            job.tick(min(len(self.lines), steps), steps)  # raises when Stop was pressed
            self._show_log()
            return False

        launch(_script_runner(plan.script()), nproc=plan.processes, join=False, show=show,
               timeout=HANGS if plan.hangs else TIMEOUT, should_stop=should_stop)  # fmt: skip
        job.tick(steps, steps)
        return len(self.lines)

    def _render(self) -> None:
        plan = self.plan
        self.picture.value = _cards(plan)
        items = "".join(f"<li>{escape(note)}</li>" for note in plan.notes())
        names = f"the first name in the checkpoint of the wrapper: <code>{escape(plan.prefix)}0.weight</code>"
        self.notes.value = f"<ul>{items}<li>{names}</li></ul>"
        self._show_log()

    def _show_log(self) -> None:
        text = "\n".join(f"[rank {rank}] {line}" for rank, line in sorted(self.lines, key=lambda pair: pair[0]))
        self.log.value = f"<pre>{escape(text)}</pre>" if text else ""

    def describe(self) -> str:
        """Return the choices in one line."""
        plan = self.plan
        many = f"{plan.processes} process{'es' * (plan.processes != 1)}"
        full = "it hangs" if plan.hangs else f"a full step sees {plan.processes * plan.batch_size} images"
        return f"{many}, {plan.wrapper}, {plan.sampler}: {full}"

    def code(self) -> str:
        """Return the training as a script for torchrun."""
        return self.plan.script()


def _script_runner(script: str) -> Callable[[], None]:
    """Return a function that runs a script as Python runs a file; it travels by value."""
    linecache.cache[_FILE] = (len(script), None, script.splitlines(True), _FILE)  # an error quotes its line

    def run() -> None:
        exec(compile(script, _FILE, "exec"), {"__name__": "__main__"})

    return run


def _cards(plan: RanksPlan) -> str:
    """Draw a card per process and epoch, a box per step; the images stand in it by their numbers."""
    rows = []
    for epoch in range(EPOCHS):
        cells = "".join(_card(rank, batches) for rank, batches in enumerate(plan.batches(epoch)))
        rows.append(f'<div style="margin:4px 0"><b>epoch {epoch}</b>{cells}</div>')
    return f'<div role="img" aria-label="{escape(repr(plan))}">{"".join(rows)}</div>'


def _card(rank: int, batches: list[list[int]]) -> str:
    box = "display:inline-block;border:1px solid currentColor;border-radius:4px;padding:0 6px;margin:2px"
    steps = "".join(f'<span style="{box}">{" ".join(map(str, batch))}</span>' for batch in batches)
    return f'<div style="margin-left:1em">rank {rank}: {steps or "nothing"}</div>'
