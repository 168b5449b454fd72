"""What an assignment in a training loop makes: an optimizer, a scheduler, a new head, an environment variable."""

import ast
from typing import TYPE_CHECKING

from .roles import generates_parameters, last, made_by, made_here
from .tags import NOTHING

if TYPE_CHECKING:
    from .paths import Path


def made(path: "Path", name: str, value: ast.expr) -> None:
    """Write down what was made under a name: an optimizer, a generator of parameters, a model with a softmax."""
    if generates_parameters(value):
        path.generators[name] = (ast.unparse(value), 0)
    if not isinstance(value, ast.Call):
        return
    word = made_by(value)
    path.roles.made(name, word)  # one name may stand for several things, one after the other
    if word == "state_dict" and "best" in name:
        path.say("best is a live view", name=name, model=path.text(value.func.value))
        return
    if path.roles.of(name) == "model":
        path.event("made", of=name)
    if path.roles.of(name) in _MADE:
        _MADE[path.roles.of(name)](path, name, value)


def _made_optimizer(path: "Path", name: str, value: ast.Call) -> None:
    if made_here(last(value.func), "optimizer") or ".parameters()" in ast.unparse(value):
        path.event("optimizer", of=_root_of_parameters(path, value), name=name)


def _made_scheduler(path: "Path", name: str, value: ast.Call) -> None:
    path.schedulers[name] = ast.unparse(value)


def _made_model(path: "Path", name: str, value: ast.Call) -> None:
    """A model that ends in a softmax gives something else than logits."""
    whole = last(value.func) == "Sequential" and value.args and isinstance(value.args[-1], ast.Call)
    end = _ENDS.get(last(value.args[-1].func if whole else value.func))
    if whole or end:
        path.tags[f"{name}()"] = path.tag(NOTHING, end) if end else frozenset({"raw"})
    elif known := path.source.ends.get(made_by(value)):
        path.tags[f"{name}()"] = frozenset(known)
        path.where |= known


_ENDS = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid"}
_MADE = {"optimizer": _made_optimizer, "scheduler": _made_scheduler, "model": _made_model}


def _root_of_parameters(path: "Path", value: ast.Call) -> str | None:
    for part in ast.walk(value):
        if (
            isinstance(part, ast.Call)
            and last(part.func) == "parameters"
            and isinstance(part.func, ast.Attribute)
        ):
            return path.text(part.func.value)
    return None


def head(path: "Path", target: ast.Attribute, value: ast.expr) -> None:
    """Look at `model.fc = nn.Linear(...)`: the optimizer must be built after it."""
    owner = path.text(target.value)
    if not isinstance(value, ast.Call) or not (
        made_here(last(value.func), "model") or path.roles.of(path.text(target)) == "model"
    ):
        return
    for event in path.events:
        if event.kind == "optimizer" and event.of and (owner == event.of or owner.startswith(f"{event.of}.")):
            path.say("optimizer before the head", event.line, optimizer=event.name, model=event.of)


def moved(path: "Path", model: str) -> None:
    """Look at `model.to(device)`: the optimizer had better be built after it."""
    for event in path.events:
        if event.kind == "optimizer" and event.of == model:
            path.say("optimizer before .to", event.line, model=model)


def environment(path: "Path", name: ast.expr, value: ast.expr) -> None:
    """Look at `os.environ["CUDA_VISIBLE_DEVICES"] = ...`, at what is updated, or set if it is not there."""
    if "CUDA_VISIBLE_DEVICES" not in ast.unparse(name):
        return
    if isinstance(value, ast.Constant) and not isinstance(value.value, str):
        path.say("CUDA_VISIBLE_DEVICES is no string")
    if "cuda" not in path.where:
        path.where[f"set in {path.line}"] = path.line  # in time; in a loop it is there again
    elif f"set in {path.line}" not in path.where:
        path.say("CUDA_VISIBLE_DEVICES too late", given=path.where["cuda"])


def started(path: "Path", node: ast.Call, word: str) -> None:
    """Write down the first call that starts CUDA; `torch.device` and `device_count` do not."""
    given = [*node.args, *(key.value for key in node.keywords)]
    asked = ast.unparse(node.func).startswith("torch.cuda.") and word in _STARTS
    named = any(isinstance(part, ast.Constant) and str(part.value).startswith("cuda") for part in given)
    if asked or word == "cuda" or (named and word not in _ONLY_NAMES):
        path.where.setdefault("cuda", path.line)


# is_available counts the devices by the runtime, which starts the driver (device_count asks NVML first)
_STARTS = {"is_available", "current_device", "set_device", "get_device_name", "get_device_properties",
           "get_device_capability", "is_bf16_supported", "mem_get_info", "synchronize", "init",
           "current_stream", "Stream", "Event"}  # fmt: skip
_ONLY_NAMES = {"device", "autocast", "GradScaler", "startswith", "print"}
