"""Looking into a model: get a layer, say what is frozen, and leave no trace."""

import copy
import functools

import torch
from torch import nn

from ftlab.exercises.behaviour import images, same_model, some
from ftlab.exercises.core import Mistake, Wrong, exercise
from ftlab.exercises.models import SmallResNet

_PATHS = ("fc", "layer1.0.conv1", "layer4.0.downsample.1")


def check_layer_at(answer):
    """A layer of the first level, one three levels down, and one in a Sequential, all of a ResNet."""
    model = SmallResNet()
    for path in _PATHS:
        found, wanted = answer(model, path), dict(model.named_modules())[path]
        if found is wanted:
            continue
        kind = type(found).__name__
        if type(found) is type(wanted):
            text = f"For {path!r} you gave a {kind}, and it is not the one in the model."
            raise Wrong(text, ask="Whoever changes it: will the model change?")
        raise Wrong(
            f"For {path!r} you gave something of type `{kind}`.", ask="What lies at the end of that path?"
        )


def _by_brackets(model, path):
    return model[path]


def _walk(model, path):
    for name in path.split("."):
        model = getattr(model, name)
    return model


def _by_dictionary(model, path):
    return dict(model.named_modules())[path]


def _reduce(model, path):
    return functools.reduce(getattr, path.split("."), model)


def _getattr(model, path):
    return getattr(model, path)


def _from_children(model, path):
    return dict(model.named_children())[path]


def _from_state_dict(model, path):
    return model.state_dict()[f"{path}.weight"]


def _first_part(model, path):
    return getattr(model, path.split(".")[0])


def _copied(model, path):
    return copy.deepcopy(dict(model.named_modules())[path])


@exercise(
    check=check_layer_at,
    broken=_by_brackets,
    hints=[
        "A model is no dictionary and no list. Which of its methods take a name?",
        "`named_modules()` gives every module with its whole path; a path can also be walked part by part.",
        "There is a method for it, and a sister for parameters: `get_parameter`.",
    ],
    also_right=[_walk, _by_dictionary, _reduce],
    mistakes=[
        Mistake(_getattr, says="no attribute 'layer1.0.conv1'"),
        Mistake(_from_children, says="KeyError"),
        Mistake(_from_state_dict, says="something of type `Tensor`"),
        Mistake(_first_part, says="something of type `Sequential`"),
        Mistake(_copied, says="not the one in the model"),
    ],
    remember="A module is no dictionary: `get_submodule(path)` and `get_parameter(path)` take the dotted name.",
)
def layer_at(model: nn.Module, path: str) -> nn.Module:
    """Repair: return the layer of `model` at `path`, such as "layer1.0.conv1"; the layer itself, not a copy."""
    return model.get_submodule(path)


def check_output_shapes(answer):
    """The shapes of a ResNet's children, and whether modes, statistics, flags and hooks are as before."""
    model = SmallResNet().train()
    model.bn1.eval()  # held on purpose
    before, batch = copy.deepcopy(model), images(2)
    shapes = answer(model, batch)
    if not isinstance(shapes, dict):
        raise Wrong(f"You gave something of type `{type(shapes).__name__}`.", ask="Is it a dictionary?")
    wanted = _run(copy.deepcopy(model), batch)
    missing = [name for name in wanted if name not in shapes]
    if missing:
        raise Wrong(f"There is no word on {some(missing)}.", ask="Which loop gives all children?")
    other = [name for name in wanted if not isinstance(shapes[name], tuple | list)]
    if other:
        text = f"For `{other[0]}` you gave something of type `{type(shapes[other[0]]).__name__}`, not a shape."
        raise Wrong(text, ask="Which attribute of a tensor is its shape?")
    differing = [name for name in wanted if tuple(shapes[name]) != wanted[name]]
    if differing:
        text = f"For `{differing[0]}` you gave {tuple(shapes[differing[0]])}."
        raise Wrong(text, ask="Did the whole batch go through?")
    _say_traces(model, before)


def _say_traces(model: nn.Module, before: nn.Module) -> None:
    changed = same_model(model, before)
    statistics = [name for name in changed if "running" in name or "num_batches" in name]
    if statistics:
        text = (
            f"The shapes are right. But {some(statistics)} have changed: looking has taught the model something."
        )
        raise Wrong(text, ask="In which mode does batch norm leave its statistics alone?")
    modes = [name.removesuffix(".training") for name in changed if name.endswith(".training")]
    if modes:
        text = f"The shapes are right. But the mode of {some(modes)} is not what it was."
        raise Wrong(text, ask="The mode is a flag on every module: who remembers each of them?")
    hooks = [name for name, module in model.named_modules() if module._forward_hooks]
    if hooks:
        text = (
            f"The shapes are right. But hooks have stayed on {some(hooks)}, and run in every forward from now on."
        )
        raise Wrong(text, ask="What does `register_forward_hook` give back, and what is it good for?")
    if changed:
        raise Wrong(f"The shapes are right. But {some(changed)} changed.", ask="Which line does that?")


def _run(model: nn.Module, batch: torch.Tensor) -> dict[str, tuple]:
    shapes = {}
    for name, child in model.named_children():
        child.register_forward_hook(lambda _, __, out, name=name: shapes.update({name: tuple(out.shape)}))
    with torch.no_grad():
        model.eval()(batch)
    return shapes


def _just_run(model, images):
    shapes = {}
    for name, child in model.named_children():
        child.register_forward_hook(lambda module, args, out, name=name: shapes.update({name: tuple(out.shape)}))
    model(images)
    return shapes


def _remember_all(model, images):
    shapes, handles = {}, []
    modes = {module: module.training for module in model.modules()}
    for name, child in model.named_children():
        hook = lambda module, args, out, name=name: shapes.update({name: tuple(out.shape)})  # noqa: E731
        handles.append(child.register_forward_hook(hook))
    try:
        model.eval()
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    return shapes


def _on_meta(model, images):
    shadow, shapes = copy.deepcopy(model).to("meta"), {}
    for name, child in shadow.named_children():
        child.register_forward_hook(lambda module, args, out, name=name: shapes.update({name: out.shape}))
    shadow(images.to("meta"))
    return shapes


def _removed_in_train_mode(model, images):
    shapes, handles = {}, []
    for name, child in model.named_children():
        hook = lambda module, args, out, name=name: shapes.update({name: tuple(out.shape)})  # noqa: E731
        handles.append(child.register_forward_hook(hook))
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return shapes


def _eval_and_train(model, images):
    shapes = _run(copy.deepcopy(model), images)
    model.eval()
    model.train()
    return shapes


def _eval_stays(model, images):
    shapes = _run(copy.deepcopy(model), images)
    model.eval()
    return shapes


def _hooks_stay(model, images):
    modes = {module: module.training for module in model.modules()}
    shapes = _run(model, images)
    for module, training in modes.items():
        module.training = training
    return shapes


def _child_after_child(model, images):
    shapes = {}
    with torch.no_grad():
        for name, child in copy.deepcopy(model).eval().named_children():
            images = child(images)
            shapes[name] = tuple(images.shape)
    return shapes


@exercise(
    check=check_output_shapes,
    broken=_just_run,
    hints=[
        "It leaves two traces. One is in the buffers, one in the modules themselves. Who could take all traces?",
        "`copy.deepcopy(model)` is another model: whatever happens to it, yours stays as it is.",
        "Copy, hang the hooks on the copy, and run the copy.",
    ],
    also_right=[_remember_all, _on_meta],
    mistakes=[
        Mistake(_removed_in_train_mode, says="looking has taught the model something"),
        Mistake(_eval_and_train, says="the mode of `bn1` is not what it was"),
        Mistake(_eval_stays, says="is not what it was"),
        Mistake(_hooks_stay, says="hooks have stayed on"),
        Mistake(_child_after_child, says="mat1 and mat2 shapes cannot be multiplied"),
    ],
    remember="To look is to run, and to run can change: modes, statistics, hooks. Put all back, or run a copy.",
)
def output_shapes(model: nn.Module, images: torch.Tensor) -> dict[str, tuple]:
    """Repair: return the shape of the output of every child of `model`, by its name; leave `model` as it was.

    The model is in training, and one batch norm is held in eval mode on purpose.
    """
    import copy

    shapes, shadow = {}, copy.deepcopy(model).eval()
    for name, child in shadow.named_children():
        child.register_forward_hook(lambda module, args, out, name=name: shapes.update({name: tuple(out.shape)}))
    with torch.no_grad():
        shadow(images)
    return shapes


_WORDS = ("trains", "frozen", "partly", "nothing")


def check_block_states(answer):
    """The words for a ResNet with a frozen block, one frozen in part, and blocks without parameters."""
    model = SmallResNet()
    model.layer2.requires_grad_(False)
    model.layer1[0].conv1.requires_grad_(False)
    model.layer3[0].bn2.requires_grad_(False)
    model.layer2.eval()
    states = answer(model)
    if not isinstance(states, dict):
        raise Wrong(f"You gave something of type `{type(states).__name__}`.", ask="Is it a dictionary?")
    for name, child in model.named_children():
        flags = [p.requires_grad for p in child.parameters()]
        wanted = "nothing" if not flags else "partly" if len(set(flags)) == 2 else _WORDS[not flags[0]]
        if name not in states:
            raise Wrong(f"There is no word on `{name}`.", ask="Which loop gives all children with their names?")
        if states[name] not in _WORDS:
            text = f"You call `{name}` {states[name]!r}, which is none of the four words."
            raise Wrong(text, ask='Is it written as in the task, like `"trains"`?')
        if states[name] != wanted:
            text = f"You call `{name}` {states[name]!r}; {sum(flags)} of its {len(flags)} parameters train."
            raise Wrong(text, ask="What do all its flags say together, and what if there are none?")


def _with_any_and_all(model):
    states = {}
    for name, child in model.named_children():
        flags = [p.requires_grad for p in child.parameters()]
        if not flags:
            states[name] = "nothing"
        elif all(flags):
            states[name] = "trains"
        else:
            states[name] = "partly" if any(flags) else "frozen"
    return states


def _by_counting(model):
    def word(child):
        total = sum(1 for _ in child.parameters())
        trains = sum(p.requires_grad for p in child.parameters())
        return "nothing" if total == 0 else {0: "frozen", total: "trains"}.get(trains, "partly")

    return {name: word(child) for name, child in model.named_children()}


def _first_parameter(model):
    words = {}
    for name, child in model.named_children():
        first = next(child.parameters(), None)
        words[name] = "nothing" if first is None else "trains" if first.requires_grad else "frozen"
    return words


def _any(model):
    return {
        n: "trains" if any(p.requires_grad for p in c.parameters()) else "frozen" for n, c in _children(model)
    }


def _all(model):
    return {
        n: "trains" if all(p.requires_grad for p in c.parameters()) else "frozen" for n, c in _children(model)
    }


def _mode(model):
    return {name: "trains" if child.training else "frozen" for name, child in _children(model)}


def _attribute(model):
    return {n: "trains" if getattr(c, "requires_grad", True) else "frozen" for n, c in _children(model)}


def _children(model):
    return list(model.named_children())


def _only_with_parameters(model):
    return {name: word for name, word in _by_counting(model).items() if word != "nothing"}


@exercise(
    check=check_block_states,
    hints=[
        "The flag is on every parameter, not on the block. How many different flags can a block have?",
        "Collect them: `{p.requires_grad for p in child.parameters()}` is a set of none, one or two values.",
        "An empty set, `{True}`, `{False}` and both: four cases, four words.",
    ],
    also_right=[_with_any_and_all, _by_counting],
    mistakes=[
        Mistake(_first_parameter, says="You call `layer1` 'frozen'"),
        Mistake(_any, says="'frozen'; 0 of its 0 parameters train"),
        Mistake(_all, says="'trains'; 0 of its 0 parameters train"),
        Mistake(_mode, says="'trains'; 0 of its 0 parameters train"),
        Mistake(_attribute, says="'trains'; 0 of its 0 parameters train"),
        Mistake(_only_with_parameters, says="There is no word on `relu`"),
    ],
    remember="A block has no flag of its own: it trains, is frozen, is partly so, or has nothing to train.",
)
def block_states(model: nn.Module) -> dict[str, str]:
    """Transfer: return for every child of `model`, by its name, what its parameters do.

    The words are "trains" (all of them require a gradient), "frozen" (none does), "partly" (some do), and
    "nothing" (it has no parameters).
    """
    words = {(): "nothing", (True,): "trains", (False,): "frozen", (False, True): "partly"}
    flags = {name: {p.requires_grad for p in child.parameters()} for name, child in model.named_children()}
    return {name: words[tuple(sorted(found))] for name, found in flags.items()}
