"""Exhibits that are damaged, or that are no checkpoints at all."""

import gzip
import io
import zipfile
from pathlib import Path

import torch

from .exhibit import State, exhibit


@exhibit("download.pt", "truncated")
def cut_short(state: State, path: Path) -> None:
    """The train went into a tunnel during the download."""
    path.write_bytes(_saved(state)[:-9_000])


@exhibit("copy.pth", "truncated")
def old_cut_short(state: State, path: Path) -> None:
    """An old file, copied onto a memory stick that was full."""
    path.write_bytes(_saved(state, old=True)[:-2_000])


@exhibit("nothing.pt", "empty")
def empty(state: State, path: Path) -> None:
    """The disk was full when it was saved."""
    path.write_bytes(b"")


@exhibit("model.pth", "html-page")
def page(state: State, path: Path) -> None:
    """Downloaded by a click on the name of the file."""
    path.write_text(
        "<!DOCTYPE html>\n<html><head><title>model.pth at main</title></head><body>Sign in</body></html>\n"
    )


@exhibit("pytorch_model.bin", "lfs-pointer")
def pointer(state: State, path: Path) -> None:
    """The repository was cloned in a second. That was surprisingly quick."""
    digits = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{digits}\nsize 440473133\n")


@exhibit("best.pt", "foreign")
def not_found(state: State, path: Path) -> None:
    """The server had no such file, and said so."""
    path.write_text("404: Not Found")


@exhibit("weights.pt.gz.pt", "foreign")
def packed(state: State, path: Path) -> None:
    """Packed for the mail, and renamed because the mail did not like the ending."""
    path.write_bytes(gzip.compress(_saved(state), mtime=0))


@exhibit("submission.pt", "packed")
def zipped(state: State, path: Path) -> None:
    """Handed in by a student as a zip file, renamed."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("work/best.pt"), _saved(state))


@exhibit("stick.pt", "damaged")
def flipped_bit(state: State, path: Path) -> None:
    """It loads without an error. Since it was on the old disk it predicts nonsense."""
    data = bytearray(_saved(state))
    place = data.index(state["neck.weight"].numpy().tobytes())
    data[place + 3] ^= 0x40
    path.write_bytes(bytes(data))


@exhibit("__0_0.distcp", "dcp-shard")
def shard(state: State, path: Path) -> None:
    """One of eight files of a large training run."""
    # torch.distributed.checkpoint writes one archive for each tensor, one after the other
    path.write_bytes(b"".join(_saved(value) for value in list(state.values())[:3]))


def _saved(thing: object, old: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(thing, stream, _use_new_zipfile_serialization=not old)
    return stream.getvalue()
