"""The sha256 of a file, in a file beside it, as `sha256sum` writes it."""

import hashlib
from pathlib import Path

from .replacing import NewFile


def sum_file(path: Path) -> Path:
    """Return where the sum of `path` stands."""
    return path.with_name(f"{path.name}.sha256")


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_sums(path: Path) -> list[str]:
    """Return the sums that `path` may have; none if there is no such file."""
    beside = sum_file(path)
    if not beside.is_file():
        return []
    return [line.split()[0].lower() for line in beside.read_text("utf-8", "replace").splitlines() if line.strip()]


def announce(path: Path, *digests: str) -> None:
    """Write the sums that `path` may have.

    Two files cannot be replaced in one step. So both sums are written first, of the old file and of the new one,
    then the file is replaced, then only the new sum is left. Whenever a crash comes, one of them is right.
    """
    with NewFile(sum_file(path)) as file:
        file.write("".join(f"{digest}  {path.name}\n" for digest in dict.fromkeys(digests)).encode())
        file.put_in_place()


def check_sum(path: Path) -> None:
    """Compare a file with the sum beside it, if there is one.

    Raises:
        ValueError: It has another.
    """
    sums = known_sums(path)
    if sums and (found := sha256_of(path)) not in sums:
        raise ValueError(
            f"{path} has sha256 {found[:16]}..., but {sum_file(path).name} says {sums[-1][:16]}...: the file was "
            "changed or damaged after it was saved. Use another copy; if you trust this one, delete the .sha256"
        )
