"""The panel of the capstone: give your reasons, have a run judged, and see what to improve."""

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import ipywidgets as w

from ftlab.capstone.deciding import check_decisions, defend
from ftlab.capstone.facts import Facts
from ftlab.capstone.judging import CHECKS, judge
from ftlab.capstone.reasons import PLANNED, QUESTIONS, Decisions, size_of
from ftlab.capstone.verdict import MARKS, Finding, Verdict
from ftlab.data.images import Images
from ftlab.finetune import rundir
from ftlab.widgets.html import escape
from ftlab.widgets.job import Job
from ftlab.widgets.panel import Panel
from ftlab.widgets.picture import Picture

OPEN = "not decided yet"
WORDS = {True: "holds", False: "does not hold", None: OPEN}
COLOURS = {
    True: "--jp-success-color1, #388e3c",
    False: "--jp-error-color1, #d32f2f",
    None: "--jp-border-color1, #999",
}
SHOWN = 6  # mistakes


class CapstonePanel(Panel):
    """Choose a run and give a reason for each decision; have it judged, improve it, and judge the next one.

    What a run did is read from its plan: the reason is yours. It is compared at once with the facts; the judge
    takes as long as the run did. No run is changed.

    The trap: the judge speaks once. The more runs you show it, the more the hidden images are validation images.

    Args:
        place: The folder that holds the folders of the runs.
        facts: What `ftlab.capstone.measure` found for the folder of images.
        decisions: What is decided already, as for `judge`.
        pictures: The hidden images, as for `judge`.
        verdicts: What the judge has said already, by the name of the run.

    Raises:
        FileNotFoundError: There is no run in `place` that has ended.
        ValueError: There is no such decision, choice or reason.
    """

    title = "Defend your run"

    def __init__(
        self,
        place: str | Path,
        facts: Facts,
        decisions: Decisions | None = None,
        *,
        pictures: Images | None = None,
        verdicts: Mapping[str, Verdict] | None = None,
    ) -> None:
        check_decisions(decisions or {})
        self.place, self.facts, self.pictures = Path(place), facts, pictures
        self.verdicts = dict(verdicts or {})
        self.run = w.Dropdown(options=self._found(), description="run")
        self.run.index = len(self.run.options) - 1
        self.look = w.Button(description="Look for new runs", icon="refresh", layout={"width": "180px"})
        self.choices = {name: _dropdown(name, q.choices) for name, q in QUESTIONS.items() if name not in PLANNED}
        self.because = {name: _dropdown(f"{name} because", q.reasons) for name, q in QUESTIONS.items()}
        self.did = {name: w.HTML() for name in PLANNED}
        self._fill(decisions or {})
        self.cards, self.picture = w.HTML(), Picture()
        self.job = Job(self._judge, name="Judge", on_end=self.refresh)
        rows = [w.HBox([(self.did | self.choices)[name], self.because[name]]) for name in QUESTIONS]
        super().__init__(w.HBox([self.run, self.look]), *rows, self.job, self.cards, self.picture)
        for control in (self.run, *self.choices.values(), *self.because.values()):
            self.on(control)
        self.on(self.look, self._look)

    @property
    def out(self) -> Path:
        """The folder of the chosen run."""
        return self.place / self.run.value

    @property
    def decisions(self) -> dict[str, Any]:
        """What is decided, as `judge` takes it."""
        plan = rundir.read_plan(self.out)[0]
        done = {name: size_of(plan) if name == "size" else getattr(plan, name) for name in PLANNED}
        made = {name: control.value for name, control in self.choices.items()} | done
        reasons = {name: control.value for name, control in self.because.items()}
        return {
            name: (made[name], reasons[name]) if OPEN not in (made[name], reasons[name]) else ... for name in made
        }

    @property
    def verdict(self) -> Verdict | None:
        """What the judge said of the chosen run; None if it was not asked."""
        return self.verdicts.get(self.run.value)

    def defended(self) -> list[Finding]:
        """Return what your reasons are worth, for the chosen run."""
        others = [self.place / name for name in self.run.options if name != self.run.value]
        try:
            return defend(self.out, self.decisions, facts=self.facts, others=others).findings
        except ValueError as error:  # the facts are of other images
            seen, _, advice = str(error).replace(str(self.out), self.out.name).partition(": ")
            return [Finding("the facts and the run are of the same images", False, seen, advice)]

    def _found(self) -> list[str]:
        ended = [file.parent for file in self.place.glob(f"*/{rundir.REPORT}") if rundir.has_run(file.parent)]
        if not ended:
            raise FileNotFoundError(
                f"{self.place} has no folder of a run that has ended; make one: finetune.run(...)"
            )
        return [out.name for out in sorted(ended, key=lambda out: (out / rundir.REPORT).stat().st_mtime_ns)]

    def _look(self) -> None:
        before = self.run.value
        with self.run.hold_sync():  # one message: a choice made meanwhile is not undone by a second one
            self.run.options = self._found()
            self.run.value = before if before in self.run.options else self.run.options[-1]

    def _fill(self, decisions: Decisions) -> None:
        for name, made in decisions.items():
            if made is not ...:
                self.because[name].value = made[1]
                if name in self.choices:
                    self.choices[name].value = made[0]

    def _judge(self, job: Job) -> Verdict:
        name, checks = self.run.value, list(CHECKS)
        done = 0

        def say(line: str) -> None:
            nonlocal done
            done += line in checks
            job.tick(max(done - 1, 0), len(checks))

        verdict = judge(self.place / name, self.pictures, say=say)
        job.tick(len(checks), len(checks))  # here too it may be stopped
        self.verdicts[name] = verdict
        return verdict

    def _findings(self) -> list[Finding]:
        return (self.verdict.findings if self.verdict else []) + self.defended()

    def _render(self) -> None:
        plan = rundir.read_plan(self.out)[0]
        for name, view in self.did.items():
            value = size_of(plan) if name == "size" else getattr(plan, name)
            view.value = f"<p style='width: 360px'>{name} of the run: <b>{escape(str(value))}</b></p>"
        self.cards.value = cards_html(self._findings())
        if self.verdict and self.verdict.evaluation and self.verdict.evaluation.worst(1):
            figure = self.verdict.mistakes(SHOWN)
            self.picture.show(figure, f"The surest mistakes: {figure!r}")
        else:
            self.picture.value, self.picture.alt = "", ""

    def describe(self) -> str:
        """Return how far the chosen run is defended and judged."""
        defended = self.defended()
        good, left = (sum(finding.passed is mark for finding in defended) for mark in (True, None))
        line = f"{self.run.value}: {good} of {len(QUESTIONS)} decisions defended"
        line += f", {left} {OPEN}" if left else ""
        if not self.verdict:
            return f"{line}; not judged yet"
        held = sum(bool(finding.passed) for finding in self.verdict.findings)
        line += f"; {held} of {len(self.verdict.findings)} checks hold"
        return line + (": the work is done" if self.verdict.passed and good == len(QUESTIONS) else "")

    def code(self) -> str:
        """Return plain PyTorch for the number that is reported, from `out` and `hidden` on."""
        plan, classes = rundir.read_plan(self.out)
        return dedent(f"""\
            # `out` is the folder of the run (a Path), `hidden` a dataset of images that it has not seen, with its
            # numbers of the classes, prepared by: pretrained.preprocessing({plan.backbone!r}, size={plan.size})
            import torch
            from torch.utils.data import DataLoader

            from ftlab import pretrained

            classes = {classes!r}
            model = pretrained.load({plan.backbone!r}, weights=None, num_classes=len(classes))
            model.load_state_dict(torch.load(out / "best.pt", weights_only=True)["model"])
            model.eval()

            right, seen = torch.zeros(len(classes)), torch.zeros(len(classes))
            with torch.inference_mode():
                for images, targets in DataLoader(hidden, batch_size=32):
                    found = model(images).argmax(1) == targets
                    right += torch.bincount(targets[found], minlength=len(classes))
                    seen += torch.bincount(targets, minlength=len(classes))
            measured = seen > 0
            accuracy = (right / seen)[measured].mean().item()
            print(f"mean over the classes: {{accuracy:.1%}}")
            """)


def _dropdown(name: str, options: Any) -> w.Dropdown:
    layout = w.Layout(width="460px" if " " in name else "360px")
    style = {"description_width": "130px" if " " in name else "60px"}
    return w.Dropdown(options=[OPEN, *options], description=name, layout=layout, style=style)


def cards_html(findings: list[Finding]) -> str:
    """Return what does not hold as cards, with what to improve; what holds is behind a click."""
    cards = [_card(finding) for mark in (False, None) for finding in findings if finding.passed is mark]
    good = [_card(finding) for finding in findings if finding.passed]
    if good:
        cards.append(f"<details><summary>{MARKS[True]} {len(good)} hold</summary>{''.join(good)}</details>")
    return "".join(cards)


def _card(finding: Finding) -> str:
    mark, word = MARKS[finding.passed], WORDS[finding.passed]
    label = "Your turn" if finding.passed is None else "What to improve"
    advice = f"<p>{label}: {escape(finding.advice)}</p>" if finding.advice else ""
    return (
        f'<div style="border-left: 4px solid var({COLOURS[finding.passed]}); padding: 2px 10px; margin: 6px 0">'
        f"<p><b>{mark} {word}: {escape(finding.check)}</b></p><p>Seen: {escape(finding.seen)}</p>{advice}</div>"
    )
