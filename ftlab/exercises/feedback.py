"""What a learner hears about an answer."""

import enum
import re
import textwrap
from dataclasses import asdict, dataclass
from html import escape
from typing import Any


class Outcome(enum.Enum):
    """One of three: passed, wrong, not tried yet. The last is never scolded."""

    PASSED = "passed"
    WRONG = "not right yet"
    NOT_TRIED = "not tried yet"

    @property
    def sign(self) -> str:
        """Return a sign that tells the outcome without a colour."""
        return {"PASSED": "✔", "WRONG": "✘", "NOT_TRIED": "○"}[self.name]


# Only the bar at the side is coloured: the text keeps the colours of the light or dark theme it stands in.
_COLOURS = {Outcome.PASSED: "#2e9e5b", Outcome.WRONG: "#d9822b", Outcome.NOT_TRIED: "#8a8a8a"}


@dataclass(frozen=True)
class Feedback:
    """The verdict on an answer, and the reason for it. Its repr is what the learner reads.

    Attributes:
        exercise: Name of the exercise.
        outcome: Passed, wrong, or not tried yet.
        message: What was observed, in the learner's own names.
        ask: The next question, or the next step.
        checked: What exactly was checked.
        printed: The beginning of what the answer printed.

    Example:
        >>> Feedback("freeze_backbone", Outcome.WRONG, "Nothing moved.", ask="Who should learn?")
        ✘ freeze_backbone: not right yet
          Nothing moved.
          → Who should learn?
    """

    exercise: str
    outcome: Outcome
    message: str
    ask: str = ""
    checked: str = ""
    printed: str = ""

    @property
    def passed(self) -> bool:
        """Say whether the answer is right."""
        return self.outcome is Outcome.PASSED

    def __repr__(self) -> str:
        lines = [f"{self.outcome.sign} {self.exercise}: {self.outcome.value}", self.message]
        lines += [f"→ {self.ask}"] if self.ask else []
        lines += [f"Checked: {self.checked}"] if self.checked else []
        lines += [f"Your code printed:\n{self.printed}"] if self.printed else []
        return "\n".join(lines).replace("\n", "\n  ")

    def _repr_html_(self) -> str:
        """Return the feedback as HTML; whatever stands in it is escaped."""
        parts = [
            f"<b>{self.outcome.sign} {escape(self.exercise)}: {self.outcome.value}</b>",
            f"<div>{_prose(self.message)}</div>",
        ]
        if self.ask:
            parts.append(f"<div>→ {_prose(self.ask)}</div>")
        if self.checked:
            parts.append(f'<div style="font-size: 90%; opacity: 0.85">Checked: {_prose(self.checked)}</div>')
        if self.printed:
            parts.append(f"<div>Your code printed:</div><pre>{escape(self.printed)}</pre>")
        style = f"border-left: 4px solid {_COLOURS[self.outcome]}; padding: 0.3em 0.8em; color: inherit"
        return f'<div role="status" style="{style}">{"".join(parts)}</div>'

    def to_dict(self) -> dict[str, Any]:
        """Return the feedback for a program; the outcome is its name, such as "PASSED"."""
        return asdict(self) | {"outcome": self.outcome.name}


class Prose(str):
    """A text that a notebook shows as it reads, not as a quoted string.

    Example:
        >>> Prose("Compare `model` before and after.")
        Compare `model` before and after.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """Return the text as HTML, escaped."""
        return f"<div>{_prose(self)}</div>"


class Code(Prose):
    """A piece of Python that a notebook shows as it reads."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        """Return the code as HTML, escaped."""
        return f'<pre style="word-break: normal">{escape(self)}</pre>'


def _prose(text: str) -> str:
    """Escape `text`; what stands between backticks is set as code, and an indented paragraph as a program."""
    paragraphs = [_paragraph(part) for part in re.split(r"\n[ \t]*\n", text)]
    return paragraphs[0] if len(paragraphs) == 1 else "".join(f"<div>{part}</div>" for part in paragraphs)


def _paragraph(text: str) -> str:
    if all(line.startswith("    ") for line in text.splitlines()):
        return f"<pre>{escape(textwrap.dedent(text))}</pre>"
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text)).replace("\n", "<br>")
