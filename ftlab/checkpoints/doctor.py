"""The body of `ftlab doctor`: look at a file, compare it with a model if one is named, in words or JSON."""

import json
from pathlib import Path
from typing import Any

from .file_findings import file_findings, name_findings, reading
from .info import CheckpointInfo, Finding, models_of
from .inspection import inspect

FINE, FINDINGS, UNREADABLE = 0, 1, 2  # exit codes


def examine(file: str, model: str = "", classes: int = 0, *, as_json: bool = False) -> tuple[int, str]:
    """Return the exit code and the text of `ftlab doctor`; whatever the file is, nothing is raised.

    Without a model torch is not loaded.

    Args:
        file: The name of a file or a folder, as the user gave it.
        model: A model that `ftlab.pretrained.available` lists; empty for none.
        classes: Outputs of its head; 0 for those of the model.
        as_json: Return JSON in place of words.

    Example:
        >>> code, text = examine("not there.pt")
        >>> print(code, text)
        2 not there.pt cannot be read: there is no such file
    """
    failing = "cannot be read"
    try:  # a doctor that breaks down over a patient helps nobody
        info = inspect(file, checksums=True)
        failing = f"cannot be compared with {model!r}"
        findings, fix, words = _with_model(info, model, classes) if model and info.whole else _alone(info)
    except Exception as error:
        words, fix = f"{file} {failing}: {_why(error)}", ""
        info, findings = CheckpointInfo(Path(file), whole=False), [Finding("unreadable", words, _NEXT)]
    code = UNREADABLE if not info.whole else FINDINGS if findings else FINE
    return code, json.dumps(_as_dict(info, findings, fix), indent=2) if as_json else printable(words)


_NEXT = "Check the names that were given, and who may read the file."


def _alone(info: CheckpointInfo) -> tuple[list[Finding], str, str]:
    findings = info.problems if not info.whole else file_findings(info) + name_findings(info)
    keys = next(iter(models_of(info)), None)
    readable = info.whole and keys is not None
    fix = "\n".join(filter(None, [reading(info, keys), *(one.fix for one in findings)])) if readable else ""
    return findings, fix, "\n\n".join([repr(info), *map(str, findings), *filter(None, [fix])])


def _with_model(info: CheckpointInfo, name: str, classes: int) -> tuple[list[Finding], str, str]:
    from .diagnosing import diagnose_file
    from .findings.families import without_memory

    diagnosis = diagnose_file(info, without_memory(name, classes))
    return diagnosis.findings, diagnosis.fix, f"{info!r}\n\n{diagnosis!r}"


def _why(error: Exception) -> str:
    known = {
        FileNotFoundError: "there is no such file",
        PermissionError: "it may not be read by you",
        NotADirectoryError: "a part of its path is a file",
    }
    return known.get(type(error)) or str(error) or type(error).__name__


def _as_dict(info: CheckpointInfo, findings: list[Finding], fix: str) -> dict[str, Any]:
    found = info.to_dict()
    return {
        "path": found["path"],
        "format": found["format"],
        "size": found["size"],
        "whole": found["whole"],
        "parts": found["parts"],
        "tensors": found["tensors"],
        "shared": found["shared"],
        "dangerous": [one.name for one in info.dangerous],
        "findings": [vars(finding) for finding in findings],
        "fix": fix,
    }


def printable(text: str) -> str:
    """Return a text without what could steer a terminal: names come out of a file that nobody trusts."""
    return "".join(
        one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode("ascii") for one in text
    )
