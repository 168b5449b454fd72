"""A file that survives a crash."""

import io
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from ftlab.exercises.behaviour import some
from ftlab.exercises.core import Mistake, Wrong, exercise


class _Witness:
    """Looks at a folder while it is being saved, and then breaks the saving, as a crash does."""

    def __init__(self, look: Callable[[], None], crash: bool) -> None:
        self.look, self.crash = look, crash

    def __getstate__(self):
        self.look()
        if self.crash:
            raise OSError("no space left on device")
        return {}


def check_save_whole(answer):
    """The old file while the new one is being written and after a crash, the folder, and the new file."""
    with tempfile.TemporaryDirectory() as name:
        folder, path, seen = Path(name), Path(name, "last.pt"), []
        torch.save({"epoch": 1}, path)
        old = path.read_bytes()

        def look():
            seen.append(path.read_bytes() if path.exists() else None)

        with suppress(Exception):  # it breaks in the middle: that is what is looked at
            answer({"epoch": 2, "witness": _Witness(look, crash=True)}, str(path))
        if not seen:
            raise Wrong("Nothing of the state was written.", ask="Which call writes it?")
        if not path.exists() or path.read_bytes() != old:
            text = "The disk was full in the middle of saving, and the old file was gone with the new one."
            raise Wrong(text, ask="Under which name was the new file being written?")
        _look_at_good_save(answer, folder, path)


def _look_at_good_save(answer, folder: Path, path: Path) -> None:
    seen, replaced, old = [], [], path.read_bytes()
    real = os.replace, os.rename, shutil.move

    def watch(move):
        def moved(source, target, *args, **kwargs):
            replaced.append(Path(source).parent.resolve() == folder.resolve())
            return move(source, target, *args, **kwargs)

        return moved

    def look():
        seen.append(path.exists() and path.read_bytes() == old)

    os.replace, os.rename, shutil.move = map(watch, real)
    try:
        answer(
            {
                "epoch": 3,
                "witness": _Witness(look, crash=False),
            },
            str(path),
        )
    finally:
        os.replace, os.rename, shutil.move = real
    if not path.exists() or torch.load(path, weights_only=False)["epoch"] != 3:
        raise Wrong("After a good save the file is not the new one.", ask="What puts it in its place?")
    if not all(seen):
        text = "While the new file was being written there was no whole file under the name."
        raise Wrong(text, ask="What does a reader find, who comes just then?")
    if not all(replaced):
        text = "The new file was written in another folder. That may be another disk, and then moving is copying."
        raise Wrong(text, ask="Where does renaming take one single step?")
    others = sorted(one.name for one in folder.iterdir() if one != path)
    good = [one for one in others if (folder / one).read_bytes() == path.read_bytes()]
    if good:
        raise Wrong(f"{some(good)} is left over beside the file.", ask="Was it moved, or copied?")


def _save_in_place(state, path):
    torch.save(state, path)


def _save_delete_first(state, path):
    path = Path(path)
    path.unlink()
    torch.save(state, path)


def _save_elsewhere(state, path):
    with tempfile.NamedTemporaryFile(delete=False) as file:
        torch.save(state, file)
    shutil.move(file.name, path)


def _save_then_copy(state, path):
    path = Path(path)
    new = path.with_suffix(".tmp")
    torch.save(state, new)
    shutil.copyfile(new, path)


def _save_and_forget(state, path):
    path = Path(path)
    torch.save(state, path.with_suffix(".tmp"))


def _save_backup(state, path):
    path = Path(path)
    shutil.copyfile(path, path.with_suffix(".bak"))
    torch.save(state, path)


def _save_move_old_away(state, path):
    path = Path(path)
    old = path.with_suffix(".old")
    os.replace(path, old)  # noqa: PTH105
    try:
        torch.save(state, path)
    except BaseException:
        os.replace(old, path)  # noqa: PTH105
        raise


def _save_memory(state, path):
    path = Path(path)
    file = io.BytesIO()
    torch.save(state, file)
    new = path.with_name(path.name + ".new")
    new.write_bytes(file.getvalue())
    new.replace(path)


@exercise(
    check=check_save_whole,
    broken=_save_in_place,
    hints=[
        "What does opening a file for writing do to what is in it?",
        "Write the new file under another name, and rename it when it is whole.",
        "`os.replace(new, path)` is one single step, if both are in the same folder.",
    ],
    also_right=[_save_memory],
    mistakes=[
        Mistake(_save_delete_first, says="the old file was gone"),
        Mistake(_save_backup, says="the old file was gone"),
        Mistake(_save_elsewhere, says="in another folder"),
        Mistake(_save_then_copy, says="is left over"),
        Mistake(_save_and_forget, says="is not the new one"),
        Mistake(_save_move_old_away, says="there was no whole file under the name"),
    ],
    remember="Write beside, then `os.replace`: at every moment there is a whole file under the name.",
)
def save_whole(state: dict, path: str) -> None:
    """Repair: save `state` so that a crash at any moment leaves a whole file under `path`, old or new.

    While it is being written somebody else may read the old file. Nothing shall be left over.
    """
    import os

    torch.save(state, f"{path}.new")
    os.replace(f"{path}.new", path)  # noqa: PTH105 - in one step, on every system
