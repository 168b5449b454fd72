"""Checkpoints: look into a file, say why it does not load, load it with proof, save and resume exactly.

Each name is loaded when it is first used, so that `checkpoints.inspect` works without loading torch.
"""

from importlib import import_module

_NAMES = {
    # name: the module that has it
    "CheckpointInfo": "info",
    "Diagnosis": "diagnosis",
    "Finding": "info",
    "Exhibit": "exhibits.exhibit",
    "LoadReceipt": "receipt",
    "Museum": "exhibits.exhibit",
    "diagnose": "diagnosing",
    "inspect": "inspection",
    "load_into": "receipt",
    "museum": "exhibits.room",
    "Ablation": "resuming",
    "Checkpoint": "content",
    "Remap": "optimizers",
    "Resume": "resuming",
    "Run": "runs",
    "Saved": "content",
    "ablate": "resuming",
    "build": "building",
    "load": "loading",
    "remap_optimizer": "optimizers",
    "restore": "restoring",
    "save": "saving",
    "verify_resume": "resuming",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str):
    if name in _NAMES:
        return getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"ftlab.checkpoints has no {name!r}; it has {', '.join(sorted(_NAMES))}")


def __dir__() -> list[str]:
    return sorted(_NAMES)
