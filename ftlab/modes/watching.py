"""Notice every change of a mode while it happens, and the line that made it."""

import linecache
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from sysconfig import get_path
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from ftlab.given import expect
from ftlab.modes.log import ModeLog


def _folder(path: object) -> str:
    return f"{path}{os.sep}"  # with its separator: the folder of torch is not that of torchinfo


TORCH, FTLAB = _folder(Path(torch.__file__).parent), _folder(Path(__file__).parents[1])
STDLIB = _folder(get_path("stdlib"))
NOT_THE_LEARNERS = (TORCH, FTLAB, STDLIB, _folder(get_path("purelib")), _folder(get_path("platlib")))

_watches: list["_Watch"] = []
_lock = threading.Lock()
_set_attribute = nn.Module.__setattr__


@contextmanager
def who_changed(model: nn.Module) -> Iterator[ModeLog]:
    """Record every change of a mode in `model`: before which forward pass, and in which line of code.

    The model is not changed; a hook on it counts the forward passes, and is gone afterwards. The log is filled
    while the code inside runs, and stays readable.

    The trap: a training loop that calls `model.train()` in each epoch wakes what was put in eval mode on
    purpose. Nothing is said, and nothing looks different but the numbers.

    Seen is whatever sets the flag as an attribute: `train()`, `eval()`, `module.training = ...`, also deep inside
    of a library. Of a library the function is named, beside the line that called it. A module that bypasses
    `nn.Module.__setattr__` is not seen.

    Args:
        model: Also modules that are added to it inside are watched, from their first change on.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2).eval())
        >>> with who_changed(model) as log:
        ...     _ = model(torch.ones(4, 2))
        ...     _ = model.train()
        ...     _ = model(torch.ones(4, 2))
        >>> log.changes[0].modules, log.changes[0].source
        (('1',), '_ = model.train()')
        >>> log.woken
        ['1']
    """
    expect(model, nn.Module, "the model", "with who_changed(model) as log:")
    log = ModeLog(model)
    watch = _Watch(model, log)
    hook = model.register_forward_hook(lambda *_: log._ran(model), always_call=True)
    _add(watch)
    try:
        yield log
    finally:
        _remove(watch)
        hook.remove()
        log._end(model)


class _Watch:
    """Who wants to know about which modules."""

    def __init__(self, model: nn.Module, log: ModeLog) -> None:
        self.model, self.log = model, log
        self.names: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()

    def name_of(self, module: nn.Module) -> str | None:
        """Return the name of a module; None if it is not one of this model's."""
        if module not in self.names:  # at first, and for one that was added since
            self.names.update({inside: name for name, inside in self.model.named_modules()})
        return self.names.get(module)


def _add(watch: _Watch) -> None:
    with _lock:
        _watches.append(watch)
        nn.Module.__setattr__ = _set_and_tell


def _remove(watch: _Watch) -> None:
    with _lock:
        _watches.remove(watch)
        if not _watches:
            nn.Module.__setattr__ = _set_attribute


def _set_and_tell(module: nn.Module, name: str, value: Any) -> None:
    """Take the place of `nn.Module.__setattr__` while somebody watches."""
    if name == "training" and module.__dict__.get("training") is not value:
        for watch in tuple(_watches):
            if (found := watch.name_of(module)) is not None:
                watch.log._changed(found, bool(value), *_who(sys._getframe(1)))
    _set_attribute(module, name, value)


def _who(frame: FrameType | None) -> tuple[str, str, str]:
    """Return where the learner's code did it, that line, and the library's function that it called, if any."""
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    outside = [frame for frame in frames if not _is_in(frame, (TORCH,))] or frames
    own = next((frame for frame in outside if not _is_in(frame, NOT_THE_LEARNERS)), outside[0])
    library = next(
        (f for f in outside[: outside.index(own)] if not _is_in(f, (get_path("stdlib"),), False)), None
    )
    return _place(own), _source(own), _function(library) if library else ""


def _is_in(frame: FrameType, folders: tuple[str, ...], packages_too: bool = True) -> bool:
    file = frame.f_code.co_filename
    inside = file.startswith(folders) or file.startswith("<frozen")
    return inside and (packages_too or "site-packages" not in file)


def _place(frame: FrameType) -> str:
    code, line = frame.f_code, frame.f_lineno
    if code.co_name == "<module>":
        file = Path(code.co_filename)
        where = "a cell" if "ipykernel" in str(file) or str(file).startswith("<") else file.name
        return f"line {line} of {where}"
    return f"line {line - code.co_firstlineno + 1} of {code.co_name}"


def _source(frame: FrameType) -> str:
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno, frame.f_globals).strip()


def _function(frame: FrameType) -> str:
    package = frame.f_globals.get("__name__", "?").partition(".")[0]
    return f"{package}: {frame.f_code.co_qualname}"
