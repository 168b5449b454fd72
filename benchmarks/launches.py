"""Launch again and again, with what makes a plain script abort now and then: DDP and FSDP models that stay alive.

    python benchmarks/launches.py [count] [nproc]

Every launch must succeed, and none may leave a process. The plain script ends as most people's do: with
`destroy_process_group()` while its model is alive.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from ftlab.multi_gpu import launch

PLAIN = """
import torch, torch.distributed as dist
from torch import nn
torch.set_num_threads(1)
dist.init_process_group("gloo")
model = nn.parallel.DistributedDataParallel(nn.Linear(4, 1))
for _ in range(5):
    model(torch.ones(2, 4)).sum().backward()
dist.destroy_process_group()
"""


def train():
    models = [DistributedDataParallel(nn.Linear(4, 1)), fully_shard(nn.Linear(4, 1))]
    for model in models:
        model.keep = models  # a circle: it is alive until Python ends
        for _ in range(5):
            model(torch.ones(2, 4)).sum().backward()
    return dist.get_rank()


def plain(script, nproc):
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={nproc}", script]
    return subprocess.run([sys.executable, *command], capture_output=True).returncode == 0


def main(count="20", nproc="2"):
    count, nproc, good, seconds = int(count), int(nproc), 0, []
    for number in range(count):
        start = time.perf_counter()
        try:
            good += launch(train, nproc=nproc, device="cpu") == list(range(nproc))
        except Exception as error:
            print(f"launch {number}: {type(error).__name__}: {error}", flush=True)
        seconds.append(time.perf_counter() - start)
    left = psutil.Process().children(recursive=True)
    print(
        f"launch: {good} of {count} good, {len(left)} processes left, median {sorted(seconds)[count // 2]:.1f} s"
    )
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "plain.py"
        script.write_text(PLAIN)
        rounds = min(count, 20)
        print(
            f"torchrun with a plain script: {sum(plain(script, nproc) for _ in range(rounds))} of {rounds} good"
        )


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main(*sys.argv[1:])
