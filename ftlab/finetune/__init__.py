"""Fine-tuning from a folder of images to a checked, resumable model: what `ftlab finetune` does."""

from importlib import import_module

_HOME = {
    "Plan": "plan",
    "Prediction": "predicting",
    "predict": "predicting",
    "run": "running",
    "split": "running",
}

__all__ = ["Plan", "Prediction", "predict", "run", "split"]


def __getattr__(name: str):
    # Late, so that `ftlab --help` need not load torch.
    if name in _HOME:
        return getattr(import_module(f"ftlab.finetune.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
