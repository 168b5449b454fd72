"""A model as the rows of a tree: every module that has parameters, and the parameters between modules."""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Block:
    """One row: a module with what lies in it, or a parameter that stands beside modules.

    Attributes:
        path: Its name in the model, `""` for the model itself.
        kind: The class of the module, or `"parameter"`.
        parameters: Its parameters, each tensor once.
        norms: The modules in it that keep running statistics.
    """

    path: str
    kind: str
    parameters: list[nn.Parameter]
    norms: list[nn.Module]

    @property
    def size(self) -> int:
        """How many values the parameters have."""
        return sum(parameter.numel() for parameter in self.parameters)

    @property
    def trains(self) -> bool | None:
        """True if all parameters train, False if none does, None if some do."""
        flags = {parameter.requires_grad for parameter in self.parameters}
        return None if len(flags) == 2 else True in flags


def blocks(model: nn.Module) -> list[Block]:
    """Return the model's blocks, each before those inside it; the model is not changed.

    Parameters that stand beside modules, such as the `class_token` of a vision transformer, have their own row:
    no module name reaches them alone.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Linear(8, 2))
        >>> [(block.path, block.kind, block.size) for block in blocks(model)]
        [('', 'Sequential', 258), ('0', 'Conv2d', 224), ('1', 'BatchNorm2d', 16), ('3', 'Linear', 18)]
    """
    return [block for block in _walk("", model) if block.parameters or not block.path]


def outline(found: list[Block]) -> list[str]:
    """Return the paths to unfold at first: the model, and what holds most of the blocks around it.

    Example:
        >>> features = nn.Sequential(*(nn.Linear(1, 1) for _ in range(5)))
        >>> outline(blocks(nn.ModuleDict({"features": features, "classifier": nn.Linear(1, 1)})))
        ['', 'features']
    """
    paths, inside = [""], found
    while True:
        within = {b.path: _within(inside, b.path) for b in inside if b.path != paths[-1]}
        most = max(within, key=lambda path: len(within[path]), default="")
        if len(within.get(most, [])) <= 0.6 * len(inside):
            return paths
        paths, inside = [*paths, most], within[most]


def tops(found: list[Block], unfolded: list[str]) -> list[Block]:
    """Return the blocks in sight that are folded: together they hold every parameter once."""
    inside = [b for b in found if b.path not in unfolded and b.path.rpartition(".")[0] in unfolded]
    return inside or found[:1]  # a single layer is its own block


def _walk(path: str, module: nn.Module) -> list[Block]:
    """Return the block of the module and those inside it; each tensor is collected once, from below."""
    inside = [_walk(_join(path, name), child) for name, child in module.named_children()]
    own = dict(module.named_parameters(recurse=False))
    parameters = {id(p): p for p in own.values()}
    norms = [module] if module._buffers.get("running_mean") is not None else []
    for below in inside:
        parameters.update((id(p), p) for p in below[0].parameters)
        norms += below[0].norms
    block = Block(path, type(module).__name__, list(parameters.values()), norms)
    beside = own if any(below[0].parameters for below in inside) else {}
    loose = [Block(_join(path, name), "parameter", [p], []) for name, p in beside.items()]
    return [block, *loose, *(found for below in inside for found in below)]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _within(found: list[Block], path: str) -> list[Block]:
    return [block for block in found if block.path == path or block.path.startswith(f"{path}.")]
