"""The folder of a run: what lies in it, and how it is read."""

import hashlib
import json
import platform
import shlex
from pathlib import Path
from typing import Any

import torch
import torchvision

from ftlab import __version__
from ftlab.checkpoints import load
from ftlab.checkpoints.replacing import NewFile
from ftlab.data.images import Images
from ftlab.finetune.plan import Plan

LAST, BEST, PLAN, REPORT = "last.pt", "best.pt", "plan.json", "report.html"


def versions() -> dict[str, str]:
    """Return what a run was made with."""
    return {
        "ftlab": __version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
    }


def command(plan: Plan, out: Path) -> str:
    """Return the command that makes this run, with every choice, also those that were not given.

    Example:
        >>> command(Plan("my pets", epochs=3), Path("run"))[:50]
        "ftlab finetune 'my pets' --out run --backbone effi"
    """
    words = ["ftlab", "finetune", plan.folder, "--out", str(out)]
    for name, value in plan.to_dict().items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None and name not in ("folder", "why"):
            words += [f"--{flag}", str(value)]
    return shlex.join(words)


def has_run(out: Path) -> bool:
    """Return whether there is a run in this folder, ended or not."""
    return (out / PLAN).is_file()


def begin(out: Path, plan: Plan, classes: list[str]) -> None:
    """Make the folder of a new run and write the plan.

    Raises:
        FileExistsError: There is a run already.
        OSError: The folder cannot be made or written.
    """
    if has_run(out):
        raise FileExistsError(f"{out} has a run already; go on with --resume, or name another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    content = {
        "plan": plan.to_dict(),
        "classes": classes,
        "versions": versions() | {"command": command(plan, out)},
    }
    write_text(out / PLAN, json.dumps(content, indent=2))


def read_plan(out: Path) -> tuple[Plan, list[str]]:
    """Return the plan and the classes of a run.

    Raises:
        FileNotFoundError: This is no folder of a run.
        ValueError: The plan cannot be read.
    """
    file = Path(out) / PLAN
    if not file.is_file():
        raise FileNotFoundError(f"{out} is no folder of a run: it has no {PLAN}")
    try:
        content = json.loads(file.read_text("utf-8"))
        return Plan(**content["plan"]), content["classes"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} cannot be read ({type(error).__name__}: {error}); is it of another version?"
        ) from error


def write_text(file: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with NewFile(file) as new:
        new.write(text.encode())
        new.put_in_place()


def agree(plan: Plan, given: dict[str, Any], out: Path) -> None:
    """Refuse to go on with a run under other choices.

    Raises:
        ValueError: A choice that is given differs from the plan of the run.
    """
    known = plan.to_dict()
    if given.get("precision") == "auto":  # it was chosen when the run began
        given = given | {"precision": None}
    odd = [
        f"{name} was {known[name]!r}, now {value!r}"
        for name, value in given.items()
        if value is not None and known[name] != value
    ]
    if odd:
        raise ValueError(
            f"the run in {out} has another plan: {'; '.join(odd)}. Leave that out, or begin a new run"
        )


def fingerprint(splits: list[Images]) -> str:
    """Return a hash of the names and classes of the images: another one means that they have changed."""
    lines = [
        f"{Path(file).relative_to(split.root).as_posix()} {target}"
        for split in splits
        for file, target in split.samples
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def load_last(out: Path, splits: list[Images], classes: list[str]) -> dict[str, Any] | None:
    """Return what was saved last, or None if the run was ended before its first epoch.

    Raises:
        ValueError: The images are others than those of the run.
    """
    saved = load(out / LAST) if (out / LAST).exists() else None
    changed = splits[0].classes != classes or (
        saved is not None and saved["extra"]["images"] != fingerprint(splits)
    )
    if changed:
        raise ValueError(f"the images have changed since the run in {out} began; begin a new run")
    return saved
