"""A file that is replaced whole: at every moment there is the old one or the new one, never a half."""

import os
import secrets
import shutil
from contextlib import suppress
from glob import escape
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be deleted anyway
    fcntl = None


class NewFile:
    """Write beside `path`, under a hidden name; `put_in_place` makes it `path` in one step.

    The trap: `torch.save(state, path)` empties the old file first. A crash, a full disk or Ctrl-C in the next
    second, and both the old and the new checkpoint are gone.

    If anything goes wrong inside the `with`, what was written is removed and the old file is as it was. A process
    that is killed cannot remove anything: its half file stays, under the hidden name, until the next `NewFile`
    for the same path. Such litter is told from a file that somebody is writing now by a lock.

    Args:
        path: Where the file will be. A link is followed, so that it stays a link.

    Raises:
        OSError: The folder is not there or not writable, or the disk is full. The old file is as it was.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "note.txt")
        >>> _ = path.write_text("old")
        >>> with NewFile(path) as file:
        ...     _ = file.write(b"new")
        ...     print(path.read_text())
        ...     file.put_in_place()
        old
        >>> path.read_text()
        'new'
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.target = Path(os.path.realpath(path))
        folder = self.target.parent
        if not folder.is_dir():
            raise FileNotFoundError(
                f"there is no folder {str(folder)!r}; make it first, with mkdir(parents=True)"
            )
        if self.target.is_dir():
            raise IsADirectoryError(f"{str(path)!r} is a folder; give the name of a file in it")
        _sweep(self.target)
        try:
            self.part, self._file = _open_part(self.target)
        except OSError as error:
            raise type(error)(f"nothing can be written into {str(folder)!r} ({error.strerror})") from error
        self._trouble: OSError | None = None

    def __enter__(self) -> "NewFile":
        return self

    def write(self, data: bytes) -> int:
        """Append bytes; `torch.save` calls this."""
        try:
            return self._file.write(data)
        except OSError as error:
            self._trouble = error  # torch.save would turn it into "unexpected pos 704 vs 598"
            raise

    def flush(self) -> None:
        """Hand everything over to the system and wait until it is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def put_in_place(self) -> None:
        """Make the file what is found under `path`; from this moment on it is the new one, on disk too."""
        self.flush()
        if self.target.exists():
            shutil.copymode(self.target, self.part)
        if fcntl is None:
            self._file.close()  # Windows does not rename an open file
        os.replace(self.part, self.target)  # noqa: PTH105 - the one call that is atomic on every system
        _sync_folder(self.target.parent)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        with suppress(OSError):  # on a full disk closing fails once more
            self._file.close()
        self.part.unlink(missing_ok=True)  # not there any more if it was put in place
        trouble = error if isinstance(error, OSError) else self._trouble
        if trouble is not None:
            old = "the old file is as it was" if self.target.exists() else "there is no file"
            reason = trouble.strerror or trouble
            raise OSError(trouble.errno, f"{self.target} could not be written: {reason}; {old}") from error


def _open_part(target: Path):
    while True:
        part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        file = part.open("xb")
        if _lock(file) is not False and part.exists():  # between these two lines somebody else may have swept
            return part, file
        file.close()


def _sweep(target: Path) -> None:
    """Remove what killed processes left behind."""
    for litter in target.parent.glob(f".{escape(target.name)}.*.part"):
        with suppress(OSError), litter.open("rb") as file:
            if _lock(file) or fcntl is None:
                litter.unlink()


def _lock(file) -> bool | None:
    """Lock a file as long as it is open; False if somebody has, None if there are no locks here."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


def _sync_folder(folder: Path) -> None:
    """Write the folder itself to disk: the new name is in it."""
    with suppress(OSError):  # not every system opens a folder
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
