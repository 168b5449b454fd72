"""A process group of one, for checks: wrappers of several processes work in it, and nothing is started."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist


@contextmanager
def process_group() -> Iterator[None]:
    """Be rank 0 of 1 inside the block; a group that is there already is used, and stays."""
    if dist.is_initialized():
        yield
        return
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        gc.collect(1)  # what is young: a wrapper that outlives its group can end Python with an abort
        dist.destroy_process_group()
