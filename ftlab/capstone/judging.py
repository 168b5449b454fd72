"""The judge: what holds of a finished run, and what to improve."""

import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ftlab import data, finetune, pretrained, training
from ftlab.capstone.copies import Copy, find_copies, listed
from ftlab.capstone.deciding import defend
from ftlab.capstone.facts import Facts
from ftlab.capstone.pictures import CLASSES, hidden
from ftlab.capstone.reasons import Decisions
from ftlab.capstone.verdict import Finding, Verdict
from ftlab.checkpoints import load
from ftlab.data.images import Images
from ftlab.finetune import rundir
from ftlab.finetune.plan import Plan
from ftlab.finetune.predicting import load_best
from ftlab.finetune.running import planned_model
from ftlab.random_state import keep_random_state
from ftlab.training import Evaluation

BAR = 0.8  # mean over the classes, on the hidden part
Say = Callable[[str], Any]


@dataclass
class _Case:
    """What is judged."""

    out: Path
    plan: Plan
    classes: list[str]
    pictures: Images
    bar: float
    say: Say
    evaluation: Evaluation | None = None

    @classmethod
    def of(cls, out: Path, pictures: Images | None, bar: float, say: Say) -> "_Case":
        plan, classes = rundir.read_plan(out)
        if not (out / rundir.REPORT).exists():
            raise FileNotFoundError(f"the run in {out} has not ended; go on with finetune.run(..., resume=True)")
        pictures = _hidden_part(plan, classes) if pictures is None else pictures
        unknown = sorted(set(pictures.classes) - set(classes))
        if unknown:
            raise ValueError(f"the run knows no class {unknown[0]!r}; it knows {', '.join(classes)}")
        return cls(out, plan, classes, _renumbered(pictures, classes, plan), bar, say)

    def sides(self) -> dict[str, Images]:
        """Return the images of the run as they are divided; what is wrong with them is said elsewhere."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {side: finetune.split(self.plan, side) for side in ("train", "val")}


def judge(
    out: str | Path,
    pictures: Images | None = None,
    *,
    bar: float = BAR,
    decisions: Decisions | None = None,
    facts: Facts | None = None,
    others: Iterable[str | Path] = (),
    say: Say = lambda line: None,
) -> Verdict:
    """Check a finished run: no leak, frozen as planned, exact resume, a fresh process, accuracy on hidden images.

    Nothing in the folder of the run is changed. Part of the work is done again, in a temporary folder: the run is
    stopped and resumed, and must come to the same bits. What cannot be checked, because a file is gone or broken,
    is a check that does not hold; the others are done all the same.

    The trap: the judge speaks once. If you try twenty plans and keep the one that it likes best, the hidden
    images have chosen, and are validation images like others.

    Args:
        out: The folder of a run of `ftlab.finetune.run` that has ended.
        pictures: Images that the run has not seen, with the same class names. If None: the `test` folder beside
            `train` and `val`, as `hold_back` makes it, or `hidden()` for the folder of `make_folder`.
        bar: The accuracy to reach, as the mean over the classes, from 0 to 1.
        decisions: What you decided, and why; each is compared with the images and the run, as `defend` does.
        facts: As for `defend`.
        others: As for `defend`.
        say: Is given a line before each step.

    Raises:
        FileNotFoundError: `out` is no folder of a run, or the run has not ended.
        ValueError: `pictures` has a class that the run does not know; there are no hidden images; a decision is
            none that can be made.
    """
    case = _Case.of(Path(out), pictures, bar, say)
    defended = defend(out, decisions, facts=facts, others=others).findings if decisions is not None else []
    with keep_random_state():
        findings = [finding for check, step in CHECKS.items() for finding in _attempt(check, step, case)]
    return Verdict(findings + defended, case.evaluation, case.pictures)


def _hidden_part(plan: Plan, classes: list[str]) -> Images:
    """Return the images that were held back for the judge, wherever they are."""
    kept = Path(plan.folder).expanduser() / "test"
    if kept.is_dir() and (kept.parent / "train").is_dir():
        return data.folder(kept)
    if set(CLASSES) <= set(classes):
        return hidden()
    raise ValueError(
        f"there are no hidden images of your classes ({', '.join(classes)}). Hold some back before you train, "
        f"folder = capstone.hold_back({plan.folder!r}, place).folder, or give those that you have: "
        f"judge(out, data.folder(...))"
    )


def _renumbered(pictures: Images, classes: list[str], plan: Plan) -> Images:
    """Return the images with the run's numbers of the classes, prepared as the run's are."""
    samples = [(file, classes.index(pictures.classes[target])) for file, target in pictures.samples]
    prepare = pretrained.preprocessing(plan.backbone, size=plan.size)
    return Images(Path(pictures.root), classes, samples, title=pictures.title, transform=prepare)


def _attempt(check: str, step: Callable[[_Case], Iterator[Finding]], case: _Case) -> list[Finding]:
    """Do one check; a file that is gone or broken is a finding, and ends nothing."""
    case.say(check)
    try:
        return list(step(case))
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        text = str(error).replace(f"{case.out}/", "").replace(str(case.out), case.out.name)
        return [Finding(check, False, f"could not be checked: {text[:300]}", _way_out(case, text))]


def _way_out(case: _Case, text: str) -> str:
    for name in (rundir.BEST, rundir.LAST):
        if name in text:
            return f"ask the doctor what is in it, `ftlab doctor {case.out.name}/{name}`; then run again"
    if "not ready for training" in text or not Path(case.plan.folder).expanduser().is_dir():
        return "the folder of images is not as it was: put it in order, and run again into another folder"
    return "the folder of the run is not as the run left it: run again into another folder"


def _leaks(case: _Case) -> Iterator[Finding]:
    """Compare all pictures with all others, across the sides and across the classes."""
    found = find_copies(**case.sides(), hidden=case.pictures)
    apart = {frozenset(parts): [] for parts in (("train", "val"), ("train", "hidden"), ("val", "hidden"))}
    for copy in found:
        apart.setdefault(frozenset((copy.first[0], copy.second[0])), []).append(copy)
    yield _clean(
        "no image on both sides of the split",
        apart[frozenset(("train", "val"))],
        "in train and in val",
        "the accuracy on val is too good: look at each pair and delete one of it, then run again",
    )
    yield _clean(
        "the hidden images are new to the run",
        apart[frozenset(("train", "hidden"))] + apart[frozenset(("val", "hidden"))],
        "hidden, and in the folder too",
        "the accuracy below is too good: take them out of the folder, and run again",
    )
    known = [copy for copy in found if "hidden" not in (copy.first[0], copy.second[0])]
    yield _clean(
        "no image in two classes",
        [copy for copy in known if copy.first[1] != copy.second[1]],
        "in two classes",
        "open it, decide which class is right, delete the other file, and run again",
    )


def _clean(check: str, copies: list[Copy], where: str, advice: str) -> Finding:
    count = f"{len(copies)} image is" if len(copies) == 1 else f"{len(copies)} images are"
    seen = f"{count} {where}" if copies else f"none is {where}"
    return Finding(check, not copies, seen + (f": {listed(copies)}" if copies else ""), advice if copies else "")


def _last(case: _Case) -> dict[str, Tensor]:
    content = load(case.out / rundir.LAST)
    if not isinstance(content.get("model"), dict):
        raise ValueError(f"{rundir.LAST} has no 'model': it was not saved by the run")
    return content["model"]


def _frozen(case: _Case) -> Iterator[Finding]:
    """Compare the parameters at the end with those at the start."""
    start, end = planned_model(case.plan, case.classes)[0], _last(case)
    odd = sorted(start.state_dict().keys() ^ end.keys())
    if odd:
        raise ValueError(f"{rundir.LAST} has other tensors than the model of the plan, such as {odd[0]!r}")
    moved = {name for name, tensor in start.state_dict().items() if not torch.equal(tensor, end[name])}
    trainable = {name for name, parameter in start.named_parameters() if parameter.requires_grad}
    leaks, stuck = sorted(moved - trainable), sorted(trainable - moved)
    advice = f"{stuck[0]} should learn and is as at the start: is its rate 0?" if stuck else ""
    if leaks:
        advice = f"{leaks[0]} is frozen in the plan and has moved: audit a step (lesson 05), and run again"
    yield Finding(
        FROZEN,
        not leaks and not stuck,
        f"{len(trainable & moved)} of {len(trainable)} trainable tensors moved, and {len(leaks)} frozen ones",
        advice,
    )


def _fresh(case: _Case) -> Iterator[Finding]:
    """Ask a process that knows nothing of this one."""
    files = [file for file, _ in case.pictures.samples[:: max(1, len(case.pictures) // 8)]]
    here = {said.file: next(iter(said.scores), "") for said in finetune.predict(case.out, files)}
    command = [sys.executable, "-m", "ftlab", "predict", str(case.out), *files, "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    there = {}
    for line in ran.stdout.splitlines():
        said = json.loads(line)
        there[said["file"]] = next(iter(said["scores"]), "")
    same = ran.returncode == 0 and here == there
    yield Finding(
        FRESH,
        same,
        f"{sum(here[file] == there.get(file) for file in here)} of {len(here)} answers are equal",
        "" if same else (ran.stderr.strip().splitlines() or ["compare the two by hand"])[-1],
    )


def _resume(case: _Case) -> Iterator[Finding]:
    """Do the run once more, with a stop after the first epoch."""
    wanted, images = _last(case), list(case.sides().values())
    if load(case.out / rundir.LAST)["extra"]["images"] != rundir.fingerprint(images):
        yield Finding(
            RESUME,
            False,
            f"the folder has other images now ({sum(map(len, images))}) than when the run was made",
            "what the run learned from is gone: run again on the folder as it is",
        )
        return
    found = _done_again(case)
    odd = [name for name in wanted if name not in found or not torch.equal(wanted[name], found[name])]
    yield Finding(
        RESUME,
        not odd,
        f"{len(odd)} of {len(wanted)} tensors differ",
        f"the first is {odd[0]}: was the run made on another machine or version, was a picture or the checkpoint "
        f"replaced since?"
        if odd
        else "",
    )


def _done_again(case: _Case) -> dict[str, Tensor]:
    """Return the last parameters of the same run, stopped after one epoch and resumed."""

    def stop(line: str) -> None:
        if line.startswith("epoch 1 "):
            raise KeyboardInterrupt

    choices = {name: value for name, value in case.plan.to_dict().items() if name not in ("folder", "why")}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = Path(folder) / "run"
        try:
            finetune.run(case.plan.folder, again, say=stop, **choices)
        except KeyboardInterrupt:
            finetune.run(case.plan.folder, again, resume=True, say=case.say)
        return load(again / rundir.LAST)["model"]


def _accuracy(case: _Case) -> Iterator[Finding]:
    """Measure the best model on images that nobody has trained on or chosen with."""
    measured = training.evaluate(load_best(case.out), training.loader(case.pictures), progress=False)
    case.evaluation = measured
    shares, mean = Verdict([], measured).by_class(), Verdict([], measured).mean_accuracy
    worst = min(shares, key=shares.get)
    missing = [name for name in case.classes if name not in shares]
    of = measured.confusion.sum(1)[case.classes.index(worst)].item()
    yield Finding(
        f"accuracy on hidden images, mean over the classes: {case.bar:.0%}",
        mean >= case.bar,
        f"{mean:.1%} on {len(case.pictures)} images; the weakest class is {worst}: {shares[worst]:.0%} of {of}"
        + (f"; no image of {', '.join(missing)} to measure with" if missing else ""),
        "" if mean >= case.bar else _to_improve(measured, worst),
    )


def _to_improve(measured: Evaluation, worst: str) -> str:
    """Say what the weakest class is taken for: that is where to look first."""
    row = measured.confusion[measured.classes.index(worst)].clone()
    row[measured.classes.index(worst)] = 0
    taken = measured.classes[int(row.argmax())]
    return (
        f"{worst} is taken for {taken} most often: look at these pictures (.mistakes()). Then more images of "
        f"{worst}, another size or strategy; and choose among them with val"
    )


FROZEN = "what is frozen held, what is trained moved"
FRESH = "the checkpoint says the same in a fresh process"
RESUME = "stopped and resumed, it comes to the same bits"
CHECKS: Mapping[str, Callable[[_Case], Iterator[Finding]]] = {
    "no leaks: each picture once": _leaks,
    FROZEN: _frozen,
    FRESH: _fresh,
    RESUME: _resume,
    "accuracy on hidden images": _accuracy,
}
