"""From the symbols of a pickle to what a checkpoint holds: parts, and the names of their tensors."""

from collections.abc import Iterator
from typing import Any

from ftlab.checkpoints.info import Part

from .bounds import DEPTH, EVERYTHING, EXPANDED, THINGS, Broken, too_large
from .makers import Content, Storage, is_tensor, tensor_of
from .symbols import Call, Persistent, children, lookup, pairs, short


def read_content(root: Any, inner: dict[int, Storage] | None = None) -> Content:
    """Return what the root of a pickle holds."""
    content = Content(inner=inner or {})
    _Walk(content).run(root)
    return content


Keys = tuple[str | int, ...]


class _Walk:
    """Go through all that a pickle describes, each thing as often as it is referred to, up to a limit."""

    def __init__(self, content: Content) -> None:
        self.content = content
        self.left = self.in_all = EVERYTHING

    def run(self, root: Any) -> None:
        kind = _kind_of("", root)
        inside = pairs(root)
        if inside is None and _holds_model(root):
            inside = _entries(root)
        if kind != "other" or inside is None:
            self.part((), kind, root)
            return
        for key, value in inside:
            self.entry((key if isinstance(key, (str, int)) else short(key, 20),), value)

    def entry(self, keys: Keys, value: Any) -> None:
        """Note one entry of a dictionary that is no state_dict itself; go into it if it is another of those."""
        kind = _kind_of(str(keys[-1]), value)
        if kind == "other" and len(keys) < 12 and _holds_model(value):
            for key, inside in _entries(value):
                if isinstance(key, (str, int)):
                    self.entry((*keys, key), inside)
            return
        self.part(keys, kind, value)

    def part(self, keys: Keys, kind: str, thing: Any) -> None:
        before = len(self.content.tensors)
        self.left = min(THINGS, self.in_all)
        alone = self.tensor(thing, keys[:-1], str(keys[-1]) if keys else "")
        if not alone:
            for name, inside in self.inside(thing, ()):
                self.tensor(inside, keys, ".".join(name))
        count = len(self.content.tensors) - before
        if kind == "other" and count and not alone and not keys:
            kind = "model" if _is_script(thing) else "tensors"
        mixed = kind == "model" and any(not is_tensor(value) for _, value in pairs(thing) or [])
        self.content.parts.append(Part(keys, kind, _about(thing, count, alone), mixed))

    def inside(self, thing: Any, name: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
        """Go through everything inside that may be a tensor, with its name as a state_dict has it."""
        waiting = [(name, thing)]
        while waiting:
            name, thing = waiting.pop()
            self.left -= 1
            self.in_all -= 1
            if self.left < 0:
                return  # a list of a million files, or something that refers to itself again and again
            if len(name) > DEPTH:
                continue
            if is_tensor(thing):
                yield name, thing
            else:
                found = _of_module(thing) if is_module(thing) else children(thing)
                more = [((*name, str(k)) if k != "" and isinstance(k, (str, int)) else name, v) for k, v in found]
                waiting += [
                    one for one in reversed(more) if not isinstance(one[1], (str, int, float, type(None)))
                ]

    def tensor(self, thing: Any, part: Keys, name: str) -> bool:
        """Note a tensor; return whether it is one."""
        if not is_tensor(thing):
            return False
        try:
            found = tensor_of(thing, part, name, self.content)
        except (TypeError, ValueError, IndexError):
            self.content.odd.append(name)
        else:
            self.content.tensors.append(found)
        return True


def is_module(thing: Any) -> bool:
    """Return whether it is a whole module: an object with the inner dictionaries of `nn.Module`."""
    return isinstance(thing, Call) and {"_parameters", "_modules"} <= lookup(_state(thing)).keys()


def _is_script(thing: Any) -> bool:
    """Return whether it is a module of TorchScript: its attributes have the names of a state_dict."""
    return isinstance(thing, Call) and thing.path.startswith("__torch__.")


def _entries(thing: Any) -> list[tuple[Any, Any]]:
    """Return what is in a dictionary, a list, or an object with attributes, by its key."""
    inside = pairs(thing)
    if inside is not None:
        return inside
    if isinstance(thing, (list, tuple)):
        return list(enumerate(thing))
    return pairs(_state(thing)) or [] if isinstance(thing, Call) and not is_tensor(thing) else []


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


_MOMENTA = {"step", "momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "square_avg", "grad_avg", "sum"}


def _is_state(found: dict[str, Any]) -> bool:
    """Return whether a dictionary is mostly tensors, as a state_dict is, and not those of an optimizer."""
    return not found.keys() <= _MOMENTA and 2 * sum(is_tensor(value) for value in found.values()) >= len(found)


def _holds_model(thing: Any) -> bool:
    """Return whether a state_dict or a module is in a dictionary, at most three levels down."""
    if _is_script(thing):
        return False
    level = [thing]
    for _ in range(3):
        level = [value for one in level for _, value in _entries(one)[:1_000]][:10_000]
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
