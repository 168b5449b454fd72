"""Checkpoints: look into a file, say why it does not load, load it with proof, save and resume exactly.

Each name is loaded when it is first used, so that `checkpoints.inspect` works without loading torch.
"""

from ftlab.lazy import lazy

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
__getattr__, __dir__ = lazy(__name__, _NAMES)
