"""The panel around an exercise: the task, Check, the hints one by one, the solution, the outcome."""

from collections.abc import Callable
from typing import Any

import ipywidgets as w

from ftlab.exercises.core import Exercise
from ftlab.exercises.feedback import Feedback, Prose
from ftlab.widgets.panel import Panel


class ExercisePanel(Panel):
    """Ask for an answer and judge it.

    The panel fetches the answer anew at each Check, so that one may go on writing in the cell above without
    making a new panel. A wrong answer is only shown, in a tested lesson too: what a test relies on is
    `exercise.check(answer)`.

    Args:
        exercise: Any exercise of `ftlab.exercises`.
        answer: Called without arguments at each Check; gives the learner's function, or the prediction.

    Raises:
        TypeError: If the function itself is given in place of a way to fetch it.

    Example:
        >>> from ftlab.exercises.core import Wrong, exercise
        >>> def check_sum(answer):
        ...     if answer(2, 3) != 5:
        ...         raise Wrong(f"For 2 and 3 you gave {answer(2, 3)}.", ask="Which operator is it?")
        >>> def add(a: int, b: int) -> int:
        ...     '''Add two numbers.'''
        ...     return a + b
        >>> task = exercise(check=check_sum, hints=["Look at `+`.", "Return it."])(add)
        >>> panel = ExercisePanel(task, lambda: lambda a, b: a * b)
        >>> panel.check.click()
        >>> panel
        ✘ add: not right yet; 0 of 2 hints seen
        >>> panel.feedback.message
        'For 2 and 3 you gave 6.'
    """

    def __init__(self, exercise: Exercise, answer: Callable[[], Any]) -> None:
        _require_lookup(exercise, answer)
        self.exercise, self.answer = exercise, answer
        self.feedback: Feedback | None = None
        self.seen = 0  # hints
        self.title = exercise.name
        self.check = w.Button(description="Check", icon="check", button_style="primary")
        self.hint = w.Button(icon="lightbulb-o", tooltip="Show the next hint")
        self.solution = w.ToggleButton(description="Solution", tooltip="Show or hide one right answer")
        self.task = w.HTML(Prose(exercise.task)._repr_html_())
        self.outcome, self.hints, self.answer_shown = w.HTML(), w.HTML(), w.HTML()
        buttons = w.HBox([self.check, self.hint, self.solution])
        super().__init__(self.task, buttons, self.outcome, self.hints, self.answer_shown)
        self.on(self.check, self._check)
        self.on(self.hint, self._next_hint)
        self.on(self.solution)

    def _check(self) -> None:
        self.check.description = "Checking ..."  # a disabled button would lose the focus of the keyboard
        self.feedback = self.exercise.judge(self._fetch())

    def _fetch(self) -> Any:
        try:
            return self.answer()
        except NameError:  # the cell with the answer has not been run: not tried yet
            return None

    def _next_hint(self) -> None:
        self.seen = min(self.seen + 1, len(self.exercise.hints))

    def _render(self) -> None:
        self.check.description = "Check"
        total = len(self.exercise.hints)
        self.hint.disabled = self.seen == total
        self.hint.description = "No more hints" if self.hint.disabled else f"Hint {self.seen + 1} of {total}"
        self._status.layout.display = "none" if self.feedback else None  # the outcome says it
        self.outcome.value = self.feedback._repr_html_() if self.feedback else ""
        self.hints.value = "".join(self.exercise.hint(n + 1)._repr_html_() for n in range(self.seen))
        shown = self.solution.value
        self.answer_shown.value = self.exercise.solution()._repr_html_() if shown else ""

    def describe(self) -> str:
        """Return the outcome, and how much help there was."""
        seen = f"{self.seen} of {len(self.exercise.hints)} hints seen"
        if self.feedback is None:
            return f"○ {self.exercise.name}: not checked yet; {seen}"
        outcome = self.feedback.outcome
        return f"{outcome.sign} {self.exercise.name}: {outcome.value}; {seen}"


def _require_lookup(exercise: Exercise, answer: Any) -> None:
    """Refuse the answer itself: the panel would go on judging it after it has been rewritten."""
    if not callable(answer) or getattr(answer, "__name__", "") == exercise.name:
        raise TypeError(
            f"the panel fetches the answer anew at each Check: hand over `lambda: {exercise.name}`, "
            f"not {answer!r} itself"
        )
