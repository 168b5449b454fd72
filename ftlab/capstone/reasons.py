"""Reasons: what can be said for a choice, and what of the images and the runs it is compared with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import Any

from ftlab import pretrained
from ftlab.capstone.facts import Facts, Share
from ftlab.checkpoints import load
from ftlab.finetune import rundir
from ftlab.finetune.plan import FEW, STRATEGIES, UNEVEN, Plan

Decisions = Mapping[str, "tuple[Any, str] | EllipsisType"]
PLANNED = ("strategy", "size", "balance")  # decisions that are choices of a plan as well
ENOUGH = 0.5  # of the way from guessing to never being wrong
ON_HIDDEN = "better on hidden images"
DEFAULT = "it is the default"


@dataclass(frozen=True)
class Answer:
    """What a reason is worth: whether it defends the choice, what was measured, and what to do if it does not."""

    holds: bool
    seen: str
    advice: str = ""


@dataclass(frozen=True)
class Ground:
    """What a decision is compared with.

    Attributes:
        facts: Of the images.
        plan: Of the run.
        out: The folder of the run.
        others: The folders of other runs.
        decisions: All of them.
    """

    facts: Facts
    plan: Plan
    out: Path
    others: tuple[Path, ...]
    decisions: Decisions

    @property
    def size(self) -> int:
        """Height and width of the images in the run."""
        return size_of(self.plan)

    @property
    def unevenness(self) -> float:
        """The largest class, in smallest classes."""
        return self.facts.train[self.facts.largest] / self.facts.train[self.facts.smallest]

    def sizes_of_classes(self) -> str:
        """Return the ends in a few words."""
        facts = self.facts
        ends = [f"{facts.train[name]} of {name}" for name in (facts.largest, facts.smallest)]
        return f"{' and '.join(ends)} to train on, {self.unevenness:.1f} to 1"


Reason = Callable[[Ground, Any], Answer]


def _few(ground: Ground, choice: str) -> Answer:
    seen = f"{ground.facts.train[ground.facts.smallest]} training images of {ground.facts.smallest}"
    if ground.facts.train[ground.facts.smallest] >= FEW:
        return Answer(False, seen, f"that is not few: fewer than {FEW} would be. Look for another reason")
    if choice != "head":
        return Answer(False, seen, "true, and it speaks against you: few images are learned by heart; 'head'")
    return Answer(True, seen)


def _many(ground: Ground, choice: str) -> Answer:
    seen = f"{ground.facts.train[ground.facts.smallest]} training images of {ground.facts.smallest}"
    if ground.facts.train[ground.facts.smallest] < FEW:
        return Answer(False, seen, f"that is few, fewer than {FEW}: is there another reason, or another choice?")
    if choice == "head":
        return Answer(False, seen, "true, and it speaks against you: so many images can teach the body as well")
    return Answer(True, seen)


def _told_apart(ground: Ground, choice: str) -> Answer:
    return _enough(ground, choice == "head", "the frozen features do most of it already: 'head' is enough", True)


def _not_told_apart(ground: Ground, choice: str) -> Answer:
    return _enough(
        ground, choice != "head", "then a new head alone will not do it: let the body learn too", False
    )


def _enough(ground: Ground, speaks_for: bool, otherwise: str, wanted: bool) -> Answer:
    share, chance = ground.facts.told_apart.get(ground.size), ground.facts.chance
    if share is None:
        return _not_measured(ground)
    seen = f"untrained, at {ground.size} pixels: {share}; guessing {chance:.0%}"
    way = (share.value - chance) / (1 - chance)
    if (way >= ENOUGH) is not wanted:
        word = "less" if wanted else "more"
        return Answer(False, seen, f"that is {word} than half of the way from guessing to 100%: it is not so")
    return Answer(speaks_for, seen, "" if speaks_for else f"true, and it speaks against you: {otherwise}")


def _not_measured(ground: Ground) -> Answer:
    sizes = ", ".join(map(str, ground.facts.told_apart))
    return Answer(
        False,
        f"measured at {sizes or 'no size'}, not at {ground.size} pixels",
        f"measure it: capstone.measure(folder, sizes=(..., {ground.size}))",
    )


def _larger_is_better(ground: Ground, choice: int) -> Answer:
    return _against_others(ground, choice, needs_better=True)


def _smaller_is_as_good(ground: Ground, choice: int) -> Answer:
    larger = {size for size in ground.facts.told_apart if size > choice}
    if choice in ground.facts.told_apart and not larger:
        return Answer(
            False, f"{choice} is the largest that was measured", "measure a larger one beside it: sizes=(64, 160)"
        )
    return _against_others(ground, choice, needs_better=False)


def _against_others(ground: Ground, choice: int, *, needs_better: bool) -> Answer:
    measured = ground.facts.told_apart
    if choice not in measured:
        return _not_measured(ground)
    seen = "; ".join(f"{size} pixels: {share}" for size, share in sorted(measured.items()))
    better = [size for size, share in measured.items() if share.is_above(measured[choice])]
    if better:
        return Answer(False, seen, f"at {better[0]} pixels they are told apart better, by more than luck")
    if needs_better and not any(measured[choice].is_above(share) for share in measured.values()):
        return Answer(
            False, seen, "no measured size is clearly worse, by more than luck: the smallest is cheaper"
        )
    return Answer(True, seen)


def _as_the_files(ground: Ground, choice: int) -> Answer:
    seen = f"the files have {ground.facts.pixels} pixels"
    if ground.facts.pixels < choice:
        return Answer(
            False, seen, f"{choice} is more than they have: enlarging adds nothing new. Is it for scale?"
        )
    return Answer(True, seen)


def _as_the_weights(ground: Ground, choice: int) -> Answer:
    theirs = pretrained.preprocessing(ground.plan.backbone).crop_size[0]
    seen = f"the weights were trained at {theirs} pixels"
    return Answer(choice == theirs, seen, "" if choice == theirs else f"{choice} is another size")


def _uneven(ground: Ground, choice: bool) -> Answer:
    if ground.unevenness <= UNEVEN:
        return Answer(False, ground.sizes_of_classes(), f"up to {UNEVEN} to 1 is even enough: leave it off")
    advice = "true, and it speaks against you: without balance, being wrong with the smallest costs little"
    return Answer(choice, ground.sizes_of_classes(), "" if choice else advice)


def _even(ground: Ground, choice: bool) -> Answer:
    if ground.unevenness > UNEVEN:
        return Answer(False, ground.sizes_of_classes(), f"more than {UNEVEN} to 1 is not even: balance=True")
    return Answer(
        not choice, ground.sizes_of_classes(), "true, and so there is nothing to balance" if choice else ""
    )


def _none_left(ground: Ground, choice: str) -> Answer:
    left = ground.facts.copies + ground.facts.two_classes
    seen = f"{len(left)} are left" + (f": {left[0]}" if left else "")
    if left:
        return Answer(False, seen, "delete one of each pair, and run again")
    advice = "there is nothing to keep: say 'removed'"
    return Answer(choice == "removed", seen, "" if choice == "removed" else advice)


def _together(ground: Ground, choice: str) -> Answer:
    apart = [copy for copy in ground.facts.copies if copy.first[0] != copy.second[0]] + ground.facts.two_classes
    if apart:
        return Answer(False, f"not all: {apart[0]}", "this pair is on both sides, or in two classes: delete one")
    if choice != "kept" or not ground.facts.copies:
        return Answer(
            False, f"{len(ground.facts.copies)} are left", "this is a reason to keep copies, if any are there"
        )
    return Answer(True, f"{len(ground.facts.copies)} pairs, each on one side and in one class")


def _more_images(ground: Ground, choice: str) -> Answer:
    return Answer(
        False,
        f"{len(ground.facts.copies)} copies",
        "a copy has nothing new in it: the same picture only counts twice",
    )


def _decided_nothing(ground: Ground, choice: str) -> Answer:
    if "val" in choice:
        return Answer(
            False, "val chose the epoch of best.pt", "it has decided something: report on hidden images"
        )
    asked = [name for name, made in ground.decisions.items() if made is not ... and made[1] == ON_HIDDEN]
    if asked:
        return Answer(
            False, f"they chose {asked[0]}: you say so", "they are validation images now: find new ones"
        )
    if "mean" not in choice and ground.unevenness > UNEVEN:
        return Answer(
            False, ground.sizes_of_classes(), "the right images; but one class hides another: report the mean"
        )
    return Answer(True, "nothing was chosen with the hidden images, as you say")


def _each_matters(ground: Ground, choice: str) -> Answer:
    if "mean" not in choice:
        return Answer(
            False, ground.sizes_of_classes(), "then each must count the same: the mean over the classes"
        )
    if "val" in choice:
        return Answer(
            False, "val chose the epoch of best.pt", "the right number, on images that have decided something"
        )
    return Answer(True, ground.sizes_of_classes())


def _highest(ground: Ground, choice: str) -> Answer:
    return Answer(False, "no measurement", "the highest of several numbers is the one that luck has helped most")


def _default(ground: Ground, choice: Any) -> Answer:
    return Answer(
        False, "no measurement", "whoever wrote the default has not seen your images: what did you measure?"
    )


def _on_hidden(ground: Ground, choice: Any) -> Answer:
    return Answer(
        False, "-", "then the hidden images have chosen, and say no longer how it will be: choose with val"
    )


def _better_on_val(name: str) -> Reason:
    """Return the reason that another run, which differs in this choice alone, did worse."""

    def reason(ground: Ground, choice: Any) -> Answer:
        runs = [
            run for run in ground.others if getattr(rundir.read_plan(run)[0], name) != getattr(ground.plan, name)
        ]
        if not runs:
            return Answer(False, f"no other run with another {name}", "make one, and give it: others=[...]")
        answers = [_compared(ground, run, name) for run in runs]
        return next((answer for answer in answers if not answer.holds), answers[0])

    return reason


def _compared(ground: Ground, run: Path, name: str) -> Answer:
    plan = rundir.read_plan(run)[0]
    more = [
        other
        for other in (*PLANNED, "seed")
        if other != name and getattr(plan, other) != getattr(ground.plan, other)
    ]
    count = sum(ground.facts.val.values())
    (mine, images), (theirs, others) = _best(ground.out, count), _best(run, count)
    seen = f"here {mine}, in {run.name} {theirs}"
    if images != others:
        return Answer(False, f"{run.name} was validated on other images", "make both on the folder as it is now")
    if more:
        return Answer(
            False, seen, f"they differ in {' and '.join([name, *more])}: which of them was it? Change one"
        )
    if not mine.is_above(theirs):
        return Answer(
            False, seen, "not better by more than luck (one standard error): lesson 08 compares over seeds"
        )
    return Answer(True, seen)


def _best(out: Path, count: int) -> tuple[Share, str]:
    """Return the best validation accuracy of a run on `count` images, and which images they are."""
    extra = load(out / rundir.LAST)["extra"]
    best = max(row["val accuracy"] for row in extra["rows"])
    return Share(best, (best * (1 - best) / count) ** 0.5), extra["images"]


def size_of(plan: Plan) -> int:
    """Return height and width of the images of a run."""
    return plan.size or pretrained.preprocessing(plan.backbone).crop_size[0]


@dataclass(frozen=True)
class Question:
    """One thing to decide.

    Attributes:
        asks: The question.
        choices: What can be chosen; empty where it is a number.
        reasons: What can be said for a choice, and what that is compared with.
    """

    asks: str
    choices: tuple
    reasons: dict[str, Reason]


QUESTIONS = {
    "copies": Question(
        "What happens to a picture that is there twice?",
        ("removed", "kept"),
        {"none are left": _none_left, "always on one side": _together, "more images to learn from": _more_images},
    ),
    "strategy": Question(
        "What is trained?",
        STRATEGIES,
        {
            "few images": _few,
            "enough images": _many,
            "told apart already": _told_apart,
            "not told apart": _not_told_apart,
            "better on val": _better_on_val("strategy"),
            ON_HIDDEN: _on_hidden,
            DEFAULT: _default,
        },
    ),
    "size": Question(
        "How large are the images?",
        (),
        {
            "told apart better": _larger_is_better,
            "smaller, and as good": _smaller_is_as_good,
            "the files have so many pixels": _as_the_files,
            "the size of the weights": _as_the_weights,
            "better on val": _better_on_val("size"),
            ON_HIDDEN: _on_hidden,
            DEFAULT: _default,
        },
    ),
    "balance": Question(
        "Does each class count the same in training?",
        (True, False),
        {"uneven classes": _uneven, "even classes": _even, ON_HIDDEN: _on_hidden, DEFAULT: _default},
    ),
    "report": Question(
        "Which number do you report?",
        (
            "accuracy on val",
            "mean over the classes on val",
            "accuracy on hidden images",
            "mean over the classes on hidden images",
        ),
        {
            "it decided nothing": _decided_nothing,
            "each class matters": _each_matters,
            "it is the highest": _highest,
        },
    ),
}
