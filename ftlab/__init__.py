"""ftlab, the fine-tuning lab: it explains what just happened to this model.

Each topic is a module of the same name: `ftlab.pretrained`, `ftlab.freezing`, ... A topic is loaded when it
is first used, so that `import ftlab` itself loads neither torch nor Jupyter nor a plot library.
"""

from importlib import import_module

__version__ = "0.1.0"

_MODULES = frozenset(
    {
        "capstone",
        "checkpoints",
        "data",
        "exercises",
        "finetune",
        "freezing",
        "learning_rates",
        "modes",
        "multi_gpu",
        "plots",
        "pretrained",
        "probes",
        "strategy",
        "summary",
        "surgery",
        "training",
        "widgets",
    }
)


def __getattr__(name: str):
    if name in _MODULES:
        return import_module(f"ftlab.{name}")
    raise AttributeError(f"ftlab has no topic {name!r}; the topics are {', '.join(sorted(_MODULES))}")


def __dir__() -> list[str]:
    return sorted([*_MODULES, "__version__"])
