"""Which mode every module is in, and what that does to the modules for which it matters."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torchvision.ops import StochasticDepth

from ftlab.given import expect
from ftlab.parts import by_part
from ftlab.table import Table, Tabled

MOVES, HOLDS, DROPS, PASSES = "statistics move", "statistics held", "drops at random", "passes all"


@dataclass(frozen=True)
class ModuleMode:
    """The mode of one module.

    Attributes:
        name: Its name in the model; "" for the model itself.
        kind: Its class.
        training: The flag: True is train mode.
        effect: What it does in this mode; "" if its mode makes no difference.
        against: Whether its flag is another than that of the module it lies in.
        inside: How many modules lie in it.
    """

    name: str
    kind: str
    training: bool
    effect: str
    against: bool
    inside: int


@dataclass(frozen=True, repr=False)
class ModeMap(Tabled):
    """The modes of a model's modules, as they were when `mode_map` looked; the repr is the table of its parts.

    Attributes:
        modules: Every module, the model itself first.
    """

    modules: list[ModuleMode]

    @property
    def matter(self) -> list[ModuleMode]:
        """The modules that do something else in train mode than in eval mode."""
        return [module for module in self.modules if module.effect]

    @property
    def against(self) -> list[ModuleMode]:
        """The modules whose mode is another than that of the module around them: by intention, or by accident."""
        return [module for module in self.modules if module.against]

    def table(self) -> Table:
        """Return a row per part of the model: its mode, and what that does."""
        parts = by_part({module.name: module for module in self.modules if not module.inside})
        rows = [[part or "model", mode_of(inside), _effects(inside)] for part, inside in parts.items()]
        root = self.modules[0]
        title = f"The model is in {word(root.training)} mode; its mode matters to {len(self.matter)} modules."
        return Table(["part", "mode", "what that does"], rows, title=title, note=self._note())

    def _note(self) -> str:
        if not self.against:
            return ""
        return f"In another mode than the module around them: {shorten([module.name for module in self.against])}"

    def to_dict(self) -> list[dict[str, Any]]:
        """Return one dictionary per module."""
        return [asdict(module) for module in self.modules]


def mode_map(model: nn.Module) -> ModeMap:
    """Say which mode every module is in, and what it does; the model is not changed, and not run.

    The trap: `model.training` is the flag of the outermost module alone. It says nothing about those inside.

    A module of a class that is not known here is said to depend on its mode if its `forward` reads `training`.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.2))
        >>> model[1].eval()
        BatchNorm1d(4, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
        >>> mode_map(model)
        The model is in train mode; its mode matters to 2 modules.
        part    mode    what that does
        ------  ------  ------------------
        0       train
        1       eval    statistics held: 1
        2       train   drops at random: 1
        In another mode than the module around them: 1
    """
    expect(model, nn.Module, "the model", "mode_map(model)")
    found, modules = [], dict(model.named_modules())
    for name, module in modules.items():
        around = modules[name.rpartition(".")[0]] if name else module
        against = module.training != around.training
        inside = sum(1 for _ in module.modules()) - 1
        found.append(ModuleMode(name, type(module).__name__, module.training, effect_of(module), against, inside))
    return ModeMap(found)


def effect_of(module: nn.Module) -> str:
    """Return what a module does in the mode that it is in; "" if another mode would do the same."""
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return _effect_of_norm(module)
    if isinstance(module, _DropoutNd | StochasticDepth):
        return (DROPS if module.training else PASSES) if module.p else ""
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
        return (DROPS if module.training else PASSES) if module.dropout else ""
    forward = getattr(type(module), "forward", None)  # a scripted module has none of Python
    if "training" in getattr(getattr(forward, "__code__", None), "co_names", ()):
        return f"computes as in {word(module.training)} mode"
    return ""


def _effect_of_norm(norm: nn.Module) -> str:
    if norm.running_mean is None:
        return ""  # the statistics of the batch, in both modes
    if not norm.training:
        return HOLDS
    # both leave the statistics as they are, and normalise with those of the batch all the same
    if not norm.track_running_stats or norm.momentum == 0:
        return "uses the batch, statistics stay"
    return MOVES


def mode_of(modules: list[ModuleMode]) -> str:
    """Return "train", "eval", or how many are in which."""
    train = sum(module.training for module in modules)
    if train in (0, len(modules)):
        return word(bool(train))
    return f"mixed: {train} train, {len(modules) - train} eval"


def word(training: bool) -> str:
    """Return the name of a mode."""
    return "train" if training else "eval"


def shorten(names: list[str], show: int = 3) -> str:
    """Return the number of names if there are many, and the first ones."""
    names = [name or "the model" for name in names]
    if len(names) <= show:
        return ", ".join(names)
    return f"{len(names)} ({', '.join(names[:show])}, ...)"


def _effects(modules: list[ModuleMode]) -> str:
    effects = [module.effect for module in modules if module.effect]
    return ", ".join(f"{effect}: {effects.count(effect)}" for effect in dict.fromkeys(effects))
