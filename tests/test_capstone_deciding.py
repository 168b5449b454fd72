"""Decisions: each reason defends a choice where it is true, is refused where it is not, and the run is asked."""

import shutil
from pathlib import Path

import pytest
import torch

from ftlab import capstone, finetune
from ftlab.capstone import Facts, facts, reasons
from ftlab.capstone.copies import Copy
from ftlab.capstone.facts import Share
from ftlab.capstone.reasons import QUESTIONS, Ground
from ftlab.finetune.plan import Plan

PAIR = Copy(("train", "cat", "cat/1.png"), ("train", "cat", "cat/1 (1).png"), exact=True)
APART = Copy(("train", "cat", "cat/1.png"), ("val", "cat", "cat/2.png"), exact=False)


def ground(plan=None, decisions=None, **changed) -> Ground:
    """What decisions are compared with: a small uneven folder, but for what is changed."""
    known = {
        "folder": "pets",
        "train": {"cat": 80, "dog": 20},
        "val": {"cat": 30, "dog": 10},
        "pixels": 100,
        "copies": [],
        "two_classes": [],
        "left_out": 0,
        "told_apart": {64: Share(0.6, 0.03), 160: Share(0.9, 0.03)},
        "images": "abc",
    }
    plan = Plan("pets", **({"size": 160} | (plan or {})))
    return Ground(Facts(**(known | changed)), plan, Path("run"), (), decisions or {})


EVEN = {"train": {"cat": 80, "dog": 70}}
ALIKE = {"told_apart": {64: Share(0.89, 0.03), 160: Share(0.9, 0.03)}}
POOR = {"told_apart": {64: Share(0.5, 0.03), 160: Share(0.6, 0.03)}}
HIDDEN = "mean over the classes on hidden images"

# decision, reason, choice, what is as it is; and what is said if it does not hold
CASES = [
    ("strategy", "few images", "head", {}, ""),
    ("strategy", "few images", "last third", {}, "speaks against you"),
    ("strategy", "few images", "head", EVEN, "that is not few"),
    ("strategy", "enough images", "last third", EVEN, ""),
    ("strategy", "enough images", "head", EVEN, "speaks against you"),
    ("strategy", "enough images", "everything", {}, "that is few"),
    ("strategy", "told apart already", "head", {}, ""),
    ("strategy", "told apart already", "everything", {}, "'head' is enough"),
    ("strategy", "told apart already", "head", POOR, "less than half of the way"),
    ("strategy", "told apart already", "head", {"plan": {"size": 96}}, "measure it"),
    ("strategy", "not told apart", "last third", POOR, ""),
    ("strategy", "not told apart", "head", POOR, "let the body learn"),
    ("strategy", "not told apart", "last third", {}, "more than half of the way"),
    ("strategy", "better on val", "head", {}, "others=[...]"),
    ("strategy", "better on hidden images", "head", {}, "choose with val"),
    ("strategy", "it is the default", "head", {}, "what did you measure"),
    ("size", "told apart better", 160, {}, ""),
    ("size", "told apart better", 64, {}, "at 160 pixels they are told apart better"),
    ("size", "told apart better", 160, ALIKE, "the smallest is cheaper"),
    ("size", "told apart better", 96, {}, "measure it"),
    ("size", "smaller, and as good", 64, ALIKE, ""),
    ("size", "smaller, and as good", 64, {}, "at 160 pixels they are told apart better"),
    ("size", "smaller, and as good", 160, ALIKE, "measure a larger one"),
    ("size", "the files have so many pixels", 64, {}, ""),
    ("size", "the files have so many pixels", 160, {}, "enlarging adds nothing new"),
    ("size", "the size of the weights", 224, {}, ""),
    ("size", "the size of the weights", 160, {}, "another size"),
    ("size", "better on val", 160, {}, "others=[...]"),
    ("size", "better on hidden images", 160, {}, "choose with val"),
    ("size", "it is the default", 160, {}, "what did you measure"),
    ("balance", "better on hidden images", True, {}, "choose with val"),
    ("balance", "it is the default", False, {}, "what did you measure"),
    ("balance", "uneven classes", True, {}, ""),
    ("balance", "uneven classes", False, {}, "speaks against you"),
    ("balance", "uneven classes", True, EVEN, "leave it off"),
    ("balance", "even classes", False, EVEN, ""),
    ("balance", "even classes", True, EVEN, "nothing to balance"),
    ("balance", "even classes", False, {}, "not even"),
    ("copies", "none are left", "removed", {}, ""),
    ("copies", "none are left", "kept", {}, "nothing to keep"),
    ("copies", "none are left", "removed", {"copies": [PAIR]}, "delete one of each pair"),
    ("copies", "always on one side", "kept", {"copies": [PAIR]}, ""),
    ("copies", "always on one side", "removed", {"copies": [PAIR]}, "a reason to keep"),
    ("copies", "always on one side", "kept", {"copies": [PAIR, APART]}, "both sides"),
    ("copies", "always on one side", "kept", {"copies": [PAIR], "two_classes": [PAIR]}, "in two classes"),
    ("copies", "more images to learn from", "kept", {"copies": [PAIR]}, "counts twice"),
    ("report", "it decided nothing", HIDDEN, {}, ""),
    ("report", "it decided nothing", "accuracy on hidden images", EVEN, ""),
    ("report", "it decided nothing", "accuracy on hidden images", {}, "report the mean"),
    ("report", "it decided nothing", "accuracy on val", {}, "it has decided something"),
    ("report", "it decided nothing", HIDDEN, {"decisions": {"size": (160, reasons.ON_HIDDEN)}}, "find new ones"),
    ("report", "each class matters", HIDDEN, {"decisions": {"size": ...}}, ""),
    ("report", "each class matters", "mean over the classes on val", {}, "have decided something"),
    ("report", "each class matters", "accuracy on hidden images", {}, "each must count the same"),
    ("report", "it is the highest", HIDDEN, {}, "luck"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "reason", "choice", "changed", "says"), CASES)
def test_a_reason_defends_a_choice_only_where_it_is_true(name, reason, choice, changed, says):
    answer = QUESTIONS[name].reasons[reason](ground(**changed), choice)
    assert answer.holds is (says == "")
    assert says in answer.advice
    assert answer.seen
    assert answer.holds or answer.advice


def test_every_reason_is_tried():
    assert {(name, reason) for name, question in QUESTIONS.items() for reason in question.reasons} == {
        case[:2] for case in CASES
    }


@pytest.mark.parametrize(
    ("decisions", "error", "says"),
    [
        ({"stratgy": ("head", "few images")}, ValueError, "nearest.*'strategy'"),
        ({"strategy": ("heads", "few images")}, ValueError, "'heads' cannot be chosen.*'head'"),
        ({"strategy": ("head", "few")}, ValueError, "no reason 'few'.*'few images'"),
        ({"strategy": "head"}, TypeError, r"give a choice and its reason, such as \('head', 'few images'\)"),
        ({"size": ("large", "told apart better")}, ValueError, "give pixels"),
        ({"size": (0, "told apart better")}, ValueError, "give pixels"),
        ({"balance": (1, ...)}, ValueError, "no reason"),
    ],
)
def test_what_is_no_decision_is_refused_with_the_next_step(decisions, error, says):
    with pytest.raises(error, match=says):
        capstone.choices(decisions)


def test_the_options_are_listed():
    text = repr(capstone.options())
    for name, question in QUESTIONS.items():
        assert name in text
        assert all(repr(reason) in text for reason in question.reasons)


# With real runs -------------------------------------------------------------------------------------------------

DECIDED = {
    "copies": ("removed", "none are left"),
    "strategy": ("head", "few images"),
    "size": (32, "told apart better"),
    "balance": (False, "even classes"),
    "report": ("accuracy on hidden images", "it decided nothing"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A small clean folder, `mine`, and runs of it that differ in one choice or two."""
    place = tmp_path_factory.mktemp("deciding")
    whole = capstone.make_folder(place / "whole")
    for name in ("animal", "food"):
        (place / "mine" / name).mkdir(parents=True)
        for file in sorted((whole / name).glob("IMG_00[1-3]1.png")) + sorted(
            (whole / name).glob("IMG_00[1-3]2.png")
        ):
            shutil.copy(file, place / "mine" / name)
    runs = {"small": (32, False), "larger": (48, False), "other": (48, True)}
    for name, (size, balance) in runs.items():
        finetune.run(
            place / "mine",
            place / name,
            size=size,
            balance=balance,
            epochs=1,
            strategy="head",
            say=lambda line: None,
        )
    return place


@pytest.fixture(scope="module")
def measured(place):
    return capstone.measure(place / "mine", sizes=[32])


def test_facts_are_counted_and_the_folder_is_as_it_was(place, measured):
    assert measured.train == {"animal": 4, "food": 4}
    assert measured.val == {"animal": 2, "food": 2}
    assert (measured.pixels, measured.copies, measured.two_classes, measured.left_out) == (64, [], [], 0)
    assert measured.chance == 0.5
    assert "told apart at 32 pixels" in repr(measured)


def test_measuring_touches_no_random_state(place):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    capstone.measure(place / "mine", sizes=[32])
    assert torch.equal(torch.get_rng_state(), before)


def test_told_apart_is_measured_without_the_image_itself():
    targets = torch.tensor([0, 0, 1, 1])
    assert facts.told_apart(torch.eye(2)[targets] + 0.01, targets).value == 1
    assert facts.told_apart(torch.eye(4), targets).value <= 0.5  # each is like none of its class: knows nothing
    uneven = torch.tensor([0] * 9 + [1])
    assert facts.told_apart(torch.ones(10, 2), uneven).value <= 0.5  # the mean over the classes


def test_what_the_run_did_is_asked(place, measured):
    verdict = capstone.defend(place / "small", DECIDED | {"size": (48, "told apart better")}, facts=measured)
    found = {finding.check.split(":")[0]: finding for finding in verdict.findings}
    assert (found["size"].passed, found["size"].seen) == (False, "the run did 32")
    assert all(found[name].passed for name in ("copies", "strategy", "balance", "report"))


def test_what_is_open_is_neither_right_nor_wrong(place, measured):
    verdict = capstone.defend(place / "small", {"strategy": ...}, facts=measured)
    assert [finding.passed for finding in verdict.findings] == [None] * len(QUESTIONS)
    assert "5 not decided yet" in repr(verdict)
    assert not verdict.passed
    assert "'few images'" in verdict.findings[1].advice


def test_a_run_is_only_evidence_if_it_differs_in_one_thing(place, measured, monkeypatch):
    decisions = {"size": (32, "better on val")}

    def said(*others):
        verdict = capstone.defend(
            place / "small", decisions, facts=measured, others=[place / name for name in others]
        )
        return next(finding for finding in verdict.findings if finding.check.startswith("size"))

    assert "others=[...]" in said().advice
    assert "they differ in size and balance" in said("other").advice
    best = {"small": Share(0.9, 0.05), "larger": Share(0.5, 0.05)}
    monkeypatch.setattr(reasons, "_best", lambda run, count: (best[run.name], "the same"))
    assert said("larger").passed
    best["larger"] = Share(0.88, 0.05)
    assert "luck" in said("larger").advice
    monkeypatch.setattr(reasons, "_best", lambda run, count: (best[run.name], run.name))
    assert "validated on other images" in said("larger").seen


def test_the_best_accuracy_of_a_run_is_read(place):
    share, images = reasons._best(place / "small", 4)
    assert 0 <= share.value <= 1
    assert images == reasons._best(place / "larger", 4)[1]


def test_facts_of_another_folder_are_refused(place, measured, tmp_path):
    changed = Path(shutil.copytree(place / "mine", tmp_path / "mine"))
    next((changed / "food").iterdir()).unlink()
    with pytest.raises(ValueError, match="measure again"):
        capstone.defend(place / "small", {}, facts=capstone.measure(changed, sizes=[]))


def test_the_judge_adds_the_decisions(place, measured, monkeypatch):
    monkeypatch.setattr(capstone.judging, "CHECKS", {})
    only_two = capstone.hidden()
    few = [sample for sample in only_two.samples if only_two.classes[sample[1]] in ("animal", "food")]
    pictures = capstone.judging.Images(
        Path(only_two.root), ["animal", "food"], [(file, int("/food/" in file)) for file, _ in few], title="two"
    )
    verdict = capstone.judge(place / "small", pictures, decisions=DECIDED, facts=measured)
    assert [finding.check.split(":")[0] for finding in verdict.findings] == list(QUESTIONS)
    with pytest.raises(ValueError, match="no hidden images of your classes"):
        capstone.judge(place / "small")
