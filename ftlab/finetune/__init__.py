"""Fine-tuning from a folder of images to a checked, resumable model: what `ftlab finetune` does.

Each name is loaded when it is first used, so that `ftlab --help` need not load torch.
"""

from ftlab.lazy import lazy

_HOMES = {
    "Plan": "plan",
    "Prediction": "predicting",
    "predict": "predicting",
    "run": "running",
    "split": "running",
}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy(__name__, _HOMES)
