"""Cut a model: keep what comes before a place in its forward pass, with everything that happens there."""

from typing import Any

import torch
from torch import fx, nn
from torchvision.models.feature_extraction import (
    DualGraphModule,
    create_feature_extractor,
    get_graph_node_names,
)

from ftlab.given import refuse_wrapped
from ftlab.modes import keep_modes
from ftlab.nearest import nearest
from ftlab.surgery.dry import dry_run
from ftlab.table import Table

_KEY = "cut"


def cut(model: nn.Module, after: str) -> nn.Module:
    """Return the part of the model up to and with `after`; what comes later is not in it.

    The model is not changed. Its forward pass is traced by torchvision's feature extraction, so that what stands
    there between the layers (a flatten, a ReLU, a skip) is kept. `list(model.children())[:-1]` loses that. The
    names in the `state_dict` stay those of the model.

    The trap: the part *shares* its parameters, and its modes, with the model; training one trains both. For a
    part of its own, cut a `copy.deepcopy(model)`.

    Args:
        model: Any module that `torch.fx` can trace; every classification model of torchvision is one.
        after: A name of `cut_points`, or of any module or operation inside: "layer3", "features.4", "flatten".

    Raises:
        TypeError: It is no model.
        ValueError: There is no such place, or the model cannot be traced; a `DataParallel` has the model inside.

    Example:
        >>> from torchvision import models
        >>> cut(models.resnet18(), after="layer3")(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 256, 4, 4])
    """
    known = _names(model)
    if after not in {".".join(name.split(".")[:depth]) for name in known for depth in range(1, 9)}:
        raise ValueError(f"the model cannot be cut after {after!r}; {nearest(after, _outer(known, 1))}")
    part = _extract(model, {after: _KEY})
    for graph in (part.train_graph, part.eval_graph):
        output = _output(graph)
        output.args = (output.args[0][_KEY],)
        _drop_what_is_not_needed(graph)
    with keep_modes(model):
        smaller = DualGraphModule(model, part.train_graph, part.eval_graph, class_name=type(model).__name__)
        return smaller.train(model.training)


def cut_points(model: nn.Module, example: torch.Tensor, *, depth: int = 1) -> Table:
    """List where the model can be cut, what it gives there, and how many parameters it keeps.

    The model is not changed, and nothing is computed: a model of any size takes about a second.

    Args:
        model: Any module that `torch.fx` can trace.
        example: A batch, for the shapes.
        depth: How far to look inside: 1 shows "layer1", 2 shows "layer1.0" too.

    Raises:
        TypeError: It is no model, or the example is no tensor.
        ValueError: `depth` is below 1, or the model cannot be traced.

    Example:
        >>> cut_points(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), torch.zeros(1, 3, 8, 8))
          cut after  what it is    gives            parameters
        -----------  ------------  -------------  ------------
                  0  Conv2d        1 × 8 × 6 × 6           224
                  1  ReLU          1 × 8 × 6 × 6           224
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1, not {depth}")
    points = _outer(_names(model), depth)
    part = _extract(model, {point: point for point in points})
    shapes = dry_run(part, example)
    modules = dict(model.named_modules())
    ends = _output(part.eval_graph).args[0]
    rows = []
    for point in points:
        kind = type(modules[point]).__name__ if point in modules else "operation"
        if isinstance(shapes[point], torch.Tensor):
            gives = " × ".join(map(str, shapes[point].shape))
            rows.append([point, kind, gives, _parameters_before(ends[point], modules, model)])
    return Table(["cut after", "what it is", "gives", "parameters"], rows)


def _names(model: nn.Module) -> list[str]:
    """Return the places that the forward pass has in both modes, in order."""
    refuse_wrapped(model)
    with keep_modes(model):
        try:
            train, evaluation = get_graph_node_names(model, leaves(model), suppress_diff_warning=True)
        except Exception as error:
            raise ValueError(
                f"torch.fx cannot trace the forward of this {type(model).__name__} ({type(error).__name__}: "
                f"{error}). Take the output of a layer with a forward hook instead: "
                "ftlab.pretrained.features(model, batches, [name])"
            ) from error
    return [name for name in evaluation[1:] if name in set(train)]  # the first one is the input


def _outer(names: list[str], depth: int) -> list[str]:
    return list(dict.fromkeys(".".join(name.split(".")[:depth]) for name in names))


def leaves(model: nn.Module) -> dict[str, Any]:
    """Say that a layer without layers inside is taken as it is, whoever wrote it."""
    kinds = {type(module) for module in model.modules() if not list(module.children())}
    return {"leaf_modules": [kind for kind in kinds if kind is not type(model)]}


def _extract(model: nn.Module, nodes: dict[str, str]) -> Any:
    with keep_modes(model):  # it puts every module into the mode of the outermost one
        return create_feature_extractor(model, nodes, tracer_kwargs=leaves(model), suppress_diff_warning=True)


def _output(graph: fx.Graph) -> fx.Node:
    return next(node for node in graph.nodes if node.op == "output")


def _drop_what_is_not_needed(graph: fx.Graph) -> None:
    """Drop what the output does not use; torch.fx keeps every `assert`, and with it all the layers before it."""
    for node in reversed(graph.nodes):
        if not node.users and node.op not in ("output", "placeholder"):
            graph.erase_node(node)


def _parameters_before(node: fx.Node, modules: dict[str, nn.Module], model: nn.Module) -> int:
    """Count the parameters that the number at `node` depends on, each once."""
    todo, seen, sizes = [node], set(), {}
    while todo:
        step = todo.pop()
        if step in seen:
            continue
        seen.add(step)
        todo += step.all_input_nodes
        if step.op == "call_module":
            sizes.update((id(p), p.numel()) for p in modules[step.target].parameters())
        elif step.op == "get_attr" and step.target in dict(model.named_parameters()):
            sizes[id(model.get_parameter(step.target))] = model.get_parameter(step.target).numel()
    return sum(sizes.values())
