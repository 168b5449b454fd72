"""The zip format, which `torch.save` writes since torch 1.6: a pickle, and a member for each storage."""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ftlab.checkpoints.info import CheckpointInfo, GlobalInfo, Place

from .bounds import DIRECTORY, EXPANDED, Broken, Window, damaged, too_large
from .makers import Content
from .notes import note_content, note_names, raise_rest
from .pickles import read_pickle
from .verdicts import Verdict

PICKLE = 256 << 20  # bytes; the pickle of a checkpoint has a few hundred for each tensor
_CUT = (
    "The end of the file is missing: a download or a copy was broken off, or the disk was full. "
    "A zip file has its table of contents at the end. Get the file again."
)


def read_archive(file: BinaryIO, info: CheckpointInfo, checksums: bool) -> None:
    """Fill `info` from a zip file.

    Raises:
        Broken: It cannot be read.
    """
    archive = _open(file, info)
    members = {member.filename: member for member in archive.infolist()}
    inside = _pickle_name(members)
    info.format = "TorchScript" if _codes(members) else "torch zip"
    window = _window(file, archive, members[inside], info)
    pickle = read_pickle(window)
    note_names(info, pickle)
    for code in _codes(members):
        info.globals.append(GlobalInfo(code, Verdict.STRANGER, "is code in TorchScript that comes with the file"))
    content = note_content(info, pickle, window.file)
    folder = inside.rpartition("/")[0]
    first = f"{inside.partition('/')[0]}/"
    info.outside = [name for name in members if not name.startswith(first)] if folder == first[:-1] else [inside]
    _place(file, info, content, members, folder)
    if checksums and info.whole:
        _check(archive, info)
    raise_rest(pickle, content, info)


def _open(file: BinaryIO, info: CheckpointInfo) -> zipfile.ZipFile:
    """Open the archive after a look at how long it says that its table of contents is."""
    end = _end(file, info.size)
    if end is None:
        raise Broken("truncated", "the file begins like a zip file, and its end is not there", _CUT)
    if end > min(DIRECTORY, info.size):
        raise too_large(f"the file announces a table of contents of {end:,} bytes")
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, struct.error, OverflowError) as error:
        raise damaged(f"the table of contents of the zip file cannot be read ({error})") from None
    unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > EXPANDED and unpacked > 20 * info.size:  # numbers shrink by little
        raise too_large(f"the file has {info.size:,} bytes, and what is packed in it claims {unpacked:,}")
    first = min((member.header_offset for member in archive.infolist()), default=0)
    if first < 0:
        raise damaged(f"the table of contents of the zip file is {-first:,} bytes too far from its end")
    if first > 0 and _begins_with_zip(file):
        raise Broken(
            "dcp-shard",
            f"the file is several archives one after the other; the last one begins at byte {first:,}",
            "It is one file of a folder that torch.distributed.checkpoint wrote. Which tensor is where, only "
            "the file .metadata of that folder says: get the whole folder, and give its path.",
        )
    return archive


def _end(file: BinaryIO, size: int) -> int | None:
    """Return the bytes of the table of contents as the end of the file announces them; None without an end."""
    room = min(size, (1 << 16) + 22)
    file.seek(size - room)
    tail = file.read(room)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        return None
    announced = struct.unpack_from("<L", tail, at + 12)[0]
    if announced == 0xFFFFFFFF:
        large = tail.rfind(b"PK\x06\x06")
        return struct.unpack_from("<Q", tail, large + 40)[0] if 0 <= large <= len(tail) - 56 else None
    return announced


def _begins_with_zip(file: BinaryIO) -> bool:
    file.seek(0)
    return file.read(4) == b"PK\x03\x04"


def _pickle_name(members: dict[str, zipfile.ZipInfo]) -> str:
    found = sorted(
        (name for name in members if name.rpartition("/")[2] == "data.pkl"), key=lambda n: n.count("/")
    )
    if found and (found[0].count("/") <= 1 or len(found) == 1):
        return found[0]
    if any(name.endswith("/models/model.json") for name in members):
        raise Broken(
            "exported",
            "the file is a program of torch.export, a .pt2",
            "It is opened with torch.export.load(path), which gives the program; its .state_dict has the "
            "tensors. Save that with torch.save to load it into a model.",
        )
    if members and all(name.endswith(".npy") for name in members):
        raise Broken(
            "foreign",
            f"the file is an archive of numpy (.npz) with {len(members)} arrays, such as {next(iter(members))!r}",
            "state = {key: torch.from_numpy(value) for key, value in numpy.load(path).items()} reads it.",
        )
    names = ", ".join(list(members)[:3])
    inner = [name for name in members if name.endswith((".pt", ".pth", ".bin", ".ckpt", ".safetensors"))]
    if inner:
        raise Broken(
            "packed",
            f"the file is a zip file with {', '.join(inner[:3])} in it",
            "The checkpoint was packed once more. Unpack it first: python -m zipfile -e FILE FOLDER",
        )
    raise Broken(
        "foreign",
        f"the file is a zip file, but none that torch.save wrote; it has {names or 'nothing'} in it",
        "It is an archive of files, or the format of another program. Find the checkpoint in it.",
    )


def _codes(members: dict[str, zipfile.ZipInfo]) -> list[str]:
    return [name for name in members if "/code/" in f"/{name}" and name.endswith(".py")][:20]


def _window(file: BinaryIO, archive: zipfile.ZipFile, member: zipfile.ZipInfo, info: CheckpointInfo) -> Window:
    """Return the content of a small member; torch packs without compressing, others may compress."""
    if member.compress_type == zipfile.ZIP_STORED:
        start = _start(file, member, info.size)
        return Window(file, start, start + member.file_size)
    try:
        with archive.open(member) as stream:
            data = stream.read(PICKLE + 1)
    except (
        zipfile.BadZipFile,
        zlib.error,
        OSError,
        EOFError,
        ValueError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise damaged(f"{member.filename} cannot be unpacked ({error})") from None
    if len(data) > PICKLE:
        raise too_large(f"{member.filename} unpacks to more than {PICKLE:,} bytes")
    return Window(io.BytesIO(data), 0, len(data))


def _start(file: BinaryIO, member: zipfile.ZipInfo, size: int) -> int:
    """Return where the bytes of a member begin: behind its own header, which must agree with the table."""
    file.seek(member.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise damaged(f"{member.filename} is not where the table of contents says")
    name, extra = struct.unpack_from("<HH", header, 26)
    written = file.read(name).decode("utf-8", "replace")
    start = member.header_offset + 30 + name + extra
    if written != member.orig_filename:
        raise damaged(f"where {member.filename} should be there is {written[:80]!r}")
    if member.flag_bits & 1:
        raise damaged(f"{member.filename} is encrypted")
    if start + member.compress_size > size or member.compress_size != member.file_size:
        raise damaged(f"{member.filename} announces {member.file_size:,} bytes, which are not there")
    return start


def _place(
    file: BinaryIO, info: CheckpointInfo, content: Content, members: dict[str, zipfile.ZipInfo], folder: str
) -> None:
    """Note where each storage is, and refuse the file if one is missing or has another size."""
    for storage in content.storages.values():
        name = f"{folder}/data/{storage.key}" if folder else f"data/{storage.key}"
        member = members.get(name)
        if member is None:
            raise damaged(f"the numbers of {_owner(info, storage.key)!r}, {name}, are not in the file")
        if member.file_size != storage.bytes:
            raise damaged(
                f"{_owner(info, storage.key)!r} needs {storage.bytes:,} bytes, {name} has {member.file_size:,}"
            )
        if member.compress_type == zipfile.ZIP_STORED:
            start = _start(file, member, info.size)
            info.places[storage.key] = Place(info.path, start, member.file_size)


def _owner(info: CheckpointInfo, key: str) -> str:
    return next((tensor.key for tensor in info.tensors if tensor.storage == key), key)


def _check(archive: zipfile.ZipFile, info: CheckpointInfo) -> None:
    """Read every member and compare its checksum; torch.load does not."""
    for name in _bad_members(archive):
        owner = f" ({_owner(info, name.rpartition('/')[2])!r})" if "/data/" in name else ""
        raise damaged(f"{name}{owner} has been changed: its checksum is not the one that was written with it")


def _bad_members(archive: zipfile.ZipFile) -> Iterator[str]:
    for member in archive.infolist():
        if member.CRC == 0:  # torch.serialization.set_crc32_options(False) writes none
            continue
        try:
            with archive.open(member) as stream:
                while stream.read(1 << 20):
                    pass
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError):
            yield member.filename


def is_zip(path: Path, head: bytes) -> bool:
    """Return whether a file begins like a zip file."""
    return head[:4] in (b"PK\x03\x04", b"PK\x05\x06")
