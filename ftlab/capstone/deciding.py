"""Decisions with reasons, compared with what was measured of the images and with what the run did."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ftlab.capstone.facts import Facts, measure
from ftlab.capstone.reasons import PLANNED, QUESTIONS, Decisions, Ground, Question, size_of
from ftlab.capstone.verdict import Finding, Verdict
from ftlab.checkpoints import load
from ftlab.finetune import rundir
from ftlab.nearest import nearest
from ftlab.table import Table


def options() -> Table:
    """Return what is to be decided, and which choices and reasons there are."""
    rows = [
        [name, q.asks, ", ".join(map(repr, q.choices)) or "a number of pixels", ", ".join(map(repr, q.reasons))]
        for name, q in QUESTIONS.items()
    ]
    return Table(["decision", "question", "choices", "reasons"], rows)


def choices(decisions: Decisions) -> dict[str, Any]:
    """Return what was decided about the run, as `ftlab.finetune.run` takes it; what is undecided is left out.

    Example:
        >>> choices({"strategy": ("head", "few images"), "size": ..., "report": ...})
        {'strategy': 'head'}
    """
    check_decisions(decisions)
    return {name: made[0] for name, made in decisions.items() if name in PLANNED and made is not ...}


def check_decisions(decisions: Decisions) -> None:
    """Refuse what is no decision.

    Raises:
        ValueError: There is no such decision, choice or reason; the message has the nearest.
        TypeError: It is not a choice and a reason.
    """
    for name, made in decisions.items():
        if name not in QUESTIONS:
            raise ValueError(f"there is no decision {name!r}; {nearest(name, QUESTIONS)}")
        question = QUESTIONS[name]
        if made is ...:
            continue
        if not (isinstance(made, tuple) and len(made) == 2):
            example = (*question.choices, 160)[0], next(iter(question.reasons))
            raise TypeError(f"{name}: give a choice and its reason, such as {example!r}, not {made!r}")
        choice, reason = made
        legal = choice in question.choices if question.choices else isinstance(choice, int) and choice > 0
        if not legal:
            known = nearest(str(choice), list(map(str, question.choices))) if question.choices else "give pixels"
            raise ValueError(f"{name}: {choice!r} cannot be chosen; {known}")
        if reason not in question.reasons:
            raise ValueError(f"{name}: there is no reason {reason!r}; {nearest(str(reason), question.reasons)}")


def defend(
    out: str | Path,
    decisions: Decisions,
    *,
    facts: Facts | None = None,
    others: Iterable[str | Path] = (),
) -> Verdict:
    """Compare each decision with the run and its reason with what was measured; nothing is trained or changed.

    A reason defends a choice if it is true of these images, and speaks for the choice. What is `...` is not
    decided yet.

    Args:
        out: The folder of a run.
        decisions: By name, a choice and a reason; `options()` lists them.
        facts: What `measure` found for the folder of the run; measured here if None.
        others: Folders of other runs, for the reason "better on val".

    Raises:
        FileNotFoundError: `out`, or one of `others`, is no folder of a run.
        ValueError: There is no such decision, choice or reason; the facts are of other images than the run.
        TypeError: A decision is not a choice and a reason.
    """
    check_decisions(decisions)
    out = Path(out)
    plan, _ = rundir.read_plan(out)
    if facts is None:
        kept = {name: getattr(plan, name) for name in ("backbone", "seed", "val_fraction", "skip_bad")}
        facts = measure(plan.folder, sizes=[size_of(plan)], **kept)
    _check_facts(out, facts)
    ground = Ground(facts, plan, out, tuple(map(Path, others)), decisions)
    return Verdict(_finding(ground, name, question) for name, question in QUESTIONS.items())


def _check_facts(out: Path, facts: Facts) -> None:
    try:
        images = load(out / rundir.LAST)["extra"]["images"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # the judge says what is wrong with the file
    if images != facts.images:
        raise ValueError(
            f"the facts are of other images than the run in {out}: has the folder changed? "
            f"Run again, and measure again: capstone.measure(folder)"
        )


def _finding(ground: Ground, name: str, question: Question) -> Finding:
    made = ground.decisions.get(name, ...)
    if made is ...:
        reasons = ", ".join(map(repr, question.reasons))
        return Finding(f"{name}: {question.asks}", None, "not decided yet", f"choose, with a reason: {reasons}")
    choice, reason = made
    said = f"{name}: {choice!r}, because {reason!r}"
    did = {"size": ground.size}.get(name, getattr(ground.plan, name, choice))
    if did != choice:
        return Finding(said, False, f"the run did {did!r}", "say what was done, or run again as you decided")
    answer = question.reasons[reason](ground, choice)
    return Finding(said, answer.holds, answer.seen, answer.advice)
