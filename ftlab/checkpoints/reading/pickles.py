"""A pickle read as what it is, a program, on a machine that writes down each call instead of making it.

The table of instructions is the standard library's `pickletools`. fickling, the other library for this, turns a
pickle into Python's syntax tree to judge it; it keeps all of the file in memory and does not bound what it keeps,
and it knows nothing of tensors, so that a machine like this one would be needed on top of it all the same.
"""

import pickletools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from .bounds import BYTES, MEMORY, OPERATIONS, TEXT, Broken, Window, damaged, too_large
from .symbols import Blob, Call, Mapping, Name, Persistent, short

_SIZED = {  # instruction: bytes of its length, whether it is text
    "BINBYTES": (4, False),
    "BINBYTES8": (8, False),
    "BYTEARRAY8": (8, False),
    "BINUNICODE": (4, True),
    "BINUNICODE8": (8, True),
    "BINSTRING": (4, True),
    "LONG4": (4, False),
}
_MARK = object()

# What PyTorch's safe loader knows: protocol 2. Protocols 1, 4 and 5 have other instructions, and it refuses them.
SAFE = frozenset(
    [
        "GLOBAL",
        "NEWOBJ",
        "REDUCE",
        "BUILD",
        "APPEND",
        "APPENDS",
        "SETITEM",
        "SETITEMS",
        "MARK",
        "TUPLE",
        "TUPLE1",
        "TUPLE2",
        "TUPLE3",
        "NONE",
        "NEWFALSE",
        "NEWTRUE",
        "EMPTY_TUPLE",
        "EMPTY_LIST",
        "EMPTY_DICT",
        "EMPTY_SET",
        "BININT",
        "BININT1",
        "BININT2",
        "BINFLOAT",
        "BINUNICODE",
        "SHORT_BINSTRING",
        "BINPERSID",
        "BINGET",
        "LONG_BINGET",
        "BINPUT",
        "LONG_BINPUT",
        "LONG1",
        "PROTO",
        "STOP",
    ]
)


class Pickle:
    """The result of reading one pickle: the object it describes, and every name that it asks for.

    Attributes:
        root: The object, made of symbols; None if the pickle does not come to its end.
        names: Each class or function that it asks for, with how it is used: the first call in a few words.
        persistent: References out of the pickle, in order.
        others: Instructions that PyTorch's safe loader does not know.
        broken: Why it could not be read to its end; None if it could.
    """

    def __init__(self) -> None:
        self.root: Any = None
        self.names: dict[str, str] = {}
        self.persistent: list[Persistent] = []
        self.others: set[str] = set()
        self.broken: Broken | None = None


def read_pickle(window: Window) -> Pickle:
    """Read one pickle from its first byte to its STOP; the window is left behind it."""
    result = Pickle()
    machine = _Machine(result)
    try:
        with warnings.catch_warnings():  # of Python, about a backslash in a damaged text
            warnings.simplefilter("ignore", DeprecationWarning)
            for name, argument in _instructions(window):
                if name not in SAFE:
                    result.others.add(name)
                machine.run(name, argument)
        result.root = machine.pop()
    except Broken as broken:
        result.broken = broken
    return result


def _instructions(window: Window) -> Iterator[tuple[str, Any]]:
    kept = 0
    for _ in range(OPERATIONS):
        at, code = window.at, window.read(1)
        if not code:
            raise damaged(f"the pickle ends in the middle, at byte {at:,}")
        instruction = pickletools.code2op.get(code.decode("latin-1"))
        if instruction is None:
            raise damaged(f"byte {at:,} is {code!r}, which is no instruction of a pickle")
        argument = _argument(instruction, window) if instruction.arg else None
        if isinstance(argument, (str, bytes)):
            kept += len(argument)
            if kept > MEMORY:
                raise too_large(f"the texts in the pickle are longer than {MEMORY:,} bytes")
        yield instruction.name, argument
        if instruction.name == "STOP":
            return
    raise too_large(f"the pickle has more than {OPERATIONS:,} instructions")


def _argument(instruction: pickletools.OpcodeInfo, window: Window) -> Any:
    at = window.at
    try:
        if instruction.name in _SIZED:
            return _sized(instruction.name, window)
        return instruction.arg.reader(window)
    except (ValueError, EOFError, IndexError, UnicodeError, OverflowError, MemoryError) as error:
        raise damaged(f"the pickle cannot be read at byte {at:,} ({error})") from None


def _sized(name: str, window: Window) -> Any:
    """Return a text or bytes with its length before it; of a long one only its place."""
    width, is_text = _SIZED[name]
    head = window.read(width)
    size, at = int.from_bytes(head, "little"), window.at
    if len(head) < width or size > window.end - at:
        raise damaged(f"byte {at:,} announces {size:,} bytes, {window.end - at:,} are left")
    if name == "LONG4":
        if size > TEXT:
            raise too_large(f"byte {at:,} announces a number of {size:,} bytes")
        return int.from_bytes(window.read(size), "little", signed=True)
    if size > (TEXT if is_text else BYTES):
        window.skip(size)
        return Blob(at, size, is_text)
    data = window.read(size)
    if name == "BINSTRING":
        return data.decode("latin-1")
    return data.decode("utf-8", "surrogatepass") if is_text else data


class _Machine:
    """The stack machine of the pickle module, with symbols in place of objects."""

    def __init__(self, result: Pickle) -> None:
        self.result = result
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, name: str, argument: Any) -> None:
        handler = _HANDLERS.get(name)
        if handler is not None:
            handler(self, argument)
        else:
            self.stack.append(argument)  # all other instructions push a plain value

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise damaged("the pickle takes more from its stack than it has put there")
        return self.stack.pop()

    def top(self) -> Any:
        value = self.pop()
        self.stack.append(value)
        return value

    def since_mark(self) -> list[Any]:
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                found = self.stack[place + 1 :]
                del self.stack[place:]
                return found
        raise damaged("the pickle takes more from its stack than it has put there")

    def asked(self, path: str) -> Name:
        self.result.names.setdefault(path, "")
        return Name(path)

    def call(self, made: Any, args: Any, kwargs: Any = None) -> None:
        made_now = Call(made, args, kwargs)
        if isinstance(made, Name) and not self.result.names.get(made.path):
            self.result.names[made.path] = short(made_now, 120)
        self.stack.append(made_now)


def _global(machine: _Machine, argument: str) -> None:
    machine.stack.append(machine.asked(argument.replace(" ", ".", 1)))


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine.pop(), machine.pop()
    if isinstance(name, str) and isinstance(module, str):
        machine.stack.append(machine.asked(f"{module}.{name}"))
    else:  # python refuses this, and other readers may not
        machine.stack.append(machine.asked("<a name that the pickle works out>"))


def _extension(machine: _Machine, argument: int) -> None:
    machine.stack.append(machine.asked(f"copyreg.<extension {argument}>"))


def _reduce(machine: _Machine, _: Any) -> None:
    args, made = machine.pop(), machine.pop()
    machine.call(made, args)


def _newobj_ex(machine: _Machine, _: Any) -> None:
    kwargs, args, made = machine.pop(), machine.pop(), machine.pop()
    machine.call(made, args, kwargs)


def _inst(machine: _Machine, argument: str) -> None:
    args = tuple(machine.since_mark())
    machine.call(machine.asked(argument.replace(" ", ".", 1)), args)


def _obj(machine: _Machine, _: Any) -> None:
    made, *args = machine.since_mark() or [None]
    machine.call(made, tuple(args))


def _build(machine: _Machine, _: Any) -> None:
    state, target = machine.pop(), machine.top()
    if isinstance(target, Call):
        target.state = state if target.state is None else (target.state, state)
    elif isinstance(target, Name):  # sets attributes of a class or module that is there already
        machine.asked(f"{target.path}.__dict__")


def _append(machine: _Machine, _: Any) -> None:
    value = machine.pop()
    _extend(machine.top(), [value])


def _appends(machine: _Machine, _: Any) -> None:
    values = machine.since_mark()
    _extend(machine.top(), values)


def _extend(target: Any, values: list[Any]) -> None:
    if isinstance(target, list):
        target += values
    elif isinstance(target, Call):
        target.elements += values
    else:
        raise damaged("the pickle adds elements to what is no list")


def _setitem(machine: _Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    _set(machine.top(), [key, value])


def _setitems(machine: _Machine, _: Any) -> None:
    values = machine.since_mark()
    _set(machine.top(), values)


def _set(target: Any, values: list[Any]) -> None:
    if not isinstance(target, (Mapping, Call)) or len(values) % 2:
        raise damaged("the pickle adds entries to what is no dictionary")
    target.items += list(zip(values[::2], values[1::2], strict=True))


def _dict(machine: _Machine, _: Any) -> None:
    values, made = machine.since_mark(), Mapping()
    _set(made, values)
    machine.stack.append(made)


def _tuple(count: int) -> Callable[[_Machine, Any], None]:
    def run(machine: _Machine, _: Any) -> None:
        machine.stack.append(tuple(reversed([machine.pop() for _ in range(count)])))

    return run


def _persistent(machine: _Machine, argument: Any) -> None:
    found = Persistent(argument)
    machine.result.persistent.append(found)
    machine.stack.append(found)


def _get(machine: _Machine, argument: Any) -> None:
    if argument not in machine.memo:
        raise damaged(f"the pickle refers to its object {argument!r}, which it has not made")
    machine.stack.append(machine.memo[argument])


def _put(machine: _Machine, argument: Any) -> None:
    machine.memo[argument] = machine.top()


def _memoize(machine: _Machine, _: Any) -> None:
    machine.memo[len(machine.memo)] = machine.top()


def _pop_any(machine: _Machine, _: Any) -> None:
    if not machine.stack:
        raise damaged("the pickle takes more from its stack than it has put there")
    machine.stack.pop()


def _nothing(machine: _Machine, _: Any) -> None:
    """Do nothing: protocol, frame, stop, and the flag of a read-only buffer."""


def _push(make: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(make())


_HANDLERS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(["PROTO", "FRAME", "STOP", "READONLY_BUFFER"], _nothing),
    **dict.fromkeys(["EMPTY_LIST", "EMPTY_SET"], _push(list)),
    **dict.fromkeys(["GET", "BINGET", "LONG_BINGET"], _get),
    **dict.fromkeys(["PUT", "BINPUT", "LONG_BINPUT"], _put),
    **dict.fromkeys(["EXT1", "EXT2", "EXT4"], _extension),
    **dict.fromkeys(["LIST", "FROZENSET"], lambda machine, _: machine.stack.append(machine.since_mark())),
    **dict.fromkeys(["APPENDS", "ADDITEMS"], _appends),
    **dict.fromkeys(["REDUCE", "NEWOBJ"], _reduce),
    "APPEND": _append,
    "BINPERSID": lambda machine, _: _persistent(machine, machine.pop()),
    "BUILD": _build,
    "DICT": _dict,
    "DUP": lambda machine, _: machine.stack.append(machine.top()),
    "EMPTY_DICT": _push(Mapping),
    "EMPTY_TUPLE": _push(tuple),
    "GLOBAL": _global,
    "INST": _inst,
    "MARK": _push(lambda: _MARK),
    "MEMOIZE": _memoize,
    "NEWFALSE": _push(lambda: False),
    "NEWOBJ_EX": _newobj_ex,
    "NEWTRUE": _push(lambda: True),
    "NEXT_BUFFER": _push(lambda: Persistent("buffer")),
    "NONE": _push(lambda: None),
    "OBJ": _obj,
    "PERSID": _persistent,
    "POP": _pop_any,
    "POP_MARK": lambda machine, _: machine.since_mark() and None,
    "SETITEM": _setitem,
    "SETITEMS": _setitems,
    "STACK_GLOBAL": _stack_global,
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.since_mark())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
}
