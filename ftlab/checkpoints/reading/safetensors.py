"""The safetensors format: the length of a table in JSON, the table, the numbers. It can hold no code at all.

The table is read here, and not by the library of that name: the library gives no places, and it refuses a broken
file as a whole, where a doctor has to say what is wrong with it.
"""

import json
import math
from typing import Any, BinaryIO

from ftlab.checkpoints.info import CheckpointInfo, Part, Place, TensorInfo

from .bounds import DIRECTORY, Broken, damaged, too_large
from .makers import SIZES

_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8",
    "U16": "uint16", "U32": "uint32", "U64": "uint64", "BOOL": "bool", "C64": "complex64",
}  # fmt: skip


def looks_like_safetensors(head: bytes, size: int) -> bool:
    """Return whether a file begins like one: a length, then a curly bracket."""
    return size > 8 and len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 40


def read_safetensors(file: BinaryIO, info: CheckpointInfo) -> None:
    """Fill `info` from a safetensors file.

    Raises:
        Broken: It cannot be read.
    """
    info.format = "safetensors"
    table, start = _table(file, info.size)
    about = table.pop("__metadata__", None)
    ranges = []
    for name, entry in table.items():
        tensor, first, last = _tensor(name, entry)
        if start + last > info.size:
            raise Broken(
                "truncated",
                f"{name!r} ends at byte {start + last:,}, the file at byte {info.size:,}",
                "A download or a copy was broken off, or the disk was full. Get the file again.",
            )
        info.tensors.append(tensor)
        info.places[name] = Place(info.path, start + first, last - first)
        ranges.append((first, last, name))
    _no_gaps(sorted(ranges), info.size - start)
    info.parts.append(Part((), "model", f"{len(info.tensors):,} tensors"))
    if isinstance(about, dict):
        texts = ", ".join(f"{key}={str(value)[:20]}" for key, value in list(about.items())[:4])
        info.parts.append(Part(("__metadata__",), "other", texts))


def _table(file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length > DIRECTORY:
        raise too_large(f"the file announces a table of {length:,} bytes")
    if 8 + length > size:
        raise Broken(
            "truncated",
            f"the file announces a table of {length:,} bytes, and has {size:,} in all",
            "A download or a copy was broken off, or the disk was full. Get the file again.",
        )
    try:
        table = json.loads(file.read(length))
    except (ValueError, RecursionError) as error:
        raise damaged(f"the table of the file is no JSON ({str(error)[:80]})") from None
    if not isinstance(table, dict):
        raise damaged("the table of the file is no table")
    return table, 8 + length


def _tensor(name: str, entry: Any) -> tuple[TensorInfo, int, int]:
    try:
        dtype, shape, (first, last) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise damaged(f"the entry of {name[:80]!r} is not as it should be") from None
    whole = all(isinstance(one, int) and 0 <= one < 1 << 62 for one in (first, last, *shape))
    if not whole or not isinstance(dtype, str) or len(shape) > 64:
        raise damaged(f"the entry of {name[:80]!r} is not as it should be")
    dtype = _DTYPES.get(dtype, dtype[:20])
    count = math.prod(shape) * SIZES.get(dtype, 1)
    if dtype in SIZES and last - first != count:
        raise damaged(f"{name[:80]!r} needs {count:,} bytes, the table gives it {last - first:,}")
    return TensorInfo(name, (), shape, dtype, "cpu", count, name, 0, _steps(shape)), first, last


def _steps(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[place + 1 :]) for place in range(len(shape)))


def _no_gaps(ranges: list[tuple[int, int, str]], size: int) -> None:
    """Refuse bytes that belong to no tensor or to two: the format forbids both, so that nothing can hide."""
    at = 0
    for first, last, name in ranges:
        if first != at:
            raise damaged(f"{name[:80]!r} begins at byte {first:,}, the one before it ends at byte {at:,}")
        at = last
    if at != size:
        raise damaged(f"the tensors end at byte {at:,}, the file at byte {size:,}")
