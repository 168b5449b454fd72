"""ftlab, the fine-tuning lab: it explains what just happened to this model.

Each topic is a module of the same name: `ftlab.pretrained`, `ftlab.freezing`, ... A topic is loaded when it
is first used, so that `import ftlab` itself loads neither torch nor Jupyter nor a plot library.
"""

from ftlab.lazy import lazy

__version__ = "0.1.0"

_TOPICS = [
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
]

__getattr__, __dir__ = lazy(__name__, dict.fromkeys(_TOPICS, ""))
