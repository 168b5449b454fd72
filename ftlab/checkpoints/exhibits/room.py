"""Make the museum: all exhibits, as files in a folder."""

from os import PathLike
from pathlib import Path

import torch

from . import contents, damaged, names, pickles
from .exhibit import PLANS, Exhibit, Museum, Plan, trap
from .models import trained

SIGN = "MUSEUM.txt"
_ROOMS = [room.__name__ for room in (names, contents, pickles, damaged)]  # in the order of a visit
_TEXT = "Broken checkpoint files, made by ftlab.checkpoints.museum. Everything here may be deleted.\n"


def museum(folder: str | PathLike) -> Museum:
    """Make some thirty broken checkpoint files in a folder, each with its story.

    The files are small, and what is in them is always the same. Two hold a booby trap: loaded with
    `weights_only=False` it makes the empty file THE_TRAP_WAS_SPRUNG in the folder, and does nothing else. Random
    state is not touched.

    The trap: these files look like yours. Make them in a folder of their own.

    Args:
        folder: Is made; if it is there, it has to be empty or an earlier museum, whose files are made anew.

    Raises:
        FileExistsError: The folder has something else in it.

    Example:
        >>> import tempfile
        >>> rooms = museum(tempfile.mkdtemp())
        >>> len(rooms) >= 30, rooms.sprung, rooms["parallel"].finds
        (True, False, ('prefix',))
    """
    folder = Path(folder).expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    others = [path.name for path in folder.iterdir()]
    if others and SIGN not in others:
        raise FileExistsError(f"{folder} has {others[0]!r} in it, and is no museum; give a folder of its own")
    (folder / SIGN).write_text(_TEXT, encoding="utf-8")
    trap(folder).unlink(missing_ok=True)
    plans = sorted(PLANS, key=lambda plan: _ROOMS.index(plan.make.__module__))
    return Museum(folder, [_make(plan, folder) for plan in plans])


def _make(plan: Plan, folder: Path) -> Exhibit:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = {key: value.detach().clone() for key, value in trained().state_dict().items()}
        path = folder / plan.file
        truth = plan.make(state, path)
    return Exhibit(plan.make.__name__, path, plan.story, plan.finds, truth, plan.build)
