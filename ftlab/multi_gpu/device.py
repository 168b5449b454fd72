"""Where the model of a rank belongs."""

import os

import torch
import torch.distributed as dist


def device() -> torch.device:
    """Return the device of this rank: its own GPU if the process group is NCCL's, the CPU otherwise.

    The trap: `torch.device("cuda")` is the first GPU in every process. All ranks then share one GPU, and the
    others are idle; NCCL refuses that.

    Raises:
        RuntimeError: There is no process group: this is no process that `launch` or `torchrun` started.

    Example:
        >>> from ftlab.multi_gpu import launch
        >>> launch(device, nproc=1, device="cpu")
        [device(type='cpu')]
    """
    if not dist.is_initialized():
        raise RuntimeError(
            "this process is no rank of a launch: call device() in the function that you give to launch, or call "
            "torch.distributed.init_process_group() first"
        )
    return (
        torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        if dist.get_backend() == "nccl"
        else torch.device("cpu")
    )
