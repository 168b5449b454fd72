"""The learner's own copies of the lessons: handed out, kept up to date, and never written over."""

import hashlib
import json
import os
from pathlib import Path

from ftlab import __version__, paths
from ftlab.table import Table

RECORD = ".ftlab-lessons.json"  # in the learner's folder: which bytes were handed out, so that changes show


def hand_out(folder: str | Path) -> Table:
    """Copy the lessons into `folder` and say for each what was done; a file the learner changed is kept.

    A file counts as changed if one byte differs from what was handed out, so a notebook that was only run is
    the learner's too. If the lesson itself became newer, the newer one is put beside the changed file, once.
    A lesson that the learner deleted is handed out again: that is how to start one afresh.

    The trap: without the hidden record in `folder`, every file that differs counts as changed.

    Args:
        folder: where the copies go; it is made if it is missing.

    Returns:
        One row per lesson: its file, and what was done.

    Raises:
        FileNotFoundError: if this installation has no lessons.
        OSError: if `folder` cannot be made or written. Each file is either as before or complete.
        ValueError: if `folder` is where ftlab keeps the originals.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     first = hand_out(folder)
        ...     again = hand_out(folder)
        >>> {row["done"] for row in first.to_dict()}, {row["done"] for row in again.to_dict()}
        ({'new'}, {'as it was'})
    """
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    if folder.samefile(paths.LESSONS):
        raise ValueError(
            f"{folder} is where ftlab keeps the original lessons; name another folder for your copies"
        )
    lessons = sorted(paths.LESSONS.glob("*.ipynb"))
    if not lessons:
        raise FileNotFoundError(
            f"no lessons in {paths.LESSONS}; install ftlab again: pip install --force-reinstall ftlab"
        )
    record = _read_record(folder)
    try:
        rows = [[lesson.name, _hand_out_one(lesson, folder, record)] for lesson in lessons]
    finally:
        _write(folder / RECORD, json.dumps(record, indent=1, sort_keys=True).encode())
    return Table(["lesson", "done"], rows)


def _hand_out_one(lesson: Path, folder: Path, record: dict[str, str]) -> str:
    content, copy = lesson.read_bytes(), folder / lesson.name
    if _is_ours(copy, record):
        return _put(content, copy, record)
    if copy.read_bytes() == content:
        record[copy.name] = _digest(content)
        return "as it was"
    offered = f"{copy.name} offered"  # the last lesson that was put beside this file
    if _digest(content) in (record.get(copy.name), record.get(offered)):
        return "yours, kept"
    beside = _free_name(copy, record)
    _put(content, beside, record)
    record[offered] = _digest(content)
    return f"yours, kept; the newer lesson is {beside.name}"


def _put(content: bytes, copy: Path, record: dict[str, str]) -> str:
    done = "refreshed" if copy.exists() else "new"
    if done == "refreshed" and copy.read_bytes() == content:
        return "as it was"
    _write(copy, content)
    record[copy.name] = _digest(content)
    return done


def _is_ours(copy: Path, record: dict[str, str]) -> bool:
    """Say whether writing `copy` loses nothing: it is missing, or still what was handed out."""
    return not copy.exists() or _digest(copy.read_bytes()) == record.get(copy.name)


def _free_name(copy: Path, record: dict[str, str]) -> Path:
    name, number = f"{copy.stem}-{__version__}", 1
    while not _is_ours(beside := copy.with_name(f"{name}{copy.suffix}"), record):
        number += 1
        name = f"{copy.stem}-{__version__}-{number}"
    return beside


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read_record(folder: Path) -> dict[str, str]:
    try:
        record = json.loads((folder / RECORD).read_bytes())
    except (FileNotFoundError, ValueError):  # none yet, or damaged: then nothing counts as ours
        return {}
    return record if isinstance(record, dict) else {}


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, also if the disk is full or the power fails."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
