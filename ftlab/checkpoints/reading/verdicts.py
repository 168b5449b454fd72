"""What may be thought of a name that a pickle asks for: a list of the good ones, all others are strangers.

Loading a pickle imports each module it names and calls what it likes there, before anybody sees a tensor. So the
question is not which names are bad: there is no end of them. Well-known bad ones only get a better sentence.
"""

from enum import StrEnum


class Verdict(StrEnum):
    """What loading a name would mean; only PLAIN is accepted by `torch.load` as it is."""

    PLAIN = "plain"  # on PyTorch's own list of what a checkpoint may contain
    DATA = "data"  # harmless, but not on that list: a date, a path, numpy's numbers
    LIBRARY = "library"  # a class of torch or torchvision: a whole object was saved
    STRANGER = "stranger"  # code of a package or program that nobody here knows
    KNOWN_BAD = "known bad"  # runs commands, opens files or networks, or calls anything else


DANGEROUS = {Verdict.STRANGER, Verdict.KNOWN_BAD}

_BITS = "float16 float32 float64 bfloat16 bool complex32 complex64 complex128 bcomplex32"
_FLOAT8 = "float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu float4_e2m1fn_x2"
_PLAIN = {
    "_codecs.encode",
    "builtins.bytearray",
    "builtins.complex",
    "builtins.set",
    "collections.Counter",
    "collections.OrderedDict",
    "torch.Size",
    "torch.Tensor",
    "torch.device",
    "torch.nn.parameter.Parameter",
    "torch.serialization._get_layout",
    "torch.storage.TypedStorage",
    "torch.storage.UntypedStorage",
    "torch._tensor._rebuild_from_type_v2",
    *(
        f"torch._utils._rebuild_{kind}"
        for kind in [
            "device_tensor_from_cpu_tensor",
            "device_tensor_from_numpy",
            "meta_tensor_no_storage",
            "parameter",
            "parameter_with_state",
            "qtensor",
            "sparse_tensor",
            "tensor",
            "tensor_v2",
            "tensor_v3",
            "wrapper_subclass",
        ]
    ),
    *(f"torch.{name}" for name in f"{_BITS} {_FLOAT8}".split()),
    *(f"torch.{sign}int{bits}" for sign in ("", "u") for bits in (1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64)),
    *(f"torch.bits{name}" for name in ("8", "16", "1x8", "2x4", "4x2")),
    *(f"torch.{name}" for name in ("qint8", "qint32", "quint8", "quint2x4", "quint4x2")),
    *(f"torch.per_{per}_{kind}" for per in ("tensor", "channel") for kind in ("affine", "symmetric")),
    "torch.per_channel_affine_float_qparams",
    *(
        f"torch.{place}{kind}{what}"
        for place in ("", "cuda.", "sparse.", "cuda.sparse.")
        for kind in ("BFloat16", "Bool", "Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short")
        for what in ("Tensor", "Storage")
        if not (place.endswith("sparse.") and (what == "Storage" or kind == "Bool"))
    ),
    *(f"torch.{place}Complex{kind}Storage" for place in ("", "cuda.") for kind in ("Double", "Float")),
    *(f"torch.{kind}Storage" for kind in ("QInt32", "QInt8", "QUInt2x4", "QUInt4x2", "QUInt8")),
}
_DATA = {
    "argparse.Namespace",
    "builtins.frozenset",
    "builtins.range",
    "builtins.xrange",
    "builtins.slice",
    "builtins.dict",
    "builtins.list",
    "builtins.tuple",
    "builtins.int",
    "builtins.float",
    "builtins.bool",
    "builtins.str",
    "builtins.bytes",
    "builtins.object",
    "collections.defaultdict",
    "collections.deque",
    "copyreg._reconstructor",  # makes an object of a class that is named beside it
    "datetime.date",
    "datetime.datetime",
    "datetime.time",
    "datetime.timedelta",
    "datetime.timezone",
    "decimal.Decimal",
    "fractions.Fraction",
    "types.SimpleNamespace",
    "uuid.UUID",
    *(
        f"pathlib.{kind}{name}"
        for kind in ("", "Posix", "Windows", "Pure", "PurePosix", "PureWindows")
        for name in ["Path"]
    ),
    *(f"pathlib._local.{kind}Path" for kind in ("", "Posix", "Windows", "PurePosix", "PureWindows")),
    *(
        f"numpy.{inside}.{name}"
        for inside in ("core.multiarray", "_core.multiarray")
        for name in ("_reconstruct", "scalar")
    ),
    "numpy.ndarray",
    "numpy.dtype",
    "numpy.core.numeric._frombuffer",
    "numpy._core.numeric._frombuffer",
    *(
        f"numpy.{name}"
        for name in [
            "bool",
            "bool_",
            "int8",
            "int16",
            "int32",
            "int64",
            "uint8",
            "uint16",
            "uint32",
            "uint64",
            "float16",
            "float32",
            "float64",
        ]
    ),
    *(
        f"numpy.dtypes.{name}DType"
        for name in ["Bool", "Int8", "Int16", "Int32", "Int64", "UInt8", "Float16", "Float32", "Float64"]
    ),
}
_OLD = {"__builtin__": "builtins", "copy_reg": "copyreg", "cPickle": "pickle"}  # Python 2 called them so

# A class of these modules, whose own code is all that loading it runs: a name with a capital letter and no dot.
_LIBRARY = (
    "torch.nn.modules.",
    "torch.nn.parameter.",
    "torch.optim.",
    "torch.distributed.checkpoint.metadata.",
    "torch.distributed.checkpoint.filesystem._StorageInfo",
    "torch.distributed.checkpoint.planner.",
    "torchvision.models.",
    "torchvision.ops.",
)
_FUNCTIONS = {
    *(
        f"torch.nn.functional.{name}"
        for name in ["relu", "gelu", "silu", "leaky_relu", "elu", "softmax", "hardswish"]
    ),
    *(f"torch._C._nn.{name}" for name in ("gelu", "silu")),
    # what torch.distributed.tensor puts onto PyTorch's list of good names when it is imported
    *(
        f"torch.distributed.{name}"
        for name in [
            "device_mesh.DeviceMesh",
            "_mesh_layout._MeshLayout",
            "_mesh_layout._FlatLayout",
            "tensor.DTensor",
            "tensor._dtensor_spec.DTensorSpec",
            "tensor._dtensor_spec.TensorMeta",
            "tensor._dtensor_spec.ShardOrderEntry",
            "tensor.placement_types.Partial",
            "tensor.placement_types.Replicate",
            "tensor.placement_types.Shard",
            "tensor.placement_types._StridedShard",
        ]
    ),
    "torch.storage._load_from_bytes",  # loads an archive from inside the file; that one is looked into as well
    "torch.random.Generator",
    "torch._C.Generator",
    "torch.relu",
    "torch.strided",
    "torch.contiguous_format",
    "torch.preserve_format",
    "torch.channels_last",
}

_BAD = {
    "os": "runs commands and changes files",
    "posix": "runs commands and changes files",
    "nt": "runs commands and changes files",
    "subprocess": "runs commands",
    "pty": "runs commands",
    "commands": "runs commands",
    "sys": "reaches every module that is loaded",
    "builtins": "runs code or reaches anything by its name",
    "runpy": "runs a program",
    "code": "runs code",
    "codeop": "runs code",
    "bdb": "runs code",
    "pdb": "runs code",
    "timeit": "runs code",
    "cProfile": "runs code",
    "profile": "runs code",
    "doctest": "runs code",
    "trace": "runs code",
    "types": "makes functions out of bytes",
    "marshal": "makes code out of bytes",
    "importlib": "imports any module",
    "imp": "imports any module",
    "pkgutil": "imports any module",
    "zipimport": "imports any module",
    "pip": "installs packages",
    "ensurepip": "installs packages",
    "setuptools": "runs programs of packages",
    "distutils": "runs programs of packages",
    "shutil": "copies and deletes files",
    "pathlib": "writes and deletes files",
    "tempfile": "writes files",
    "io": "opens files",
    "_io": "opens files",
    "socket": "opens a network connection",
    "ssl": "opens a network connection",
    "http": "opens a network connection",
    "urllib": "fetches from the network",
    "ftplib": "opens a network connection",
    "smtplib": "opens a network connection",
    "requests": "fetches from the network",
    "webbrowser": "starts a program",
    "ctypes": "reaches the memory of the process",
    "_ctypes": "reaches the memory of the process",
    "signal": "ends processes",
    "multiprocessing": "starts processes",
    "threading": "runs code in a thread",
    "asyncio": "runs commands",
    "concurrent": "runs code elsewhere",
    "operator": "calls or reaches anything by its name",
    "_operator": "calls or reaches anything by its name",
    "functools": "calls anything",
    "_functools": "calls anything",
    "itertools": "calls anything",
    "copyreg": "changes how objects are loaded",
    "pickle": "loads another pickle, unguarded",
    "_pickle": "loads another pickle, unguarded",
    "dill": "loads another pickle, unguarded",
    "cloudpickle": "makes functions out of bytes",
    "joblib": "loads another pickle, unguarded",
    "shelve": "loads another pickle, unguarded",
    "logging": "opens files and networks, and calls what its configuration names",
    "inspect": "reaches the code that is running",
    "gc": "reaches every object that there is",
    "atexit": "runs code when the program ends",
    "weakref": "runs code when an object goes",
    "sqlite3": "opens files and loads libraries",
    "numpy": "has functions that run code or open files",
    "torch": "has functions that load files and run code",
    "__torch__": "is code that comes with the file, in TorchScript",
    "__main__": "is code of the program that saved it",
}


def verdict(path: str) -> tuple[Verdict, str]:
    """Return what to think of a name, and why in a few words.

    Example:
        >>> verdict("torch._utils._rebuild_tensor_v2")[0].value, verdict("posix.system")[1]
        ('plain', 'runs commands and changes files')
    """
    package, _, rest = path.partition(".")
    package = _OLD.get(package, package)
    path = f"{package}.{rest}"
    if path in _PLAIN:
        return Verdict.PLAIN, "is what checkpoints are made of"
    if path in _DATA:
        return Verdict.DATA, "is harmless, but torch.load refuses it"
    if path in _FUNCTIONS or _is_library(path):
        return Verdict.LIBRARY, f"is a part of {package}"
    if package in _BAD:
        return (Verdict.STRANGER if package == "__main__" else Verdict.KNOWN_BAD), _BAD[package]
    return Verdict.STRANGER, f"is code of {package!r}: what it does is not known"


def _is_library(path: str) -> bool:
    """Return whether it is a class there; other modules, which it has imported, begin with a small letter."""
    module, _, name = path.rpartition(".")
    own = any(f"{module}.".startswith(beginning) or path == beginning for beginning in _LIBRARY)
    return own and name.lstrip("_")[:1].isupper()
