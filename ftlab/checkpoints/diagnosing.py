"""Say why a checkpoint does not load into a model, or loads quietly and wrongly, and mend it."""

from collections.abc import Mapping
from os import PathLike
from typing import Any

from torch import nn

from .diagnosis import Case, Diagnosis
from .file_findings import file_findings, reading
from .findings import FINDERS
from .findings.parts import Choice, choose
from .info import CheckpointInfo, Finding
from .inspection import inspect


def diagnose(path_or_state: str | PathLike | Mapping[str, Any], model: nn.Module) -> Diagnosis:
    """Find out why a file does not load into a model, or would load wrongly. Nothing is changed or run.

    Every finding says what was seen and what it means, and has a fix as code that runs; the fixes one after the
    other load the file into `model`. `.apply()` does the same and gives a receipt.

    The trap: names and shapes that agree are needed, and are not enough. Two weights of the same shape can have
    changed places, and a square matrix looks the same transposed: only the accuracy of the model shows that.

    Args:
        path_or_state: A file that `inspect` reads, a state_dict, or a dictionary that has one in it.
        model: The model that it is meant for. It is not changed.

    Raises:
        FileNotFoundError: There is no such file.

    Example:
        >>> import torch
        >>> state = {"module.weight": torch.ones(3, 2), "module.bias": torch.ones(3)}
        >>> diagnosis = diagnose(state, nn.Linear(2, 3))
        >>> [finding.kind for finding in diagnosis.findings]
        ['prefix']
        >>> print(diagnosis.fix)
        state = {key.removeprefix('module.'): value for key, value in state.items()}
        model.load_state_dict(state)
    """
    if isinstance(path_or_state, Mapping):
        return _diagnose(model, None, choose(path_or_state, model), "", [])
    return diagnose_file(inspect(path_or_state, checksums=True), model)


def diagnose_file(info: CheckpointInfo, model: nn.Module) -> Diagnosis:
    """Do what `diagnose` does for a file that has been looked into."""
    if not info.whole:
        return Diagnosis(model, info.problems, info=info)
    try:
        choice = choose(info, model)
    except (ValueError, RuntimeError) as error:
        first = file_findings(info)
        known = any(finding.kind == "sharded" for finding in first)
        return Diagnosis(model, first if known else [*first, _strange(error)], info=info)
    return _diagnose(model, info, choice, reading(info, choice.keys), file_findings(info))


def _diagnose(
    model: nn.Module, info: CheckpointInfo | None, choice: Choice, start: str, first: list[Finding]
) -> Diagnosis:
    case = Case(model, choice.state)
    case.findings = [*first, *choice.findings]
    if not choice.state:
        return Diagnosis(model, case.findings, info=info)
    try:
        for find in FINDERS:
            find(case)
            if not case.state:
                return Diagnosis(model, case.findings, info=info)
    except RuntimeError as error:  # an operation that PyTorch does not have for such tensors
        return Diagnosis(model, [*case.findings, _strange(error)], info=info)
    fits = case.fitting()
    if case.loading or (fits and not case.hopeless):
        ends = case.loading or _loading(case)
        findings = _joined(case.findings, start, ends)
        fix = "\n".join(f.fix for f in findings if f.fix) if findings else _lines(start, ends)
    else:
        findings, fix = case.findings, ""
    return Diagnosis(
        model,
        findings,
        fix,
        unloaded=[name for name in case.own if name not in fits or case.loading or case.hopeless],
        unused=case.extra + case.misfits,
        info=info,
        state={} if case.loading or case.hopeless else case.state,
    )


def _strange(error: Exception) -> Finding:
    return Finding(
        "strange-tensors",
        f"the tensors cannot be worked with: {str(error).splitlines()[0][:200]}",
        "Their type or layout is not one that a model is loaded from. Convert them where they were written.",
    )


def _loading(case: Case) -> str:
    lines = []
    if case.misfits:
        lines += [
            "own = model.state_dict()",
            "state = {\n    key: value\n    for key, value in state.items()\n"
            "    if key in own and value.shape == own[key].shape\n}",
        ]
    strict = "" if not case.missing and not case.extra and not case.misfits else ", strict=False"
    return "\n".join([*lines, f"model.load_state_dict(state{strict})"])


def _joined(findings: list[Finding], start: str, ends: str) -> list[Finding]:
    """Give the first finding the lines that read the file, and the last one those that load it."""
    if not findings:
        return []
    fixes = [finding.fix for finding in findings]
    fixes[0] = _lines(start, fixes[0])
    fixes[-1] = _lines(fixes[-1], ends)
    return [Finding(f.kind, f.seen, f.means, fix) for f, fix in zip(findings, fixes, strict=True)]


def _lines(*pieces: str) -> str:
    return "\n".join(filter(None, pieces))
