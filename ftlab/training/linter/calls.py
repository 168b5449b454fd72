"""What a call in a training loop does: the events that it makes, and what is known of its value."""

import ast
from typing import TYPE_CHECKING

from . import assignments
from .roles import LOSSES, last, made_here, operand
from .tags import NOTHING, Tags, after_function, after_method

if TYPE_CHECKING:
    from .paths import Path

METHODS = ("zero_grad", "backward", "step", "train", "eval", "update")
_CLIPS = ("clip_grad_norm_", "clip_grad_value_", "clip_grad_norm", "clip_gradients", "dispatch_clip_grad")
_HARMLESS = {"toggle_optimizer", "untoggle_optimizer", "print", "len", "id", "type", "prepare", "isinstance",
             "append", "dict", "getattr", "hasattr", "list", "deepcopy",  "str"}  # fmt: skip


def call(path: "Path", node: ast.Call) -> Tags:
    """Go through a call: what it is called on, its arguments, then itself."""
    if isinstance(bound := path.meaning.get(path.text(node.func)), ast.Attribute) and bound.attr in _BOUND:
        node = ast.copy_location(ast.Call(bound, node.args, node.keywords), node)  # `squeeze = outputs.squeeze`
    word = last(node.func)
    owner = node.func.value if isinstance(node.func, ast.Attribute) else None
    inner = path.value(owner)
    given = [path.value(part) for part in [*node.args, *(key.value for key in node.keywords)]]
    for part in node.args:
        path.use(part.value if isinstance(part, ast.Starred) else part)
    if _is_local(path, node, owner, word):
        return _inline(path, node, path.functions[word], owner)
    assignments.started(path, node, word)
    if word in _CALLS and (owner is not None or word in _WITHOUT_OWNER):
        found = _CALLS[word](path, node, owner, inner, given)
        if found is not None:
            return found
    return _by_role(path, node, word, inner, given)


def _is_local(path: "Path", node: ast.Call, owner: ast.expr | None, word: str) -> bool:
    """Say whether a call is one of a function, or of a method, that stands in this source."""
    if word not in path.functions or word in path.inside or len(path.inside) > 6:
        return False
    if owner is None:  # a parameter that is called hides a function of the same name
        return word not in path.source.methods and path.names.get(word) != word
    return word in path.source.methods and (path.text(owner) == "self" or not path.roles.of(path.text(owner)))


def _inline(path: "Path", node: ast.Call, function: ast.FunctionDef, owner: ast.expr | None) -> Tags:
    """Go through the body of a local function, with its parameters called as the caller calls them."""
    parameters = [argument.arg for argument in function.args.args]
    if owner is not None and parameters[:1] == ["self"]:
        parameters = parameters[1:]
    texts = {name: path.text(value) for name, value in zip(parameters, node.args, strict=False)}
    texts |= {key.arg: path.text(key.value) for key in node.keywords if key.arg}
    names, inside, statement = path.names, path.inside, path.statement
    path.names, path.inside = (
        {**(names if function.name not in path.source.methods else {}), **texts},
        (*inside, function.name),
    )
    found = path.body(function)
    path.names, path.inside, path.statement = names, inside, statement
    return found


def _by_role(path: "Path", node: ast.Call, word: str, inner: Tags, given: list[Tags]) -> Tags:
    """Go through a call of a model, of a loss, or of something that nobody knows."""
    name = path.text(node.func)
    role = path.roles.of(name) if not isinstance(node.func, ast.Call) else ""
    if isinstance(node.func, ast.Call) and path.roles.loss(last(node.func.func)) in LOSSES:
        return _loss(path, node, path.roles.loss(last(node.func.func)), given)  # nn.CrossEntropyLoss()(...)
    if (
        word in LOSSES
        or role == "loss"
        or (word.lower().endswith("loss") and node.args and not word[0].isupper())
    ):
        return _loss(path, node, path.roles.loss(name), given)
    if made_here(word, "model") or (word[:1].isupper() and path.roles.known.get(name) != "model"):
        return NOTHING  # a class; `D = nn.Sequential(...)` is none
    if name == "self" or _is_module(path, node, role):
        return _forward(path, node, given)
    _opaque(path, node, word)
    if isinstance(node.func, ast.Attribute) and not name.startswith(("torch.", "F.")):
        return after_method(word, inner, given)
    return after_function(node, word, given)


def _opaque(path: "Path", node: ast.Call, word: str) -> None:
    """Write down a call that is given the optimizer, and may do anything with it."""
    given = [path.text(part) for part in [*node.args, *(key.value for key in node.keywords)]]
    known = [name for name in given if path.roles.of(name) in ("optimizer", "scaler")]
    if known and word not in _HARMLESS:
        path.event("opaque", of=known[0])


def _is_module(path: "Path", node: ast.Call, role: str) -> bool:
    """Say whether `model(x)`, `self.model(x)` or `model.features(x)` is a forward."""
    if role == "model":
        return isinstance(node.func, ast.Name) or not node.func.attr.startswith(
            ("build", "make", "create", "load", "get", "save")
        )
    owner = getattr(node.func, "value", None)
    return bool(
        owner is not None
        and path.roles.of(path.text(owner)) == "model"
        and node.func.attr in ("forward", "features", "head", "fc", "classifier")
    )


def _forward(path: "Path", node: ast.Call, given: list[Tags]) -> Tags:
    name = path.text(node.func)
    path.event("forward", of=name)
    tags = frozenset({"output", *path.tags.get(f"{name}()", ())})
    if path.grad:
        return tags
    modes = [event.kind for event in path.events if event.kind in ("train", "eval") and event.of == name]
    if modes[-1:] == ["eval"] and "no grad" in path.where:  # a teacher beside the model that shall learn
        return tags | {"no grad"}
    return path.tag(tags, "no grad")


def _loss(path: "Path", node: ast.Call, function: str, given: list[Tags]) -> Tags:
    path.event("loss", of=function)
    first, target = [*given, NOTHING, NOTHING][:2]
    for kind, found in _DOUBLES.get(function, {}).items():
        if kind in first:
            path.say(found, path.where.get(kind))
    if function == "cross_entropy" and "integers" in target:
        path.say("one_hot as integers", path.where.get("integers"))
    if "squeezed" in first - target:  # where both have lost it, they fit together
        line = path.where["squeezed"]
        path.say("squeeze without a dimension", line, name=path.source.squeezed[line])
    judged(path, first)
    cut = {tag for tag in ("detached", "no grad", "number") if tag in first and "output" in first}
    return frozenset({"loss", *cut} if path.grad else {"loss", "no grad", *cut})


def judged(path: "Path", tags: Tags) -> None:
    """Write down that outputs without a graph are compared with targets: this is a validation.

    What counts is the forward: outputs of a training step may be counted under no_grad.
    """
    if {"output", "no grad"} <= tags:
        path.event("judged")


# what a loss does itself, and what it is called if it was done before
_DOUBLES = {
    "cross_entropy": {
        "softmax": "softmax before cross_entropy",
        "log_softmax": "log_softmax before cross_entropy",
    },
    "binary_cross_entropy_with_logits": {"sigmoid": "sigmoid before with_logits"},
    "nll_loss": {"raw": "nll_loss of logits", "softmax": "nll_loss of logits"},
}


def _zero_grad(path, node, owner, inner, given) -> Tags:
    name = path.text(owner)
    path.event("zero_grad", of=name, model=path.roles.of(name) not in ("optimizer",))
    return NOTHING


def _backward(path, node, owner, inner, given) -> Tags:
    name = path.text(owner)
    on_argument = bool(node.args) and (
        name.endswith("autograd")
        or path.roles.of(name) != ""
        or name in ("accelerator", "fabric", "self.fabric", "self.accelerator")
    )
    loss, tags = (node.args[0], given[0]) if on_argument else (owner, inner)
    for part in ast.walk(loss):
        path.sums.pop(path.text(part) if isinstance(part, ast.Name | ast.Attribute) else "", None)
    text = ast.unparse(loss)
    for tag, kind in (
        ("number", "number instead of loss"),
        ("detached", "graph cut by detach"),
        ("no grad", "no_grad around the forward"),
    ):
        if tag in tags:
            path.say(kind, path.where.get(tag), loss=text)
    keep = any(key.arg == "retain_graph" and ast.unparse(key.value) == "True" for key in node.keywords)
    path.event("backward", of=text, name=text, scaled="scaled" in tags)
    if keep:
        path.kept[path.line] = text
    path.rare[path.line] = path.guards
    if "divided" in tags:
        path.divided.add(path.line)
    return NOTHING


def _step(path, node, owner, inner, given) -> Tags | None:
    name, role = path.text(owner), path.roles.of(path.text(owner))
    cleared = {event.of for event in path.events if event.kind == "zero_grad"}
    if role == "scheduler":
        path.event("schedule", of=name)
        if path.roles.losses.get(name) == "ReduceLROnPlateau" and not node.args and not node.keywords:
            path.say("plateau without a metric", scheduler=name)
    elif role == "scaler" and node.args:
        path.event("step", of=path.text(node.args[0]), scaled=True)
    elif role == "optimizer" or name in cleared:
        for part in [*node.args, *(key.value for key in node.keywords)]:
            if isinstance(part, ast.Name) and part.id in path.functions:  # a closure is called by the step
                _inline(path, ast.Call(part, [], []), path.functions[part.id], None)
        path.event("step", of=name)
    else:
        return None
    if path.guards and path.events[-1].kind == "step":
        guard = path.guards[-1]
        bare = guard.operand if isinstance(guard, ast.UnaryOp) else guard  # `if not accumulating:`
        guard = path.meaning.get(path.text(bare), guard)  # its meaning stands elsewhere
        path.windows[path.line] = (guard, guard.lineno)
    return NOTHING


def _update(path, node, owner, inner, given) -> Tags | None:
    if path.text(owner).endswith("environ"):
        for key in node.keywords:
            assignments.environment(path, ast.Constant(key.arg), key.value)
        for part in node.args:
            for key, value in zip(getattr(part, "keys", []), getattr(part, "values", []), strict=True):
                assignments.environment(path, key or part, value)
        return NOTHING
    if path.roles.of(path.text(owner)) != "scaler":
        return None
    path.event("update", of=path.text(owner))
    return NOTHING


def _setdefault(path, node, owner, inner, given) -> Tags | None:
    if path.text(owner).endswith("environ") and len(node.args) == 2:
        assignments.environment(path, *node.args)
    return None


def _unscale(path, node, owner, inner, given) -> Tags:
    path.event("unscale", of=path.text(node.args[0]) if node.args else None)
    return NOTHING


def _scale(path, node, owner, inner, given) -> Tags | None:
    if owner is None or path.roles.of(path.text(owner)) != "scaler" or not given:
        return None
    return given[0] | {"scaled"}


def _clip(path, node, owner, inner, given) -> Tags:
    of = path.text(node.args[0]) if node.args else ""
    path.event("clip", of=of, name="")
    inside = [loop for loop in ast.walk(path.source.tree) if isinstance(loop, ast.For)]
    for loop in inside:
        iterated = ast.unparse(loop.iter)
        target = {part.id for part in ast.walk(loop.target) if isinstance(part, ast.Name)}
        used = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        if (
            node in ast.walk(loop)
            and target & used
            and any(
                word in iterated
                for word in ("parameters(", "children(", "modules(", "named_", "params", "param_groups", "layers")
            )
        ):
            path.say("clip part by part")
    return NOTHING


def _mode(path, node, owner, inner, given) -> Tags | None:
    name = path.text(owner)
    word = node.func.attr
    if path.roles.of(name) not in ("model", "") or name == "self":
        return None
    off = word == "eval"
    if word == "train" and node.args:
        argument = node.args[0]
        off = not path.choose(argument)
    path.event("eval" if off else "train", of=name)
    return NOTHING


def _append(path, node, owner, inner, given) -> Tags:
    tags, name = given[0] if given else NOTHING, path.text(owner)
    plain = bool(node.args) and isinstance(node.args[0], ast.Name | ast.Attribute | ast.BinOp | ast.Call)
    if (
        plain
        and tags & {"loss", "output"}
        and not tags & {"number", "detached", "no grad"}
        and path.grad
        and path.loops
    ):
        value = operand(node.args[0])
        total = f"{name}.append({value}.item())"
        path.sums.setdefault(name, path.made("total keeps graphs", total=total))
    return NOTHING


def _number(path, node, owner, inner, given) -> Tags:
    if owner is not None and last(node.func) == "float":  # of a tensor, not the built-in function
        return inner - {"integers"}
    tags = inner if owner is not None else given[0] if given else NOTHING
    return path.tag(tags, "number") if tags else NOTHING


def _detach(path, node, owner, inner, given) -> Tags:
    return path.tag(inner, "detached") if inner else NOTHING


def _squeeze(path, node, owner, inner, given) -> Tags:
    parts, tags = [*node.args, *(key.value for key in node.keywords)], given
    if owner is not None and path.text(owner) != "torch":
        parts, tags = [owner, *parts], [inner, *tags]
    if len(parts) != 1:  # a dimension is named
        return tags[0] if tags else NOTHING
    path.source.squeezed[path.line] = operand(parts[0])
    return path.tag(tags[0], "squeezed")


def _softmax(path, node, owner, inner, given) -> Tags:
    source = inner | (given[0] if given else NOTHING)
    return path.tag(source, last(node.func).replace("Softmax", "softmax"))


def _log(path, node, owner, inner, given) -> Tags:
    source = inner | (given[0] if given else NOTHING)
    return path.tag(source - {"softmax"}, "log_softmax") if "softmax" in source else source


def _one_hot(path, node, owner, inner, given) -> Tags:
    if len(node.args) < 2 and not node.keywords:
        path.say("one_hot without num_classes")
    return path.tag(NOTHING, "integers")


def _to(path, node, owner, inner, given) -> Tags:
    name = path.text(owner)
    text = ast.unparse(node)
    if path.roles.of(name) == "model":
        assignments.moved(path, name)
    return inner - {"integers"} if "float" in text or "double" in text or "half" in text else inner


def _places(path, node, owner, inner, given) -> Tags:
    judged(path, inner | (given[0] if given else NOTHING))
    return NOTHING  # numbers of places have no graph


def _max(path, node, owner, inner, given) -> Tags:
    return inner | (given[0] if given else NOTHING)


def _empty_cache(path, node, owner, inner, given) -> Tags:
    path.event("empty_cache")
    return NOTHING


def _resize(path, node, owner, inner, given) -> Tags:
    path.say("data changed in place", name=path.text(owner))
    return inner


def _parameter_write(path, node, owner, inner, given) -> Tags | None:
    """`p.data.sub_(lr * p.grad)`: a step by hand; `p.grad.zero_()`: a zero_grad by hand."""
    text = ast.unparse(node)
    if node.func.attr == "zero_" and ".grad" in ast.unparse(owner):
        path.event("zero_grad", of=None, model=True)
    elif ".grad" in text:
        path.event("step", of="by hand")
    return None


_CALLS = {
    "zero_grad": _zero_grad, "backward": _backward, "manual_backward": _backward, "step": _step,
    "update": _update, "unscale_": _unscale, "unscale_gradients": _unscale, "scale": _scale,
    "setdefault": _setdefault, "train": _mode, "eval": _mode,
    "append": _append, "item": _number, "tolist": _number, "float": _number, "numpy": _number, "detach": _detach,
    "squeeze": _squeeze, "softmax": _softmax, "log_softmax": _softmax, "sigmoid": _softmax, "log": _log,
    "one_hot": _one_hot, "to": _to, "cuda": _to, "half": _to, "type": _to, "empty_cache": _empty_cache,
    "argmax": _places, "argsort": _places, "eq": _places, "max": _max,
    "resize_": _resize, "sub_": _parameter_write, "add_": _parameter_write, "zero_": _parameter_write,
} | dict.fromkeys(_CLIPS, _clip)  # fmt: skip
_BOUND = {*_CALLS, "forward"}
_WITHOUT_OWNER = {
    "float",
    "squeeze",
    "softmax",
    "log_softmax",
    "sigmoid",
    "log",
    "one_hot",
    "argmax",
    "eq",
    *_CLIPS,
}
KNOWN = {*METHODS, *_CLIPS, *LOSSES, "unscale_", "manual_backward", "model", "net", "criterion", "loss_fn"}
