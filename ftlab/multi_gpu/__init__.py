"""Several processes, one model: launching them, what their wrappers do, and what goes into a checkpoint."""

from ftlab.multi_gpu.device import device
from ftlab.multi_gpu.launcher import launch

__all__ = ["device", "launch"]
