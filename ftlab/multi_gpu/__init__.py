"""Several processes, one model: launching them, what their wrappers do, and what goes into a checkpoint."""

from ftlab.multi_gpu import sharded
from ftlab.multi_gpu.agreement import Agreement, agreement
from ftlab.multi_gpu.data_parallel import DataParallelByHand, DataParallelSteps, data_parallel_steps
from ftlab.multi_gpu.device import device
from ftlab.multi_gpu.launcher import launch
from ftlab.multi_gpu.preflight import Preflight, preflight
from ftlab.multi_gpu.sampling import EachOnceSampler, Shares, shares
from ftlab.multi_gpu.wrappers import strip_prefixes, unwrap

__all__ = [
    "Agreement",
    "DataParallelByHand",
    "DataParallelSteps",
    "EachOnceSampler",
    "Preflight",
    "Shares",
    "agreement",
    "data_parallel_steps",
    "device",
    "launch",
    "preflight",
    "sharded",
    "shares",
    "strip_prefixes",
    "unwrap",
]
