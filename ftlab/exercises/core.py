"""An exercise is its solution, decorated.

The right answer is a real function. Its name names the exercise, its docstring is the task, its signature is
the starter. What belongs to it stands beside it:

    @exercise(
        check=check_only_head_moves,  # called with the answer; raises `Wrong`, or says nothing
        hints=["Which call changes a parameter in place?", "Freeze everything, then thaw `model.fc`."],
        also_right=[freeze_by_name],
        mistakes=[Mistake(freeze_everything, says="`fc`"), ...],
    )
    def freeze_backbone(model: nn.Module) -> None:
        '''Leave only the head `model.fc` trainable.'''
        model.requires_grad_(False)
        model.fc.requires_grad_(True)

A check is a function of one argument, the answer. It builds a small model, calls the answer with it like the
function that the answer is, looks at what happens, and raises `Wrong` if that is not right. Its docstring
tells the learner what was checked. Everything else is done here: an answer not tried yet, the wrong
signature, an error, a forgotten `return`, a loop without end, what it prints, random seeds.

The kind of the task follows from the function:

- with parameters: write. The starter raises `NotImplementedError`.
- with `broken=`, a function: repair. The starter is the body of that function.
- without parameters: predict or choose. The starter returns `...`; a value may be handed over as well.
"""

import inspect
import linecache
import os
import pkgutil
import textwrap
import traceback
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import Any

from torch import nn

from ftlab import runner
from ftlab.exercises.feedback import Code, Feedback, Outcome, Prose
from ftlab.exercises.source import head_and_body, same_code

__all__ = [
    "CheckFailed",
    "Exercise",
    "Feedback",
    "Mistake",
    "Outcome",
    "Raised",
    "Wrong",
    "all_exercises",
    "exercise",
]


class Wrong(Exception):  # noqa: N818  (it names what the answer is)
    """Say that an answer is wrong: what was observed, and the next question.

    Args:
        message: What was observed, in the learner's names. Never the expected value first.
        ask: The question that leads on.
    """

    def __init__(self, message: str, *, ask: str = "") -> None:
        super().__init__(message)
        self.message, self.ask = message, ask


class Raised(Wrong):
    """Say that the answer raised an error; `error` is that error, for a check that knows its reason."""

    def __init__(self, error: BaseException, place: str) -> None:
        text = textwrap.shorten(str(error), 300, placeholder=" ...")
        name = type(error).__name__
        message = f"It raised `{name}: {text}`{place}." if text else f"It raised `{name}`{place}."
        super().__init__(message, ask="What does that line get to work on? Try it in a cell of its own.")
        self.error = error


class NotTried(Exception):  # noqa: N818
    """Say that there is no answer yet."""


class CheckFailed(AssertionError):  # noqa: N818  (read it aloud: "raises CheckFailed")
    """Raised by `Exercise.check` for a wrong answer where the course itself is tested (`FTLAB_CI=1`)."""


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that people give, and a part of the sentence that they then read."""

    function: Callable
    says: str


class Answer:
    """The learner's answer as a check calls it: like the function that it is.

    What goes wrong inside it comes out as `Raised` or `NotTried`, without the learner's objects.
    """

    def __init__(self, function: Callable, *, gives_value: bool) -> None:
        self.function, self.gives_value = function, gives_value

    def __call__(self, *args: Any) -> Any:
        try:
            value = self.function(*args)
        except (Exception, SystemExit) as error:
            frames = list(traceback.walk_tb(error.__traceback__))
            own = [place for place in frames if place[0].f_code.co_filename == _filename(self.function)]
            if isinstance(error, NotImplementedError) and own and own[-1][0] is frames[-1][0]:
                raise NotTried from None  # torch's own NotImplementedError comes from deeper down
            named = [place for place in own if not place[0].f_code.co_name.startswith("<")]
            place = _place(*(named or own)[-1]) if own else ""  # a comprehension has no name to be found by
            raise Raised(error.with_traceback(None), place) from None
        if value is ...:
            raise NotTried
        if inspect.isgenerator(value) and not self.gives_value:
            raise Wrong("With a `yield` inside, a call runs none of its lines.", ask="What is `yield` for here?")
        if value is None and self.gives_value:
            raise Wrong("It gave back `None`.", ask="Does it end with a `return`, on every path?")
        return value


def _filename(function: Callable) -> str | None:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code.co_filename if code else None


def _place(frame: types.FrameType, line: int) -> str:
    code = frame.f_code
    source = linecache.getline(code.co_filename, line, frame.f_globals).strip()
    quote = f" (`{source}`)" if source else ""
    return f" in line {line - code.co_firstlineno + 1} of `{code.co_name}`{quote}"


class Exercise:
    """A task, its starter, its hints and its check. Made by the decorator `exercise`.

    Attributes:
        name: Name of the exercise, and of the function to write.
        topic: Module that it is declared in, such as "freezing".
        kind: "write", "repair" or "predict".
        task: What to do.
        starter: Text of the notebook cell that the learner begins with.
        hints: From "where to look" to "which call".
        function: The solution itself.
        also_right: Other right answers.
        mistakes: Known wrong answers.
        checked: What the check looks at: its docstring.
        remember: One sentence to take along, shown with a right answer.
        seconds: Time limit for one check.
    """

    def __init__(
        self,
        function: Callable,
        *,
        check: Callable[[Answer], None],
        hints: Sequence[str],
        also_right: Sequence[Callable] = (),
        mistakes: Sequence[Mistake] = (),
        broken: Callable | None = None,
        remember: str = "",
        seconds: float = 10.0,
    ) -> None:
        self.function = function
        self.name, self.topic = function.__name__, _topic(function.__module__)
        self.task = inspect.getdoc(function) or ""
        self.checked = " ".join((check.__doc__ or "").split())
        self.hints, self.also_right, self.mistakes = list(hints), list(also_right), list(mistakes)
        self.broken, self.remember, self.seconds = broken, remember, seconds
        self._check, self._next_hint = check, 0
        self.__doc__ = self.task

    def __repr__(self) -> str:
        return f"<exercise {self.topic}.{self.name}: {self.kind}, {len(self.hints)} hints>"

    @property
    def kind(self) -> str:
        """Return what there is to do: "write", "repair" or "predict"."""
        if self.broken:
            return "repair"
        return "write" if self._parameters else "predict"

    @property
    def starter(self) -> str:
        """Return the text of the cell that the learner begins with."""
        head, _ = head_and_body(self.function)
        if self.broken:
            return f"{head}\n{head_and_body(self.broken)[1]}"
        return head + ("\n    raise NotImplementedError" if self._parameters else "\n    return ...")

    def solution(self) -> Code:
        """Return the source of the solution, the one that the tests run."""
        return Code("\n".join(head_and_body(self.function)))

    def hint(self, number: int | None = None) -> Prose:
        """Return hint `number`, counted from 1; without a number the next one.

        Raises:
            IndexError: There is no such hint.
        """
        total = len(self.hints)
        if number is None:
            number = self._next_hint = min(self._next_hint + 1, total)
        if not 1 <= number <= total:
            raise IndexError(f"{self.name} has no hint {number}; it has hints 1 to {total}")
        last = " That was the last hint; `.solution()` shows one right answer." if number == total else ""
        return Prose(f"Hint {number} of {total}: {self.hints[number - 1]}{last}")

    def check(self, answer: Any, *, seed: int = 0) -> Feedback:
        """Judge `answer` and return the feedback.

        Nothing is changed but what the answer itself changes outside of its arguments.

        Args:
            answer: The function itself, not the result of calling it. Where the task is to predict, the
                prediction may be handed over too.
            seed: Random seed of the data and models that the answer is tried on.

        Raises:
            CheckFailed: The answer is wrong and the environment variable `FTLAB_CI` is 1.
        """
        feedback = self.judge(answer, seed=seed)
        if feedback.outcome is Outcome.WRONG and os.environ.get("FTLAB_CI") == "1":
            raise CheckFailed(repr(feedback))
        return feedback

    def judge(self, answer: Any, *, seed: int = 0) -> Feedback:
        """Judge `answer` like `check`, and never raise because it is wrong."""
        run = runner.run(lambda: self._verdict(answer), seconds=self.seconds, seed=seed)
        if run.error is not None:
            raise run.error
        feedback = self._stopped(run) if run.stopped else run.value
        return replace(feedback, printed=run.printed)

    def _verdict(self, answer: Any) -> Feedback:
        say, checked = partial(Feedback, self.name), ""
        try:
            accepted = self._accept(answer)
            checked = self.checked
            self._check(accepted)
        except NotTried as reason:
            message = str(reason) or "There is no answer yet."
            return say(Outcome.NOT_TRIED, message, ask=f"`{self.topic}.{self.name}.hint()` helps you to begin.")
        except Wrong as wrong:
            return say(Outcome.WRONG, wrong.message, ask=wrong.ask, checked=checked)
        except Exception as error:  # the answer left something behind that the check cannot work with
            text = textwrap.shorten(f"{type(error).__name__}: {error}", 300, placeholder=" ...")
            ask = "Is what you return or change of the kind that the task asks for?"
            message = f"After your answer the check could not go on: `{text}`."
            return say(Outcome.WRONG, message, ask=ask, checked=checked)
        return say(Outcome.PASSED, "Right.", ask=self.remember, checked=checked)

    def _stopped(self, run: runner.Run) -> Feedback:
        if run.stopped == "time":
            message, ask = f"It did not end within {self.seconds:g} seconds.", "Which loop has no end, and why?"
        else:
            size = runner.MEMORY >> 30
            message, ask = f"It took more than {size} GiB of memory.", "What grows with every round of a loop?"
        if run.alive:
            message += " It could not be stopped and still runs in the background: restart the kernel."
        return Feedback(self.name, Outcome.WRONG, message, ask=ask)

    def _accept(self, answer: Any) -> Answer:
        """Return the answer as a check takes it; say so where it is none."""
        handing_over = f"Hand over the function itself: `{self.topic}.{self.name}.check({self.name})`."
        if answer is None or answer is ... or isinstance(answer, Exercise):
            raise NotTried(f"There is no answer yet. {handing_over}")
        gives_value = inspect.signature(self.function).return_annotation not in (None, "None")
        if not self._parameters and not callable(answer):
            return Answer(lambda: answer, gives_value=gives_value)
        if not callable(answer) or isinstance(answer, nn.Module):
            kind = type(answer).__name__
            ask = "What do the brackets behind the name of a function do?"
            raise Wrong(f"You handed over the result of a call, of type `{kind}`. {handing_over}", ask=ask)
        self._accept_signature(answer)
        if self.broken and same_code(answer, self.starter):
            raise NotTried("This is still the broken version.")
        return Answer(answer, gives_value=gives_value)

    def _accept_signature(self, answer: Callable) -> None:
        try:
            signature = inspect.signature(answer)
        except ValueError:  # some builtin functions do not tell theirs
            return
        try:
            signature.bind(*self._parameters)
        except TypeError as error:
            called = f"{self.name}({', '.join(self._parameters)})"
            own = f"{getattr(answer, '__name__', 'answer')}{signature}"
            ask = "Which arguments does the starter have?"
            raise Wrong(f"It is called as `{called}`, but yours is `{own}`: {error}.", ask=ask) from None

    @property
    def _parameters(self) -> list[str]:
        return list(inspect.signature(self.function).parameters)


def exercise(
    *,
    check: Callable[[Answer], None],
    hints: Sequence[str],
    also_right: Sequence[Callable] = (),
    mistakes: Sequence[Mistake] = (),
    broken: Callable | None = None,
    remember: str = "",
    seconds: float = 10.0,
) -> Callable[[Callable], Exercise]:
    """Turn a right answer into an exercise.

    Args:
        check: Called with the answer; raises `Wrong`. Its docstring says what is checked.
        hints: At least two, from "where to look" to "which call".
        also_right: Right answers of another style.
        mistakes: At least three wrong answers that people give, and what they hear.
        broken: For a task to repair: the function whose body is the starter.
        remember: One sentence to take along, shown with a right answer.
        seconds: Time limit for one check.

    Example:
        >>> def check_double(answer):
        ...     '''Two numbers, doubled.'''
        ...     for number in (2, 3):
        ...         if answer(number) != 2 * number:
        ...             raise Wrong(f"From {number} you made {answer(number)}.", ask="Which operator doubles?")
        >>> @exercise(check=check_double, hints=["Think of `+`.", "`number + number`"])
        ... def double(number: int) -> int:
        ...     '''Return twice the number.'''
        ...     return 2 * number
        >>> double.judge(lambda number: number**2)
        ✘ double: not right yet
          From 3 you made 9.
          → Which operator doubles?
          Checked: Two numbers, doubled.
    """

    def decorate(function: Callable) -> Exercise:
        return Exercise(
            function,
            check=check,
            hints=hints,
            also_right=also_right,
            mistakes=mistakes,
            broken=broken,
            remember=remember,
            seconds=seconds,
        )

    return decorate


def all_exercises() -> list[Exercise]:
    """Return every exercise that is declared in `ftlab.exercises.<topic>`, a module or a folder."""
    package = import_module("ftlab.exercises")
    found: dict[int, Exercise] = {}  # by identity: a folder's `__init__` shows those of its modules again
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        members = vars(import_module(info.name)).values()
        found |= {id(member): member for member in members if isinstance(member, Exercise)}
    return list(found.values())


def _topic(module: str) -> str:
    """Return the topic of a module: "freezing" for `ftlab.exercises.freezing` and for a module in that folder."""
    return module.removeprefix("ftlab.exercises.").partition(".")[0]
