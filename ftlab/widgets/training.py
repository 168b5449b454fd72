"""The panel of the lesson on training: a loop of blocks, also in the wrong order, and what that does."""

import re
from collections.abc import Sequence
from functools import lru_cache

import ipywidgets as w
from torch import Tensor, nn

from ftlab.given import expect
from ftlab.plural import plural
from ftlab.training import LoopReport, check_loop
from ftlab.training.blocks import BLOCKS, COLUMNS, FIRST, RIGHT, LoopRun, loop_code, raises_in, run_blocks
from ftlab.widgets.html import escape, table_html
from ftlab.widgets.panel import Panel, Picture

LOOPS = {
    "the right loop": RIGHT,
    "zero_grad forgotten": RIGHT[1:],  # the clip hides most of it: drop that as well
    "zero_grad too late": (*RIGHT[1:4], "zero_grad", *RIGHT[4:]),
    "step before backward": ("zero_grad", "forward", "loss", "step", "backward", "schedule"),
    "clip after the step": ("zero_grad", "forward", "loss", "backward", "step", "clip", "schedule"),
    "clip before backward": ("zero_grad", "forward", "loss", "clip", "backward", "step", "schedule"),
    "schedule first": ("schedule", *RIGHT[:-1]),
    "two steps": (*RIGHT[:5], "step", "step", "schedule"),
    "softmax twice": (*RIGHT[:2], "softmax", *RIGHT[2:]),
}
_OWN = "a loop of your own"
_LONGEST = 14  # lines; more than anybody needs


class LoopPanel(Panel):
    """Put the lines of a training loop in order, or out of it, and run it for three batches.

    The model is not changed: the loop runs on a copy, and so does the right loop beside it.

    The trap: a loop in the wrong order hardly ever raises. Look at the norms, the rates and the parameters.

    Args:
        model: Takes images to logits.
        images: Images for three batches, or for one that is used three times if there are less than six.
        targets: Their class numbers (N,).
        lr: Learning rate.

    Example:
        >>> import torch
        >>> panel = LoopPanel(nn.Linear(4, 2), torch.ones(6, 4), torch.tensor([0, 1] * 3))
        >>> panel.lines.value = 0
        >>> panel.drop.click()
        >>> panel
        6 lines, 1 slip: no zero_grad
        >>> panel.start.value = "clip after the step"
        >>> panel.run.click()
        >>> len(panel.mine.losses)
        3
    """

    title = "A loop of blocks"

    def __init__(self, model: nn.Module, images: Tensor, targets: Tensor, *, lr: float = 0.05) -> None:
        expect(model, nn.Module, "the model", "LoopPanel(model, images, targets)")
        self.model, self.lr = model, lr
        self.batches = _batches(images, targets)
        self.blocks: list[str] = list(RIGHT)
        self.chosen = 0
        self.mine: LoopRun | None = None
        self.right: LoopRun | None = None
        self._drawn: LoopRun | None = None  # whoever only chooses another line does not wait for a new picture
        self.start = w.Dropdown(options=[*LOOPS, _OWN], description="start from")
        self.lines = w.Select(description="lines", rows=9)
        self.lines.layout.width = "640px"
        self.up, self.down = _button("Up", "arrow-up"), _button("Down", "arrow-down")
        self.double, self.drop = _button("Double", "clone"), _button("Drop", "trash")
        self.add = w.Dropdown(options=[(code, name) for name, code in BLOCKS.items()], description="new line")
        self.add.layout.width = "640px"
        self.insert = _button("Add", "plus")
        self.words = w.HTML()
        self.run = w.Button(description="Run three batches", icon="play")
        self.run.layout.width = "190px"
        self.numbers, self.picture = w.HTML(), Picture()
        buttons = w.VBox([self.up, self.down, self.double, self.drop])
        super().__init__(
            self.start, w.HBox([self.lines, buttons]), w.HBox([self.add, self.insert]), self.words, self.run,
            self.numbers, self.picture,
        )  # fmt: skip
        self.on(self.lines, self._choose)
        self.on(self.start, lambda: self._set(LOOPS.get(self.start.value, self.blocks), 0))
        self.on(self.up, lambda: self._move(-1))
        self.on(self.down, lambda: self._move(1))
        self.on(self.double, self._double)
        self.on(self.drop, self._drop)
        self.on(self.insert, self._insert)
        self.on(self.run, self._run)

    def report(self) -> LoopReport:
        """Return what `check_loop` says about these lines."""
        return _read(self.code())

    def _wrong(self) -> str:
        """Return what is wrong with these lines and no slip: one raises, or nothing is trained."""
        line, why = raises_in(self.blocks)
        if line:
            return f"line {line} raises: {why}"
        needed = ("forward", "loss", "backward", "step")
        missing = next((BLOCKS[name] for name in needed if name not in self.blocks), "")
        return f"nothing is trained: there is no `{missing}`" if missing and self.report().ok else ""

    def _choose(self) -> None:
        self.chosen = self.lines.value or 0

    def _set(self, blocks: Sequence[str], chosen: int) -> None:
        self.blocks, self.chosen = list(blocks), max(0, min(chosen, len(blocks) - 1))
        self.mine = None  # its numbers are those of another loop

    def _move(self, by: int) -> None:
        place, blocks = self.chosen + by, list(self.blocks)
        if 0 <= place < len(blocks):
            blocks[self.chosen], blocks[place] = blocks[place], blocks[self.chosen]
            self._set(blocks, place)

    def _double(self) -> None:
        self._put(self.blocks[self.chosen : self.chosen + 1], self.chosen + 1)

    def _insert(self) -> None:
        self._put([self.add.value], self.chosen + 1)

    def _put(self, new: list[str], place: int) -> None:
        if len(self.blocks) + len(new) > _LONGEST:
            raise ValueError(f"{_LONGEST} lines are enough for a loop; drop one first")
        self._set([*self.blocks[:place], *new, *self.blocks[place:]], place)

    def _drop(self) -> None:
        self._set([*self.blocks[: self.chosen], *self.blocks[self.chosen + 1 :]], self.chosen)

    def _run(self) -> None:
        self.right = run_blocks(RIGHT, self.model, self.batches, lr=self.lr)  # the model may be another by now
        self.mine = run_blocks(self.blocks, self.model, self.batches, lr=self.lr)

    def _render(self) -> None:
        report = self.report()
        marked = {one.line - FIRST for one in report.slips if one.line}
        self.start.value = next((name for name, loop in LOOPS.items() if loop == tuple(self.blocks)), _OWN)
        self.lines.options = [
            (f"{'⚠' if place in marked else ' '} {place + 1}  {BLOCKS[name]}", place)
            for place, name in enumerate(self.blocks)
        ]
        self.lines.value = self.chosen if self.blocks else None
        self.words.value = _words(report, self._wrong())
        self.numbers.value = _numbers(self.mine, self.right) if self.mine else ""
        if self.mine is not self._drawn:
            self._draw_run()

    def _draw_run(self) -> None:
        self._drawn = self.mine
        if self.mine:
            figure = self.mine.plot(self.right)
            self.picture.show(figure, figure.says)
        else:
            self.picture.value, self.picture.alt = "", ""

    def describe(self) -> str:
        """Return how many lines there are, what is wrong with them, and what three batches did."""
        kinds = self.report().kinds
        found = [f"{plural(len(kinds), 'slip')}: {', '.join(kinds)}"] if kinds else []
        found += filter(None, [self._wrong()])
        slips = "; ".join(found) or "nothing to object to"
        line = f"{plural(len(self.blocks), 'line')}, {slips}"
        if self.mine and self.mine.distances:
            moved = f"the parameters moved by {self.mine.distances[-1]:.2%}"
            line += f"; after {len(self.mine.distances)} batches {moved}"
        return line

    def code(self) -> str:
        """Return the loop as plain PyTorch; `model` and `batches` are the learner's."""
        return loop_code(self.blocks, self.lr)


@lru_cache(maxsize=64)
def _read(code: str) -> LoopReport:
    """Read a loop once, however often it is drawn: a click overtakes a choice that waits for the drawing."""
    return check_loop(code)


def _button(text: str, icon: str) -> w.Button:
    button = w.Button(description=text, icon=icon)  # a tooltip would take the place of its name
    button.layout.width = "110px"
    return button


def _batches(images: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    if len(images) != len(targets):
        raise ValueError(f"{len(images)} images and {len(targets)} targets do not belong together")
    if len(images) < 6:
        return [(images, targets)] * 3
    size = len(images) // 3
    return [(images[i * size : (i + 1) * size], targets[i * size : (i + 1) * size]) for i in range(3)]


def _words(report: LoopReport, wrong: str) -> str:
    """Return what the linter says, a sentence per slip, in the numbers of the panel's lines."""
    said = re.sub("`([^`]+)`", r"<code>\1</code>", escape(wrong[:1].upper() + wrong[1:]))
    first = f"<p>⚠ {said}.</p>" if wrong else ""
    if not report.slips:
        return first or "<p>✓ check_loop has nothing to object to.</p>"
    items = "".join(
        f"<li><b>{escape(one.kind)}</b>{f' (line {one.line - FIRST + 1})' if (one.line or 0) >= FIRST else ''}: "
        f"{escape(one.why)}.<br>Repair: <code>{escape(one.repair)}</code></li>"
        for one in report.slips
    )
    return f"{first}<ul>{items}</ul>"


def _numbers(mine: LoopRun, right: LoopRun) -> str:
    """Return both runs as one table, batch by batch."""
    titles = "".join(
        f'<th colspan="2" style="text-align: center; padding: 0 8px">{title}</th>' for title in COLUMNS.values()
    )
    headers = ["batch", *["yours", "right"] * len(COLUMNS)]
    rows = []
    for place in range(len(right.losses)):
        cells = [str(place + 1)]
        for name in COLUMNS:
            cells += [_cell(getattr(run, name), place, name) for run in (mine, right)]
        rows.append(cells)
    error = f'<p role="alert">⚠ {escape(mine.error)}</p>' if mine.error else ""
    above = f"<tr><th></th>{titles}</tr>"
    return table_html("r" * len(headers), rows, headers, above=above) + error


def _cell(values: list, place: int, name: str) -> str:
    value = values[place] if place < len(values) else None
    if value is None:
        return "none"
    return f"{value:.2%}" if name == "distances" else f"{value:.4g}"
