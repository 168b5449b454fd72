"""From the symbols of a pickle to what a checkpoint holds: parts and tensors."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ftlab.checkpoints.info import Part, TensorInfo

from .bounds import DEPTH, EXPANDED, THINGS, Broken, too_large
from .symbols import Call, Name, Persistent, children, lookup, pairs, sequence, short

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


def read_content(root: Any, inner: dict[int, Storage] | None = None) -> Content:
    """Return what the root of a pickle holds."""
    content = Content(inner=inner or {})
    _Walk(content).run(root)
    return content


class _Walk:
    """Go through all that a pickle describes, each thing as often as it is referred to, up to a limit."""

    def __init__(self, content: Content) -> None:
        self.content = content
        self.left = THINGS

    def run(self, root: Any) -> None:
        entries = pairs(root)
        kind = _kind_of("", root)
        if kind != "other" or entries is None:
            self.part((), kind, root)
            return
        for key, value in entries:
            self.entry((str(key) if isinstance(key, (str, int)) else short(key, 20),), value)

    def entry(self, keys: tuple[str, ...], value: Any) -> None:
        """Note one entry of a dictionary that is no state_dict itself; go into it if it is another of those."""
        kind = _kind_of(keys[-1], value)
        if kind == "other" and pairs(value) and len(keys) < 6 and _holds_model(value):
            for key, inside in pairs(value) or []:
                if isinstance(key, str):
                    self.entry((*keys, key), inside)
            return
        self.part(keys, kind, value)

    def part(self, keys: tuple[str, ...], kind: str, thing: Any) -> None:
        before = len(self.content.tensors)
        self.left = THINGS
        alone = self.tensor(thing, keys[:-1], keys[-1] if keys else "")
        if not alone:
            for name, inside in self.inside(thing, ()):
                self.tensor(inside, keys, ".".join(name))
        count = len(self.content.tensors) - before
        if kind == "other" and count and not alone and not keys:
            kind = "tensors"
        self.content.parts.append(Part(keys, kind, _about(thing, count, alone)))

    def inside(self, thing: Any, name: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
        """Go through everything inside that may be a tensor, with its name as a state_dict has it."""
        waiting = [(name, thing)]
        while waiting:
            name, thing = waiting.pop()
            self.left -= 1
            if self.left < 0:
                return  # a list of a million files, or something that refers to itself again and again
            if len(name) > DEPTH:
                continue
            if _is_tensor(thing):
                yield name, thing
            else:
                found = _of_module(thing) if is_module(thing) else children(thing)
                more = [((*name, str(k)) if k != "" and isinstance(k, (str, int)) else name, v) for k, v in found]
                waiting += [
                    one for one in reversed(more) if not isinstance(one[1], (str, int, float, type(None)))
                ]

    def tensor(self, thing: Any, part: tuple[str, ...], name: str) -> bool:
        """Note a tensor; return whether it is one."""
        if not _is_tensor(thing):
            return False
        try:
            found = _tensor(thing, part, name, self.content)
        except (TypeError, ValueError, IndexError):
            self.content.odd.append(name)
        else:
            self.content.tensors.append(found)
        return True


def is_module(thing: Any) -> bool:
    """Return whether it is a whole module: an object with the inner dictionaries of `nn.Module`."""
    return isinstance(thing, Call) and {"_parameters", "_modules"} <= lookup(_state(thing)).keys()


def _class_of(thing: Call) -> str:
    """Return the class of an object: protocols 0 and 1 and torch's old format name it in a roundabout way."""
    made = thing.args[0] if thing.path.endswith("._reconstructor") and thing.args else thing.made
    if isinstance(made, Persistent) and isinstance(made.id, tuple) and made.id[:1] == ("module",):
        made = made.id[1]
    return short(made)


def _state(thing: Call) -> Any:
    return thing.state[0] if isinstance(thing.state, tuple) and thing.state else thing.state


def _of_module(thing: Call) -> Iterator[tuple[Any, Any]]:
    """Go through what the state_dict of a whole module would have."""
    state = lookup(_state(thing))
    passing = {one for one in walk(state.get("_non_persistent_buffers_set")) if isinstance(one, str)}
    for inner in ("_parameters", "_buffers", "_modules"):
        for key, value in pairs(state.get(inner)) or []:
            if key not in passing or inner != "_buffers":
                yield key, value


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


def _is_tensor(thing: Any) -> bool:
    return isinstance(thing, Call) and thing.path in _MAKERS


def _tensor(thing: Call, part: tuple[str, ...], name: str, content: Content) -> TensorInfo:
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


def _strided(thing: Call, part: tuple[str, ...], name: str, content: Content) -> TensorInfo:
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


def _without_storage(thing: Call, part: tuple[str, ...], name: str) -> TensorInfo:
    dtype, shape = (thing.args[0], thing.args[1]) if thing.path == _META else (thing.args[1], thing.args[2])
    shape, dtype = _sizes(shape), _dtype(dtype)
    return TensorInfo(name, part, shape, dtype, "meta", 0, "", kind="meta")


def _sparse(thing: Call, part: tuple[str, ...], name: str) -> TensorInfo:
    given = thing.args[1]
    values = storage_of(given[1].args[0])
    if values is None:
        raise TypeError("no storage")
    shape = _sizes(given[2])
    return TensorInfo(name, part, shape, values.dtype, values.device, values.bytes, "", kind="sparse")


def _array(thing: Call, part: tuple[str, ...], name: str, content: Content) -> TensorInfo:
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


_SCHEDULER = {"last_epoch", "_step_count"}
_COUNTERS = ("epoch", "step", "iter", "iteration", "global_step", "batch", "n_averaged")
_RANDOM = ("rng", "random", "seed")


def _kind_of(key: str, thing: Any) -> str:
    """Return what an entry is, by what is in it; its own name decides only for plain numbers."""
    if is_module(thing):
        return "model"
    found = lookup(thing)
    if {"state", "param_groups"} <= found.keys():
        return "optimizer"
    if found.keys() >= _SCHEDULER:
        return "scheduler"
    if {"growth_factor", "_growth_tracker"} <= found.keys():
        return "scaler"
    if any(word in key.lower() for word in _RANDOM):
        return "random state"
    if _is_state(found) and not any(_is_state(lookup(value)) or is_module(value) for value in found.values()):
        return "model"
    if isinstance(thing, (int, float)) and any(word in key.lower() for word in _COUNTERS):
        return "epoch"
    return "other"


def _is_state(found: dict[str, Any]) -> bool:
    """Return whether a dictionary is mostly tensors, as a state_dict is."""
    return bool(found) and 2 * sum(_is_tensor(value) for value in found.values()) >= len(found)


def _holds_model(thing: Any) -> bool:
    """Return whether a state_dict or a module is in a dictionary, at most three levels down."""
    level = [thing]
    for _ in range(3):
        level = [value for one in level for value in lookup(one).values()][:10_000]
        if any(_kind_of("", one) == "model" for one in level):
            return True
    return False


def _about(thing: Any, count: int, alone: bool) -> str:
    if alone:
        return "a tensor"
    if isinstance(thing, Call) and is_module(thing):
        return f"a whole {_class_of(thing)} with {count:,} tensors"
    if count:
        return f"{count:,} tensors"
    inside = pairs(thing)
    if inside:
        return f"{len(inside):,} entries: {', '.join(short(key, 20) for key, _ in inside[:4])}"
    return short(thing)


def refused(content: Content, size: int) -> Broken | None:
    """Return what is wrong with tensors that are not as torch writes them, or None."""
    claimed = sum(tensor.bytes for tensor in content.tensors)
    if claimed > EXPANDED and claimed > 100 * size:
        return too_large(f"the tensors claim {claimed:,} bytes, out of a file of {size:,}")
    if not content.odd:
        return None
    names = ", ".join(map(repr, content.odd[:3]))
    return Broken(
        "damaged",
        f"{len(content.odd)} tensors do not fit their numbers: {names}",
        "The file has been changed or was written wrongly: their shapes claim more than there is. Do not use it.",
    )


def version_of(root: Any) -> str:
    """Return the version of torch, where a file says it: no format has a place for it, some programs write it."""
    found = lookup(root)
    for key in ("torch_version", "pytorch_version", "torch", "pytorch"):
        if isinstance(found.get(key), str):
            return found[key][:40]
    return ""


def walk(root: Any) -> Iterator[Any]:
    """Go through everything that a pickle describes, each container once."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        thing = waiting.pop()
        yield thing
        if (isinstance(thing, (list, tuple, Call)) or pairs(thing)) and id(thing) not in seen:
            seen.add(id(thing))
            waiting += [value for _, value in children(thing)]
