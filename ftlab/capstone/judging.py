"""The judge: what holds of a finished run, and what to improve."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from ftlab import finetune, pretrained, training
from ftlab.capstone.pictures import hidden
from ftlab.checkpoints import load
from ftlab.data.images import Images
from ftlab.finetune import rundir
from ftlab.finetune.plan import Plan
from ftlab.finetune.predicting import load_best
from ftlab.finetune.running import planned_model
from ftlab.table import Table

BAR = 0.8  # mean over the classes, on the hidden part


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
        check: What has to hold.
        passed: Whether it does.
        seen: What was measured.
        advice: What to do next; empty if it holds.
    """

    check: str
    passed: bool
    seen: str
    advice: str = ""


class Verdict:
    """The result of `judge`; its repr is a table.

    Attributes:
        findings: One per check.
    """

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = findings

    @property
    def passed(self) -> bool:
        """Whether everything holds."""
        return all(finding.passed for finding in self.findings)

    def table(self) -> Table:
        """Return a row per check."""
        rows = [[f.check, "✓" if f.passed else "✗", f.seen, f.advice] for f in self.findings]
        count = sum(finding.passed for finding in self.findings)
        title = f"{count} of {len(rows)} checks hold" + (": the work is done." if self.passed else ".")
        return Table(["what has to hold", "holds", "seen", "next step"], rows, title=title)

    def to_dict(self) -> list[dict[str, Any]]:
        """Return one dictionary per check."""
        return [asdict(finding) for finding in self.findings]

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def judge(out: str | Path, pictures: Images | None = None, *, bar: float = BAR) -> Verdict:
    """Check a finished run: no leak, frozen as planned, exact resume, a fresh process, accuracy on hidden images.

    Nothing in the folder of the run is changed. Part of the work is done again, in a temporary folder: the run is
    stopped and resumed, and must come to the same bits.

    Args:
        out: The folder of a run of `ftlab.finetune.run` that has ended.
        pictures: Images that the run has not seen, with the same class names; those of `hidden()` if None.
        bar: The accuracy to reach, as the mean over the classes, from 0 to 1.

    Raises:
        FileNotFoundError: `out` is no folder of a run, or the run has not ended.
        ValueError: `pictures` has a class that the run does not know.
    """
    out = Path(out)
    plan, classes = rundir.read_plan(out)
    if not (out / rundir.REPORT).exists():
        raise FileNotFoundError(f"the run in {out} has not ended; go on with finetune.run(..., resume=True)")
    pictures = hidden() if pictures is None else pictures
    unknown = sorted(set(pictures.classes) - set(classes))
    if unknown:
        raise ValueError(f"the run knows no class {unknown[0]!r}; it knows {', '.join(classes)}")
    steps: list[Callable[[], Iterator[Finding]]] = [
        lambda: _leaks(plan),
        lambda: _frozen(out, plan, classes),
        lambda: _fresh(out, pictures),
        lambda: _resume(out, plan),
        lambda: _accuracy(out, plan, classes, pictures, bar),
    ]
    return Verdict([finding for step in steps for finding in step()])


def _leaks(plan: Plan) -> Iterator[Finding]:
    """Compare the files' contents across the sides and across the classes."""
    sides = {side: _digests(plan, side) for side in ("train", "val")}
    both = sides["train"].keys() & sides["val"].keys()
    root = Path(plan.folder).expanduser().absolute()
    files = [Path(sides["train"][key][0]).relative_to(root).as_posix() for key in both]
    yield Finding(
        "no image on both sides of the split",
        not both,
        f"{len(both)} images are in train and in val" + (f": {files[0]}, ..." if files else ""),
        "the accuracy on val is too good: delete one of each pair" if both else "",
    )
    everywhere: dict[str, set[str]] = {}
    for known in sides.values():
        for key, found in known.items():
            everywhere.setdefault(key, set()).update(Path(file).parent.name for file in found)
    odd = [" and ".join(sorted(names)) for names in everywhere.values() if len(names) > 1]
    yield Finding(
        "no image in two classes",
        not odd,
        f"{len(odd)} images are in two classes" + (f": {odd[0]}" if odd else ""),
        "look at it and decide where it belongs" if odd else "",
    )


def _digests(plan: Plan, side: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for file, _ in finetune.split(plan, side).samples:
        found.setdefault(sha256(Path(file).read_bytes()).hexdigest(), []).append(file)
    return found


def _frozen(out: Path, plan: Plan, classes: list[str]) -> Iterator[Finding]:
    """Compare the parameters at the end with those at the start."""
    start = planned_model(plan, classes)[0]
    end = load(out / rundir.LAST)["model"]
    moved = {name for name, tensor in start.state_dict().items() if not torch.equal(tensor, end[name])}
    trainable = {name for name, parameter in start.named_parameters() if parameter.requires_grad}
    leaks, stuck = sorted(moved - trainable), sorted(trainable - moved)
    yield Finding(
        "what is frozen held, what is trained moved",
        not leaks and not stuck,
        f"{len(trainable & moved)} of {len(trainable)} trainable tensors moved, and {len(leaks)} frozen ones",
        f"look at {(leaks + stuck)[0]}: audit the training step" if leaks or stuck else "",
    )


def _fresh(out: Path, pictures: Images) -> Iterator[Finding]:
    """Ask a process that knows nothing of this one."""
    files = [file for file, _ in pictures.samples[:: max(1, len(pictures) // 8)]]
    here = {said.file: next(iter(said.scores), "") for said in finetune.predict(out, files)}
    command = [sys.executable, "-m", "ftlab", "predict", str(out), *files, "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    there = {}
    for line in ran.stdout.splitlines():
        said = json.loads(line)
        there[said["file"]] = next(iter(said["scores"]), "")
    same = ran.returncode == 0 and here == there
    yield Finding(
        "the checkpoint says the same in a fresh process",
        same,
        f"{sum(here[file] == there.get(file) for file in here)} of {len(here)} answers are equal",
        "" if same else (ran.stderr.strip().splitlines() or ["compare the two by hand"])[-1],
    )


def _resume(out: Path, plan: Plan) -> Iterator[Finding]:
    """Do the run once more, with a stop after the first epoch."""
    wanted = load(out / rundir.LAST)["model"]

    def stop(line: str) -> None:
        if line.startswith("epoch 1 "):
            raise KeyboardInterrupt

    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / "run"
        choices = {name: value for name, value in plan.to_dict().items() if name not in ("folder", "why")}
        try:
            finetune.run(plan.folder, again, say=stop, **choices)
        except KeyboardInterrupt:
            finetune.run(plan.folder, again, resume=True, say=lambda line: None)
        found = load(again / rundir.LAST)["model"]
    odd = [name for name in wanted if not torch.equal(wanted[name], found[name])]
    yield Finding(
        "stopped and resumed, it comes to the same bits",
        not odd,
        f"{len(odd)} of {len(wanted)} tensors differ",
        f"the first is {odd[0]}: was the run made on another machine, or are the images others now?"
        if odd
        else "",
    )


def _accuracy(out: Path, plan: Plan, classes: list[str], pictures: Images, bar: float) -> Iterator[Finding]:
    """Measure the best model on images that nobody has trained on or chosen with."""
    known = Images(
        Path(pictures.root),
        classes,
        [(file, classes.index(pictures.classes[target])) for file, target in pictures.samples],
        title=pictures.title,
        transform=pretrained.preprocessing(plan.backbone, size=plan.size),
    )
    measured = training.evaluate(load_best(out), training.loader(known), progress=False)
    counts = measured.confusion.sum(1)
    shares = {name: (measured.confusion[i, i] / counts[i]).item() for i, name in enumerate(classes) if counts[i]}
    mean, worst = sum(shares.values()) / len(shares), min(shares, key=shares.get)
    yield Finding(
        f"accuracy on hidden images, mean over the classes: {bar:.0%}",
        mean >= bar,
        f"{mean:.1%}; the weakest class is {worst}, with {shares[worst]:.0%}",
        ""
        if mean >= bar
        else f"look at the mistakes with {worst}; larger images, another strategy, more images of it",
    )
