"""Probes: the sentences that lessons teach, each with a few lines that show it to be true today.

PyTorch's defaults change. A probe makes such a change visible: the test that runs it fails with the sentence
that is no longer true. The probes of a topic stand in `ftlab/probes/<topic>.py`, or in a folder of that name;
`python -m ftlab.probes` runs them with whatever is installed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from ftlab.random_state import keep_random_state
from ftlab.table import Table

__all__ = ["Probe", "all_probes", "probe", "run", "topics"]


@dataclass(frozen=True)
class Probe:
    """A sentence about PyTorch or torchvision, and a function that tells whether it is true."""

    sentence: str
    function: Callable[[], bool]

    @property
    def topic(self) -> str:
        """The topic whose lesson says the sentence."""
        return self.function.__module__.removeprefix(f"{__name__}.").partition(".")[0]

    def holds(self) -> bool:
        """Return whether the sentence is true with what is installed; the random state is as before."""
        with keep_random_state(seed=0):
            return bool(self.function())


def probe(sentence: str) -> Callable[[Callable[[], bool]], Probe]:
    """Declare a probe: decorate a function without arguments that returns whether `sentence` is true.

    Example:
        >>> @probe("A new parameter requires a gradient.")
        ... def parameters_learn():
        ...     import torch
        ...     return torch.nn.Linear(1, 1).weight.requires_grad
        >>> parameters_learn.holds()
        True
    """
    return lambda function: Probe(sentence, function)


def topics() -> list[str]:
    """Return the topics that have probes.

    Example:
        >>> "freezing" in topics()
        True
    """
    return [module.name for module in iter_modules(__path__) if not module.name.startswith("_")]


def all_probes(topic: str | None = None) -> list[Probe]:
    """Return every probe that is declared, or those of one topic."""
    modules = [import_module(f"{__name__}.{name}") for name in ([topic] if topic else topics())]
    return [probe for module in modules for probe in _probes_in(module)]


def _probes_in(module: ModuleType) -> Iterator[Probe]:
    """Yield the probes of a module, and of its parts in the order in which it imports them."""
    for value in vars(module).values():
        if isinstance(value, Probe):
            yield value
        elif isinstance(value, ModuleType) and value.__name__.startswith(f"{module.__name__}."):
            yield from _probes_in(value)


def run(topic: str | None = None) -> Table:
    """Return a table of the sentences, and whether each is true with what is installed.

    A probe that raises is no longer true: what it needs is gone.
    """
    return Table(
        ["topic", "sentence", "true here"], [[p.topic, p.sentence, _verdict(p)] for p in all_probes(topic)]
    )


def _verdict(probe: Probe) -> str:
    try:
        return "yes" if probe.holds() else "NO"
    except Exception as error:
        return f"NO: {type(error).__name__}: {error}"
