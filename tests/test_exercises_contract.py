"""What holds for every exercise, by its being declared: a new one needs no new test."""

import functools
import inspect
import linecache
import os
import random
import warnings
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pytest
import torch
from nbclient.exceptions import CellExecutionError
from torch import nn

import ftlab.exercises
from ftlab.exercises.core import Outcome, all_exercises
from ftlab.runner import no_trace
from tests.warned import only_known_warnings

EXERCISES = all_exercises()
SEEDS = range(3)
NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def by_name(exercise):
    return f"{exercise.topic}.{exercise.name}"


every_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=by_name)
every_mistake = pytest.mark.parametrize(
    ("exercise", "mistake"),
    [(exercise, mistake) for exercise in EXERCISES for mistake in exercise.mistakes],
    ids=lambda value: value.function.__name__.strip("_"),
)
every_right_answer = pytest.mark.parametrize(
    ("exercise", "answer"),
    [(exercise, answer) for exercise in EXERCISES for answer in (exercise.function, *exercise.also_right)],
    ids=lambda value: getattr(value, "name", getattr(value, "__name__", "")).strip("_"),
)


@pytest.fixture(autouse=True)
def warned():
    """What an answer warns of is known, or fails."""
    with only_known_warnings():
        yield


@functools.cache
def judged(exercise, answer, seed=0):
    return exercise.judge(answer, seed=seed)


def defined_by(source, name):
    """Define a function the way a lesson does: with no more names around it than torch and nn."""
    names = {"torch": torch, "nn": nn}
    exec(compile(source, "<cell>", "exec"), names)
    return names[name]


def test_exercises_are_found():
    assert len(EXERCISES) >= 8


def test_names_are_unique():
    names = [exercise.name for exercise in EXERCISES]
    assert len(set(names)) == len(names)


@every_exercise
def test_it_is_found_under_its_topic(exercise):
    topic = __import__(f"{ftlab.exercises.__name__}.{exercise.topic}", fromlist=["*"])
    assert getattr(topic, exercise.name) is exercise


@every_exercise
def test_it_has_a_task_hints_and_says_what_it_checks(exercise):
    assert exercise.task.splitlines()[0].endswith((".", "?"))
    assert len(exercise.hints) >= 2
    assert len(set(exercise.hints)) == len(exercise.hints)
    assert exercise.checked
    assert exercise.remember


@every_exercise
def test_it_has_two_right_styles_and_three_mistakes(exercise):
    assert len(exercise.also_right) >= 1
    assert len({mistake.function for mistake in exercise.mistakes}) >= 3


@every_right_answer
def test_right_answers_pass_on_any_seed(exercise, answer):
    for seed in SEEDS:
        feedback = judged(exercise, answer, seed)
        assert feedback.passed, feedback


@every_exercise
def test_the_shown_solution_passes_as_the_cell_that_it_is(exercise):
    assert exercise.judge(defined_by(exercise.solution(), exercise.name)).passed


@every_exercise
def test_the_starter_is_not_tried(exercise):
    feedback = exercise.judge(defined_by(exercise.starter, exercise.name))
    assert feedback.outcome is Outcome.NOT_TRIED, feedback
    assert feedback.ask


@every_exercise
def test_the_solution_is_not_in_the_starter(exercise):
    assert exercise.starter != exercise.solution()
    assert exercise.starter.startswith(exercise.solution().split('"""')[0])


@pytest.mark.parametrize("exercise", [exercise for exercise in EXERCISES if exercise.broken], ids=by_name)
def test_what_is_to_be_repaired_is_broken(exercise):
    feedback = exercise.judge(
        exercise.broken
    )  # without its docstring it is not the starter, but somebody's answer
    assert feedback.outcome is Outcome.WRONG, feedback
    assert feedback.ask


@pytest.mark.parametrize("exercise", [exercise for exercise in EXERCISES if exercise.broken], ids=by_name)
def test_a_starter_is_not_tried_also_with_its_imports_in_the_same_cell(exercise, monkeypatch):
    source = f"import torch\nfrom torch import nn\n\n{exercise.starter}"
    lines = source.splitlines(keepends=True)
    monkeypatch.setitem(linecache.cache, "<a cell>", (len(source), None, lines, "<a cell>"))  # as IPython does
    names = {}
    exec(compile(source, "<a cell>", "exec"), names)
    assert exercise.judge(names[exercise.name]).outcome is Outcome.NOT_TRIED


@every_mistake
def test_a_mistake_is_wrong_and_named_on_any_seed(exercise, mistake):
    for seed in SEEDS:
        feedback = judged(exercise, mistake.function, seed)
        assert feedback.outcome is Outcome.WRONG, feedback
        assert mistake.says in feedback.message, feedback
        assert feedback.ask
        assert "could not go on" not in feedback.message, feedback


@every_exercise
def test_a_mistake_is_not_told_the_solution(exercise):
    lines = [line.strip() for line in exercise.solution().split('"""')[2].splitlines() if len(line.strip()) > 12]
    assert lines
    for mistake in exercise.mistakes:
        feedback = repr(judged(exercise, mistake.function))
        told = [line for line in lines if line in feedback]
        assert not [line for line in told if line not in inspect.getsource(mistake.function)]


def process_state():
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002
        "random": random.getstate(),
        "settings": (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()),
        "filters": list(warnings.filters),
        "folder": Path.cwd(),
        "environment": dict(os.environ),
    }


@every_exercise
def test_judging_leaves_no_trace(exercise):
    before = process_state()
    mistakes = [mistake.function for mistake in exercise.mistakes]
    for answer in (exercise.function, *exercise.also_right, *mistakes):
        exercise.judge(answer)
        assert process_state() == before, answer


@every_exercise
def test_the_order_of_judging_does_not_matter(exercise):
    answers = [exercise.function, *(mistake.function for mistake in exercise.mistakes)]
    there = [judged(exercise, answer) for answer in answers]
    back = [exercise.judge(answer) for answer in reversed(answers)]
    assert there == back[::-1]


# --- the lessons


def lessons():
    return {path: nbformat.read(path, as_version=4) for path in sorted(NOTEBOOKS.glob("*.ipynb"))}


def cells_with(notebook, text):
    return [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code" and text in cell.source]


def call_of(exercise):
    return f"{exercise.topic}.{exercise.name}.check({exercise.name})"


def places_of(exercise, notebooks):
    """Return where the starter of an exercise stands, with the call of its check in the next code cell."""
    places = []
    for path, notebook in notebooks.items():
        for index in cells_with(notebook, exercise.starter):
            following = [cell for cell in notebook.cells[index + 1 :] if cell.cell_type == "code"][:1]
            assert following, f"{path.name}: no cell after the starter of {exercise.name}"
            assert following[0].source.strip() == call_of(exercise)
            places.append(path)
    return places


def solve(notebook, exercises):
    """Put the solutions in the place of the starters; each must find its target."""
    for exercise in exercises:
        (index,) = cells_with(notebook, exercise.starter)
        notebook.cells[index].source = notebook.cells[index].source.replace(exercise.starter, exercise.solution())
    return notebook


def run(notebook, folder):
    where = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(
        notebook, timeout=900, startup_timeout=300, iopub_timeout=300, resources=where
    ).execute()


def verdict(notebook, exercise):
    """Return the first line of what the check of `exercise` showed."""
    (index,) = cells_with(notebook, call_of(exercise))
    (output,) = [o for o in notebook.cells[index].outputs if o.output_type == "execute_result"]
    return output.data["text/plain"].splitlines()[0]


def of_topic(topic):
    return [exercise for exercise in EXERCISES if exercise.topic == topic]


def lesson_of(topic):
    (path,) = NOTEBOOKS.glob(f"[0-9][0-9]_{topic}.ipynb")
    return path


every_topic = pytest.mark.parametrize("topic", sorted({exercise.topic for exercise in EXERCISES}))


@every_exercise
def test_it_stands_in_the_lesson_of_its_topic_only(exercise):
    path = lesson_of(exercise.topic)
    assert places_of(exercise, lessons()) == [path]


@every_topic
def test_the_solved_lesson_passes_every_check(topic, monkeypatch):
    monkeypatch.setenv("FTLAB_CI", "1")
    path = lesson_of(topic)
    notebook = solve(nbformat.read(path, as_version=4), of_topic(topic))
    run(notebook, path.parent)
    for exercise in of_topic(topic):
        assert verdict(notebook, exercise) == f"✔ {exercise.name}: passed"


def made_up_lesson(exercises):
    topics = sorted({exercise.topic for exercise in exercises})
    cells = [f"import torch\nfrom torch import nn\nfrom ftlab.exercises import {', '.join(topics)}"]
    for exercise in exercises:
        cells += [exercise.starter, call_of(exercise)]
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])


def test_a_fresh_lesson_runs_and_scolds_nobody(tmp_path, monkeypatch):
    monkeypatch.setenv("FTLAB_CI", "1")
    notebook = made_up_lesson(EXERCISES)
    run(notebook, tmp_path)
    assert {verdict(notebook, e) for e in EXERCISES} == {f"○ {e.name}: not tried yet" for e in EXERCISES}


def test_a_solved_lesson_passes_and_a_wrong_answer_in_it_raises(tmp_path, monkeypatch):
    monkeypatch.setenv("FTLAB_CI", "1")
    notebook = solve(made_up_lesson(EXERCISES), EXERCISES)
    first = EXERCISES[0]
    wrong = f"def wrong({', '.join(first._parameters)}):\n    return 1\n\n{first.topic}.{first.name}.check(wrong)"
    notebook.cells.append(nbformat.v4.new_code_cell(wrong))
    with pytest.raises(CellExecutionError, match="CheckFailed"):
        run(notebook, tmp_path)
    assert {verdict(notebook, e) for e in EXERCISES} == {f"✔ {e.name}: passed" for e in EXERCISES}


def test_a_lesson_without_an_exercise_or_with_an_old_starter_is_noticed():
    notebook = made_up_lesson(EXERCISES)
    last = EXERCISES[-1]
    path = Path("05_made_up.ipynb")
    assert places_of(last, {path: notebook}) == [path]
    assert places_of(last, {path: notebook, Path("06_again.ipynb"): notebook}) != [path]
    (index,) = cells_with(notebook, last.starter)
    notebook.cells[index].source = last.starter.replace('"""', '"""Once upon a time: ', 1)
    assert places_of(last, {path: notebook}) == []
    with pytest.raises(ValueError, match="not enough values"):
        solve(notebook, [last])


def test_a_starter_without_the_call_of_its_check_is_noticed():
    notebook = made_up_lesson(EXERCISES[:1])
    notebook.cells[-1].source = "1 + 1"
    with pytest.raises(AssertionError):
        places_of(EXERCISES[0], {Path("05_made_up.ipynb"): notebook})


def test_the_trace_that_is_looked_for_would_be_seen():
    before = process_state()
    with no_trace(seed=1):
        assert process_state() != before
    assert process_state() == before
