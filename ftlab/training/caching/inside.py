"""What a dataset is made of: other datasets, transforms, random numbers of its own, labels, tensors."""

import copy
import functools
import random
import types
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

OBJECTS = 10_000  # so many are looked at; a dataset is a few dozen
ITEMS = 100  # so many of a list: the others are most likely of the same kind
SMALL = 2**20  # bytes that are read each time; of more only what autograd counts
_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_NOTHING_INSIDE = (str, bytes, int, float, complex, type(None), Tensor, np.ndarray, type, types.ModuleType)


def datasets(dataset: Any) -> Iterator[Any]:
    """Yield the dataset and those that it is made of, as Subset and ConcatDataset are."""
    todo, seen = [dataset], set()
    while todo:
        one = todo.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            held = [value for value in getattr(one, "__dict__", {}).values() if isinstance(value, Dataset)]
            todo += [*held, *(getattr(one, "datasets", None) or [])]
            todo += [one.dataset] if getattr(one, "dataset", None) is not None else []


def twin(dataset: Any) -> Any:
    """Return a copy to be asked for images: what a dataset counts meanwhile, it counts in the copy.

    Its images, labels and transforms are those of the dataset, not copies.
    """
    try:
        double = copy.copy(dataset)
        for name, value in list(getattr(double, "__dict__", {}).items()):
            if isinstance(value, Dataset):
                setattr(double, name, twin(value))
        if isinstance(getattr(double, "datasets", None), list):
            double.datasets = [twin(inner) for inner in double.datasets]
    except Exception:  # one that cannot be copied is asked itself
        return dataset
    return double


def generators(dataset: Any) -> list[Any]:
    """Return the generators of random numbers that the dataset has for itself, whoever in it holds them."""
    found, todo, seen = [], [dataset], set()
    while todo and len(seen) < OBJECTS:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, _NOTHING_INSIDE):
            continue
        seen.add(id(thing))
        if isinstance(thing, _GENERATORS) and not isinstance(thing, random.SystemRandom):
            found.append(thing)
        else:
            todo += _held_by(thing)
    return found


def states(found: list[Any]) -> list[Any]:
    """Return the states of these generators, fit to be compared."""
    found = [_state(generator) for generator in found]
    return [state.numpy().tobytes() if isinstance(state, Tensor) else repr(state) for state in found]


@contextmanager
def keep_generators(found: list[Any], *, begin: bool = False) -> Iterator[None]:
    """Put the states of these generators back; with `begin` they start from the same place inside."""
    kept = [_state(generator) for generator in found]
    try:
        for generator in found if begin else []:
            _set_state(generator, _first_state(generator))
        yield
    finally:
        for generator, state in zip(found, kept, strict=True):
            _set_state(generator, state)


def tensors(part: Any) -> Iterator[Tensor]:
    """Yield the tensors and arrays of numbers that one dataset has for itself, alone or in a list."""
    for value in getattr(part, "__dict__", {}).values():
        for each in value if isinstance(value, list | tuple) else [value]:
            if isinstance(each, np.ndarray) and each.dtype.kind in "biuf":
                yield torch.from_numpy(np.array(each))  # a copy: it may not be written, or lie backwards
            elif isinstance(each, Tensor):
                yield each


def contents(dataset: Any) -> dict[tuple[int, str], Any]:
    """Return what tells that labels or images were changed, without asking for an image.

    Lists, dictionaries, and arrays up to a MiB, are read; a larger tensor is known by its place and by autograd's
    count of writes.
    """
    return {
        (id(part), name): _told(value)
        for part in datasets(dataset)
        for name, value in getattr(part, "__dict__", {}).items()
        if name not in ("dataset", "datasets")
    }


def _told(value: Any) -> Any:
    if isinstance(value, Tensor):
        size, version = value.nbytes, 0 if value.is_inference() else value._version
        small = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy() if size <= SMALL else b""
        return id(value), value.data_ptr(), tuple(value.shape), version, zlib.crc32(small)
    if isinstance(value, np.ndarray):
        readable = value.nbytes <= SMALL and not value.dtype.hasobject
        return id(value), value.shape, zlib.crc32(np.ascontiguousarray(value).data) if readable else 0
    if isinstance(value, list | tuple) and any(isinstance(each, Tensor | np.ndarray) for each in value[:ITEMS]):
        return [_told(each) for each in value]
    if isinstance(value, list | tuple):
        try:
            return id(value), hash(tuple(value))
        except TypeError:  # a list of lists
            return id(value), [id(each) for each in value]
    if isinstance(value, dict) and len(value) <= SMALL:
        try:
            return id(value), hash(tuple(value.items()))
        except TypeError:
            return id(value), [id(each) for each in value.values()]
    return None


def _held_by(thing: Any) -> list[Any]:
    if isinstance(thing, types.FunctionType):
        closed = [cell.cell_contents for cell in thing.__closure__ or () if _is_full(cell)]
        known = [thing.__globals__.get(name) for name in thing.__code__.co_names]
        known = [each for each in known if isinstance(each, _GENERATORS)]
        return [*closed, *(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values(), *known]
    if isinstance(thing, types.MethodType | types.BuiltinMethodType):
        return [thing.__self__, getattr(thing, "__func__", None)]
    if isinstance(thing, functools.partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, list | tuple | set | frozenset):
        return list(thing)[:ITEMS]
    if isinstance(thing, dict):
        return list(thing.values())[:ITEMS]
    written = [kind for kind in type(thing).__mro__ if not kind.__module__.startswith(("torch", "builtins"))]
    functions = [f for kind in written for f in vars(kind).values() if isinstance(f, types.FunctionType)]
    return [*functions, *getattr(thing, "__dict__", {}).values()]


def _is_full(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _state(generator: Any) -> Any:
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.RandomState | torch.Generator):
        state = generator.get_state()
        return state.clone() if isinstance(state, Tensor) else state
    return generator.getstate()


def _first_state(generator: Any) -> Any:
    if isinstance(generator, np.random.Generator):
        return type(generator.bit_generator)(0).state
    if isinstance(generator, np.random.RandomState):
        return np.random.RandomState(0).get_state()
    if isinstance(generator, torch.Generator):
        return torch.Generator(generator.device).manual_seed(0).get_state()
    return random.Random(0).getstate()


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, np.random.RandomState | torch.Generator):
        generator.set_state(state)
    else:
        generator.setstate(state)
