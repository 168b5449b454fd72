"""The calls that make tensors, as torch and numpy write them: which tensor each would make, of what numbers."""

import math
from dataclasses import dataclass, field
from typing import Any

from ftlab.checkpoints.info import Part, TensorInfo

from .bounds import DEPTH
from .symbols import Call, Name, Persistent, sequence

# Bytes of an element. What torch packs, such as two numbers of 4 bits in a byte, has the size of the byte.
SIZES = {
    **dict.fromkeys(
        ["uint8", "int8", "bool", "qint8", "quint8", "quint4x2", "quint2x4", "float8_e4m3fn", "float8_e5m2"], 1
    ),
    **dict.fromkeys(["float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2", "bits8"], 1),
    **dict.fromkeys(["int16", "uint16", "float16", "bfloat16", "bits16"], 2),
    **dict.fromkeys(["int32", "uint32", "float32", "qint32", "complex32"], 4),
    **dict.fromkeys(["int64", "uint64", "float64", "complex64"], 8),
    "complex128": 16,
}
_STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64",
    "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool",
    "ComplexFloat": "complex64", "ComplexDouble": "complex128",
    "QInt8": "qint8", "QUInt8": "quint8", "QInt32": "qint32",
    "QUInt4x2": "quint4x2", "QUInt2x4": "quint2x4", "Untyped": "uint8",
}  # fmt: skip


@dataclass(frozen=True)
class Storage:
    """The numbers that a persistent id refers to."""

    key: str
    dtype: str
    device: str
    count: int  # elements of dtype

    @property
    def bytes(self) -> int:
        """How many bytes they take."""
        return self.count * SIZES.get(self.dtype, 1)


@dataclass
class Content:
    """Parts, tensors and storages of one checkpoint."""

    parts: list[Part] = field(default_factory=list)
    tensors: list[TensorInfo] = field(default_factory=list)
    storages: dict[str, Storage] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)  # what is not as torch writes it
    inner: dict[int, Storage] = field(default_factory=dict)  # storages in archives inside the pickle, by id
    arrays: dict[str, Any] = field(default_factory=dict)  # the bytes of numpy's arrays, as symbols


def storage_of(thing: Any) -> Storage | None:
    """Return what a persistent id of torch refers to; None if it is not as torch writes it."""
    given = thing.id if isinstance(thing, Persistent) else None
    if not isinstance(given, tuple) or len(given) < 5 or given[0] != "storage" or not isinstance(given[1], Name):
        return None
    key, device, count = given[2:5]
    name = given[1].path.rpartition(".")[2].removesuffix("Storage")
    if not isinstance(key, (str, int)) or not isinstance(device, str) or not _is_size(count):
        return None
    return Storage(str(key), _STORAGES.get(name, "uint8"), device, count)


_PASSED_ON = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
_STRIDED = {"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3"}
_FROM_TYPE = "torch._tensor._rebuild_from_type_v2"
_QUANTISED = "torch._utils._rebuild_qtensor"
_META = "torch._utils._rebuild_meta_tensor_no_storage"
_SPARSE = "torch._utils._rebuild_sparse_tensor"
_WRAPPER = "torch._utils._rebuild_wrapper_subclass"
_ARRAYS = {f"numpy.{inside}.multiarray._reconstruct" for inside in ("core", "_core")}
_BUFFERS = {f"numpy.{inside}.numeric._frombuffer" for inside in ("core", "_core")}  # protocol 5
_MAKERS = _PASSED_ON | _STRIDED | {_FROM_TYPE, _QUANTISED, _META, _SPARSE, _WRAPPER} | _ARRAYS | _BUFFERS


def is_tensor(thing: Any) -> bool:
    """Return whether it is a call that makes a tensor."""
    return isinstance(thing, Call) and thing.path in _MAKERS


def tensor_of(thing: Call, part: tuple[str | int, ...], name: str, content: Content) -> TensorInfo:
    """Return what a call would make; raise an error of Python's if its arguments are not as torch writes them."""
    for _ in range(DEPTH):
        if thing.path in _PASSED_ON:
            thing = thing.args[0]
        elif thing.path == _FROM_TYPE:
            thing = Call(thing.args[0], thing.args[2])
        else:
            break
    if not isinstance(thing, Call):
        raise TypeError("no tensor")
    if thing.path in _ARRAYS | _BUFFERS:
        return _array(thing, part, name, content)
    if thing.path in (_META, _WRAPPER):
        return _without_storage(thing, part, name)
    if thing.path == _SPARSE:
        return _sparse(thing, part, name)
    return _strided(thing, part, name, content)


def _strided(thing: Call, part: tuple[str | int, ...], name: str, content: Content) -> TensorInfo:
    storage = storage_of(thing.args[0]) or content.inner.get(id(thing.args[0]))
    if storage is None or thing.path not in _STRIDED | {_QUANTISED}:
        raise TypeError("no storage")
    content.storages[storage.key] = storage
    offset, shape, stride = thing.args[1], _sizes(thing.args[2]), _sizes(thing.args[3])
    dtype = storage.dtype
    if thing.path.endswith("_v3"):
        dtype = _dtype(thing.args[6])
    if not _is_size(offset) or len(shape) != len(stride):
        raise ValueError("no place in its storage")
    size = SIZES.get(dtype, 1)
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) + 1
    if 0 not in shape and last * size > storage.bytes:
        raise ValueError("beyond the end of its storage")
    kind = "quantised" if thing.path == _QUANTISED else "dense"
    count = math.prod(shape) * size
    return TensorInfo(name, part, shape, dtype, storage.device, count, storage.key, offset, stride, kind)


def _without_storage(thing: Call, part: tuple[str | int, ...], name: str) -> TensorInfo:
    dtype, shape = (thing.args[0], thing.args[1]) if thing.path == _META else (thing.args[1], thing.args[2])
    shape, dtype = _sizes(shape), _dtype(dtype)
    return TensorInfo(name, part, shape, dtype, "meta", 0, "", kind="meta")


def _sparse(thing: Call, part: tuple[str | int, ...], name: str) -> TensorInfo:
    given = list(thing.args[1])
    if isinstance(given[-1], bool):  # whether it is coalesced: of the layout with coordinates
        given.pop()
    values = storage_of(given[-2].args[0])
    if values is None:
        raise TypeError("no storage")
    shape = _sizes(given[-1])
    return TensorInfo(name, part, shape, values.dtype, values.device, values.bytes, "", kind="sparse")


def _array(thing: Call, part: tuple[str | int, ...], name: str, content: Content) -> TensorInfo:
    """Return numpy's array: its state is (version, shape, dtype, whether in Fortran's order, bytes)."""
    if thing.path in _BUFFERS:
        data, kind, shape, order = thing.args
        data, fortran = data.args[0] if isinstance(data, Call) and len(data.args) == 1 else data, order == "F"
    else:
        _, shape, kind, fortran, data = thing.state
    letters = kind.args[0]
    dtypes = {"f": "float", "i": "int", "u": "uint", "b": "bool"}
    bits = "" if letters[0] == "b" else str(8 * int(letters[1:]))
    dtype, shape = dtypes.get(letters[0], "object") + bits, _sizes(shape)
    steps = tuple(math.prod(shape[:n] if fortran else shape[n + 1 :]) for n in range(len(shape)))
    key = f"array {len(content.arrays)}"
    content.arrays[key] = data
    size = math.prod(shape) * SIZES.get(dtype, 8)
    return TensorInfo(name, part, shape, dtype, "numpy", size, key, 0, steps, "array")


def _sizes(thing: Any) -> tuple[int, ...]:
    found = sequence(thing)
    if found is None or len(found) > DEPTH or not all(_is_size(one) for one in found):
        raise TypeError("no sizes")
    return tuple(found)


def _is_size(thing: Any) -> bool:
    return isinstance(thing, int) and not isinstance(thing, bool) and 0 <= thing < 1 << 62


def _dtype(thing: Any) -> str:
    if not isinstance(thing, Name):
        raise TypeError("no dtype")
    return thing.path.removeprefix("torch.")
