"""A model as rows: one for every module, and one for every parameter that stands beside modules."""

from dataclasses import dataclass, field

from torch import nn
from torch.optim import Optimizer


@dataclass
class Own:
    """What belongs to a row itself, without the rows below it.

    Attributes:
        parameters: Its parameters that no row before has; a tied one stands in the row that comes first.
        buffers: Values in its buffers, such as batch norm statistics.
        tied: The names of those parameters that a row before has.
        multiply_adds: The work of its forward, without that of the modules it calls.
        activations: Bytes that autograd keeps of it for backward.
        calls: How often forward calls it.
        outputs: The shapes of the tensors that the last call gave.
    """

    kind: str
    module: nn.Module | None
    parameters: list[nn.Parameter] = field(default_factory=list)
    buffers: int = 0
    tied: list[str] = field(default_factory=list)
    multiply_adds: int = 0
    activations: int = 0
    calls: int = 0
    outputs: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Row:
    """A block of the model: a module with all that lies in it, or a parameter that stands beside modules.

    What a block has in all is the sum over its own row and the rows below it.

    Attributes:
        path: Its name in the model; `""` is the model itself.
        kind: The class of the module, or `"parameter"`.
        outputs: The shapes of the tensors that it gave, in its last call.
        calls: How often forward calls it; one with 0 is used by its parent in another way, or not at all.
        state: `"trains"`, `"frozen"`, `"partly"`, or `""` without parameters.
        mode: `"train"`, `"eval"`, `"mixed"` if modules in it differ, or `""` for a parameter.
        lr: The learning rates of its trainable parameters, `"none"` for one that the optimizer does not have;
            `""` without trainable parameters, or if no optimizer was given.
        tied: Names of parameters that it shares with a row before, where they are counted.
        parameters: Values in its parameters, each tensor once.
        trainable: Those of them that require a gradient.
        buffers: Values in its buffers, such as batch norm statistics.
        multiply_adds: Work of one forward.
        activations: Bytes that autograd keeps for backward.
        own_parameters: The same five, of this row alone; so for the other four that begin with `own_`.
    """

    path: str
    kind: str
    outputs: tuple[tuple[int, ...], ...]
    calls: int
    state: str
    mode: str
    lr: str
    tied: tuple[str, ...]
    parameters: int
    trainable: int
    buffers: int
    multiply_adds: int
    activations: int
    own_parameters: int
    own_trainable: int
    own_buffers: int
    own_multiply_adds: int
    own_activations: int

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    @property
    def depth(self) -> int:
        """How many blocks it lies in; 0 for the model itself."""
        return self.path.count(".") + 1 if self.path else 0

    @property
    def output(self) -> str:
        """The shapes that it gave, as text."""
        return ", ".join("×".join(map(str, shape)) or "scalar" for shape in self.outputs)


def own_rows(model: nn.Module) -> dict[str, Own]:
    """Return what each row has by itself, by path, each block before what lies in it."""
    first: dict[int, str] = {}  # tensor -> the name under which it is counted
    found = {}
    for path, module in model.named_modules(remove_duplicate=False):
        own = found[path] = Own(type(module).__name__, module)
        new = {id(b): b for b in module.buffers(recurse=False) if first.setdefault(id(b), path) == path}
        own.buffers = sum(buffer.numel() for buffer in new.values())
        beside = any(True for _ in module.children())
        for name, parameter in module.named_parameters(recurse=False):
            full = join(path, name)
            row = found.setdefault(full, Own("parameter", None)) if beside else own
            if first.setdefault(id(parameter), full) == full:
                row.parameters.append(parameter)
            else:
                row.tied.append(first[id(parameter)])
    return found


def finish(model: nn.Module, found: dict[str, Own], optimizer: Optimizer | None = None) -> list[Row]:
    """Return the rows, with the sums over what lies in each."""
    sums = {path: _own_sums(own) for path, own in found.items()}
    for path in reversed(found):  # each row comes before what lies in it
        if path:
            above = path.rpartition(".")[0]
            sums[above] = {key: value + sums[path][key] for key, value in sums[above].items()}
    inside = _inside(model, found)
    groups = {id(p): f"{group['lr']:g}" for group in _groups(optimizer) for p in group["params"]}
    return [
        Row(
            path=path,
            kind=own.kind,
            outputs=own.outputs,
            calls=own.calls,
            state=_state(inside[path]),
            mode=_mode(own.module),
            lr=_rates(inside[path], groups) if optimizer else "",
            tied=tuple(own.tied),
            **sums[path],
            **{f"own_{key}": value for key, value in _own_sums(own).items()},
        )
        for path, own in found.items()
    ]


def _own_sums(own: Own) -> dict[str, int]:
    return {
        "parameters": sum(p.numel() for p in own.parameters),
        "trainable": sum(p.numel() for p in own.parameters if p.requires_grad),
        "buffers": own.buffers,
        "multiply_adds": own.multiply_adds,
        "activations": own.activations,
    }


def _inside(model: nn.Module, found: dict[str, Own]) -> dict[str, list[nn.Parameter]]:
    """Return every parameter in each block, tied ones too."""
    inside: dict[str, list[nn.Parameter]] = {path: [] for path in found}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        inside[""].append(parameter)
        while name:
            if name in inside:  # a parameter of a layer has no row of its own
                inside[name].append(parameter)
            name = name.rpartition(".")[0]
    return inside


def _state(parameters: list[nn.Parameter]) -> str:
    words = {(): "", (True,): "trains", (False,): "frozen", (False, True): "partly"}
    return words[tuple(sorted({p.requires_grad for p in parameters}))]


def _groups(optimizer: Optimizer | None) -> list[dict]:
    return optimizer.param_groups if optimizer else []


def _rates(parameters: list[nn.Parameter], groups: dict[int, str]) -> str:
    rates = [groups.get(id(p), "none") for p in parameters if p.requires_grad]
    return ", ".join(dict.fromkeys(rates))


def _mode(module: nn.Module | None) -> str:
    if module is None:
        return ""
    modes = {inside.training for inside in module.modules()}
    return "mixed" if len(modes) == 2 else "train" if True in modes else "eval"


def join(path: str, name: str) -> str:
    """Return the path of what is called `name` in the block at `path`."""
    return f"{path}.{name}" if path else name
