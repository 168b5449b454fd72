"""Answers to exercises, collected by decorators, and judged with another seed than those of the contract."""

from collections.abc import Callable

import pytest

from ftlab.exercises.core import Exercise, Outcome

SEEDS = (4, 5)


class Answers:
    """Right and wrong answers of learners, for `pytest.mark.parametrize`."""

    def __init__(self) -> None:
        self.rights, self.wrongs = [], []

    def right(self, exercise: Exercise) -> Callable:
        """Note a right answer to `exercise`."""

        def note(function: Callable) -> Callable:
            self.rights.append(pytest.param(exercise, function, id=function.__name__))
            return function

        return note

    def wrong(self, exercise: Exercise, says: str) -> Callable:
        """Note a wrong answer to `exercise`, and a part of the sentence that it should get."""

        def note(function: Callable) -> Callable:
            self.wrongs.append(pytest.param(exercise, function, says, id=function.__name__))
            return function

        return note


def passes(exercise: Exercise, answer: object) -> None:
    """Assert that the answer passes."""
    for seed in SEEDS:
        feedback = exercise.judge(answer, seed=seed)
        assert feedback.passed, feedback


def is_wrong(exercise: Exercise, answer: object, says: str) -> None:
    """Assert that the answer is wrong, that the sentence fits, and that there is a next question."""
    for seed in SEEDS:
        feedback = exercise.judge(answer, seed=seed)
        assert feedback.outcome is Outcome.WRONG, feedback
        assert says in feedback.message, feedback
        assert "could not go on" not in feedback.message, feedback
        assert feedback.ask
