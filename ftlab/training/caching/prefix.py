"""The longest part of a forward pass that gives the same in every epoch, and the rest that is trained."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.module import _has_any_global_hook

from ftlab.given import child_of_wrapper, first_lazy
from ftlab.modes import keep_modes
from ftlab.training.caching.depthwise import QuickDepthwise
from ftlab.training.caching.memory_format import in_format
from ftlab.training.caching.walk import NotExactError, Walk, attribute, graph_input, is_watched, trace


class Rest(nn.Module):
    """What comes behind the prefix: activations in, logits out. It shares its modules with the model.

    Activations of several places are packed into one row per image, and unpacked here.
    """

    def __init__(self, as_is: fx.GraphModule, in_eval: fx.GraphModule, shapes: list[torch.Size]) -> None:
        super().__init__()
        self.as_is, self.in_eval, self.shapes = as_is, in_eval, shapes
        self.channels_last = False

    def forward(self, activations: Tensor) -> Any:
        """Return what the model gives for the images of these activations."""
        parts = unpack(activations, self.shapes)
        if not self.channels_last:
            return self.unpacked(*parts)
        with QuickDepthwise():
            return self.unpacked(*map(in_format, parts))

    def unpacked(self, *activations: Tensor) -> Any:
        """Return the same for the activations of each place."""
        return (self.as_is if self.training else self.in_eval)(*activations)


@dataclass
class Split:
    """A model in two parts.

    Attributes:
        prefix: Images (N, C, H, W) to a tuple of activations; its modules are those of the model.
        rest: Activations to what the model gives.
        after: The places whose activations are kept.
        why: Why the prefix ends where it does.
        shapes: The shape of each activation for one image.
        steps: The names of the modules and tensors in the prefix.
    """

    prefix: fx.GraphModule
    rest: Rest
    after: list[str]
    why: str
    shapes: list[torch.Size]
    steps: list[str]


def split(model: nn.Module, images: Tensor) -> Split:
    """Cut `model` behind its longest prefix that gives the same in every epoch.

    The model is not changed. A place belongs to the prefix if nothing in it can move: each parameter before it is
    frozen, each batch norm holds its statistics, and nothing there draws random numbers; the last is found out by
    running it.

    Args:
        model: Any module that `torch.fx` can trace, in the modes in which it will be trained.
        images: A few images, at least two.

    Raises:
        NotExactError: There is no such part, or it cannot be told apart.
    """
    refuse_what_cannot_be_split(model)
    graph, names = trace(model)
    walk = Walk(model, graph, names, images)
    ends, needed = _frontier(graph, walk.fixed, walk.is_per_image)
    if graph_input(graph) in ends and len(ends) == 1:
        raise NotExactError(f"there is no frozen part to compute once: {walk.first_reason()}")
    if not needed:
        raise NotExactError("what the model gives depends on no trainable parameter: there is nothing to train")
    if len({(walk.values[node].dtype, walk.values[node].device) for node in ends}) > 1:
        raise NotExactError("the activations at the cut differ in type or device: one tensor cannot keep them")
    prefix = _prefix(model, graph, ends)
    as_is = _behind(model, graph, ends, needed)
    after = [names[node] for node in ends]
    in_eval = _behind_in_eval(model, after) if _has_two_forwards(model) else as_is
    shapes = [walk.values[node].shape[1:] for node in ends]
    rest = Rest(as_is, in_eval, shapes)
    for module in (as_is, in_eval):
        module.training = model.training
    rest.training = any(module.training for module in model.modules())
    steps = [node.target for node in prefix.graph.nodes if node.op in ("call_module", "get_attr")]
    return Split(prefix, rest, after, walk.first_reason(), shapes, list(dict.fromkeys(steps)))


def refuse_what_cannot_be_split(model: nn.Module) -> None:
    """Refuse what is no plain model, and one that somebody listens to."""
    parameters = list(model.parameters())
    if all(parameter.requires_grad for parameter in parameters):
        raise NotExactError("no parameter of the model is frozen")
    if not any(parameter.requires_grad for parameter in parameters):
        raise NotExactError("every parameter of the model is frozen: there is nothing left to train")
    if isinstance(model, torch.jit.ScriptModule) or child_of_wrapper(model) is not None:
        raise NotExactError(f"a {type(model).__name__} cannot be taken apart; give the model inside of it")
    if torch.is_autocast_enabled(parameters[0].device.type):
        raise NotExactError("autocast is on: the frozen part would be kept in another precision")
    if _has_any_global_hook():
        raise NotExactError("a hook on all modules would no longer be called for those that are computed once")
    if lazy := first_lazy(model):
        raise NotExactError(f"{lazy!r} has no shape yet: call the model once with real data")
    _refuse_shared_memory(model)
    _refuse_containers(model)


def _refuse_containers(model: nn.Module) -> None:
    """Refuse a module with others inside that does more than its traced forward would."""
    containers = [(name or "the model", module) for name, module in model.named_modules() if module._modules]
    for name, module in containers:
        if "checkpoint" in _names_in(type(module).forward):
            raise NotExactError(f"the forward of {name!r} runs parts twice, by a checkpoint of activations")
        if is_watched(module):
            raise NotExactError(f"a hook on {name!r} would no longer be called")


def _refuse_shared_memory(model: nn.Module) -> None:
    """Refuse a frozen tensor that moves because it lies where a trainable one lies."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    trainable = {_memory(tensor): name for name, tensor in tensors if tensor.requires_grad and tensor.numel()}
    for name, tensor in tensors:
        if not tensor.requires_grad and tensor.numel() and _memory(tensor) in trainable:
            other = trainable[_memory(tensor)]
            raise NotExactError(f"{name!r} is frozen, but lies in the memory of {other!r} and moves with it")


def _memory(tensor: Tensor) -> tuple:
    return tensor.device, tensor.untyped_storage().data_ptr()


def unpack(packed: Tensor, shapes: list[torch.Size]) -> list[Tensor]:
    """Return the activations of each place; the opposite of `pack`."""
    if len(shapes) == 1:
        return [packed]
    parts = packed.split([shape.numel() for shape in shapes], dim=1)
    return [
        part.unflatten(1, shape) if shape else part.flatten() for part, shape in zip(parts, shapes, strict=True)
    ]


def pack(activations: tuple[Tensor, ...]) -> Tensor:
    """Return one tensor with the activations of all places, a row per image.

    Example:
        >>> pack((torch.zeros(2, 3), torch.zeros(2, 4, 5))).shape
        torch.Size([2, 23])
    """
    if len(activations) == 1:
        return activations[0]
    return torch.cat([each.reshape(len(each), -1) for each in activations], dim=1)


def _frontier(graph: fx.Graph, fixed: Any, is_per_image: Any) -> tuple[list[fx.Node], set[fx.Node]]:
    """Return the places whose values are kept, and the nodes that the rest has to run."""
    ends, needed, todo = set(), set(), list(output_of(graph).all_input_nodes)
    while todo:
        node = todo.pop()
        if node in ends or node in needed:
            continue
        if node in fixed and (node.op == "placeholder" or is_per_image(node)):
            ends.add(node)
        else:  # something that moves; or a size, a tuple, a table of positions, which the rest works out again
            needed.add(node)
            todo += node.all_input_nodes
    return [node for node in graph.nodes if node in ends], needed


def output_of(graph: fx.Graph) -> fx.Node:
    """Return the node of what the model gives."""
    return next(node for node in graph.nodes if node.op == "output")


def _prefix(model: nn.Module, graph: fx.Graph, ends: list[fx.Node]) -> fx.GraphModule:
    smaller, copies = fx.Graph(), {}
    wanted = _ancestors(ends)
    for node in graph.nodes:
        if node in wanted:
            copies[node] = smaller.node_copy(node, copies.__getitem__)
    smaller.output(tuple(copies[node] for node in ends))
    return _module(model, smaller, "Prefix")


def _ancestors(nodes: list[fx.Node]) -> set[fx.Node]:
    seen, todo = set(), list(nodes)
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            todo += node.all_input_nodes
    return seen


def _behind(
    model: nn.Module, graph: fx.Graph, ends: list[fx.Node | None], needed: set[fx.Node]
) -> fx.GraphModule:
    smaller = fx.Graph()
    copies = {node: smaller.placeholder(f"kept_{place}") for place, node in enumerate(ends)}
    for node in graph.nodes:
        if node in needed:
            copies[node] = smaller.node_copy(node, copies.__getitem__)
    smaller.node_copy(output_of(graph), copies.__getitem__)
    return _module(model, smaller, "Rest")


def _module(model: nn.Module, graph: fx.Graph, name: str) -> fx.GraphModule:
    # GraphModule keeps references to the model's modules, but sets its own flag of train mode
    with keep_modes(model):
        return fx.GraphModule(model, graph, name)


def _has_two_forwards(model: nn.Module) -> bool:
    """Return whether Python code between the layers asks for the mode; tracing has written down the answer."""
    outer = (module for module in model.modules() if list(module.children()))
    return any("training" in _names_in(type(module).forward) for module in outer)


def _names_in(function: Any) -> tuple[str, ...]:
    return getattr(getattr(function, "__code__", None), "co_names", ())


def _behind_in_eval(model: nn.Module, after: list[str]) -> fx.GraphModule:
    """Trace the rest again in eval mode, behind the same places."""
    with keep_modes(model):
        model.eval()
        graph, names = trace(model)
    places = {name: node for node, name in names.items()}
    ends = [places.get(name) for name in after]  # a side branch may be there in train mode only
    _, needed = _frontier(graph, ends, lambda node: True)
    if any(node.op == "placeholder" for node in needed):
        raise NotExactError("in eval mode the forward takes another way through the frozen part")
    return _behind(model, graph, ends, needed)


def parts_of(model: nn.Module, steps: list[str]) -> Iterator[tuple[str, nn.Module | Tensor]]:
    """Yield what is at these places of the model, by name: modules, with those inside of them, and tensors."""
    modules = dict(model.named_modules(remove_duplicate=False))  # one walk, not one per step
    for step in steps:
        place = modules[step] if step in modules else attribute(model, step)
        yield from [(step, place)] if isinstance(place, Tensor) else place.named_modules(prefix=step)


def tensors_of(parts: Iterable[tuple[str, nn.Module | Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters and buffers of these parts, by name."""
    for name, part in parts:
        if isinstance(part, Tensor):
            yield name, part
        else:
            own = [*part._parameters.items(), *part._buffers.items()]
            yield from ((f"{name}.{key}", tensor) for key, tensor in own if tensor is not None)
