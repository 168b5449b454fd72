"""Downloads that end whole or not at all."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.request import Request, urlopen

from tqdm.auto import tqdm

CHUNK = 1 << 18  # bytes
TIMEOUT = 30.0  # seconds without a byte before the server counts as gone


def download(url: str, path: Path, *, sha256: str = "", check: Callable[[Path], object] | None = None) -> None:
    """Fetch `url` to `path`; `path` appears only when the file is whole.

    The bytes arrive in a temporary folder beside `path`. Length, hash and `check` are looked at there, and only
    then is the file moved to its place: a connection that breaks leaves nothing behind.

    Args:
        url: `http(s)://` or `file://`.
        path: Where the file will be; its folder is made.
        sha256: The hash, or the first digits of it; empty if it is not known.
        check: Called with the temporary file; whatever it raises refuses the file.

    Raises:
        OSError: The server cannot be reached, the file is not there, or what came is not what was announced.
            The message says which.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=path.parent) as folder:
        part = Path(folder, path.name)
        found = _stream(url, part)
        if not found.startswith(sha256):
            raise OSError(f"the file from {url} has sha256 {found[:16]}..., not {sha256}...; {_beginning(part)}")
        if check is not None:
            _apply(check, part, url)
        os.replace(part, path)  # noqa: PTH105 - the one call that is atomic on every system


def _stream(url: str, part: Path) -> str:
    """Write what `url` sends to `part`; return its sha256."""
    digest = hashlib.sha256()
    request = Request(url, headers={"User-Agent": "ftlab"})
    with urlopen(request, timeout=TIMEOUT) as answer, part.open("wb") as file:
        announced = int(answer.headers.get("Content-Length") or 0)
        with tqdm(total=announced or None, unit="B", unit_scale=True, desc=part.name) as bar:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                bar.update(len(chunk))
    if announced and part.stat().st_size != announced:
        raise OSError(f"the connection ended after {part.stat().st_size:,} of {announced:,} bytes of {url}")
    return digest.hexdigest()


def _apply(check: Callable[[Path], object], part: Path, url: str) -> None:
    try:
        check(part)
    except Exception as error:
        raise OSError(f"the file from {url} cannot be used ({error}); {_beginning(part)}") from error


def _beginning(part: Path) -> str:
    # A login page of the school's network is the usual suspect, and its first bytes give it away.
    with part.open("rb") as file:
        return f"it begins with {file.read(24)!r}"
