import pytest

from ftlab.exercises.core import Wrong, exercise
from ftlab.exercises.feedback import Outcome
from ftlab.widgets.exercise import ExercisePanel


def check_double(answer):
    """Numbers from 0 to 3 are doubled."""
    for number in range(4):
        if (given := answer(number)) != 2 * number:
            raise Wrong(f"For {number} you gave <{given}>.", ask="What is `2 * number`?")


@exercise(check=check_double, hints=["Look at `*`.", "Return it."], remember="Doubling is adding to itself.")
def double(number: int) -> int:
    """Double `number`."""
    return 2 * number


@pytest.fixture(autouse=True)
def as_for_a_person(monkeypatch):
    monkeypatch.delenv("FTLAB_CI", raising=False)


@pytest.fixture
def cell():
    """The learner's cell: what stands in it now."""
    return {}


@pytest.fixture
def panel(cell):
    return ExercisePanel(double, lambda: cell["double"] if cell else undefined)  # noqa: F821


def starter(number):
    raise NotImplementedError


def test_before_the_first_check(panel):
    assert repr(panel) == "○ double: not checked yet; 0 of 2 hints seen"
    assert panel.feedback is None
    assert "Double <code>number</code>." in panel.task.value


def test_a_cell_not_run_yet_is_not_tried(panel):
    panel.check.click()
    assert panel.feedback.outcome is Outcome.NOT_TRIED
    assert "not tried yet" in panel.outcome.value
    assert panel.failure is None


def test_the_starter_is_not_tried(panel, cell):
    cell["double"] = starter
    panel.check.click()
    assert panel.feedback.outcome is Outcome.NOT_TRIED


def test_wrong_then_hint_then_right_without_a_new_panel(panel, cell):
    cell["double"] = lambda number: number
    panel.check.click()
    assert panel.feedback.outcome is Outcome.WRONG
    assert "For 1 you gave &lt;1&gt;." in panel.outcome.value
    panel.hint.click()
    assert "Hint 1 of 2: Look at <code>*</code>." in panel.hints.value
    cell["double"] = lambda number: number + number
    panel.check.click()
    assert panel.feedback.outcome is Outcome.PASSED
    assert repr(panel) == "✔ double: passed; 1 of 2 hints seen"
    assert "Doubling is adding to itself." in panel.outcome.value


def test_the_hints_come_one_by_one_and_end(panel):
    assert panel.hint.description == "Hint 1 of 2"
    panel.hint.click()
    assert panel.hint.description == "Hint 2 of 2"
    assert not panel.hint.disabled
    panel.hint.click()
    assert panel.hint.disabled
    assert panel.hint.description == "No more hints"
    assert "Look at" in panel.hints.value
    assert "Return it." in panel.hints.value


def test_two_panels_of_one_exercise_count_their_own_hints(panel):
    panel.hint.click()
    assert ExercisePanel(double, lambda: None).hint.description == "Hint 1 of 2"


def test_the_solution_is_shown_and_hidden(panel):
    assert "2 * number" not in panel.to_html()
    panel.solution.value = True
    assert "return 2 * number" in panel.answer_shown.value
    panel.solution.value = False
    assert panel.answer_shown.value == ""


def test_an_answer_that_raises_is_wrong_and_no_failure_of_the_panel(panel, cell):
    cell["double"] = lambda number: [][number]
    panel.check.click()
    assert panel.feedback.outcome is Outcome.WRONG
    assert "IndexError" in panel.outcome.value
    assert panel.failure is None
    assert panel.check.description == "Check"


def test_a_lookup_that_fails_in_another_way_is_shown(panel):
    panel.answer = lambda: 1 / 0
    panel.check.click()
    assert isinstance(panel.failure, ZeroDivisionError)
    assert panel.check.description == "Check"


def test_a_wrong_answer_only_shows_in_a_tested_lesson_too(panel, cell, monkeypatch):
    monkeypatch.setenv("FTLAB_CI", "1")
    cell["double"] = lambda number: number
    panel.check.click()
    assert panel.feedback.outcome is Outcome.WRONG


@pytest.mark.parametrize("answer", [double.function, 5, None])
def test_the_answer_itself_is_refused_with_the_next_step(answer):
    with pytest.raises(TypeError, match="hand over `lambda: double`"):
        ExercisePanel(double, answer)


def test_the_twin_has_the_task_and_the_outcome(panel, cell):
    cell["double"] = lambda number: number
    panel.check.click()
    html = panel.to_html()
    for part in ["<h3>double</h3>", "Double <code>number</code>.", "For 1 you gave &lt;1&gt;."]:
        assert part in html
