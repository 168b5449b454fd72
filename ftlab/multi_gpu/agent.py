"""What `launch` starts: the elastic agent behind torchrun, on the lifeline. `python -m ftlab.multi_gpu.agent`."""

import json
import os
import sys
import uuid
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ftlab.multi_gpu import lifeline, worker


def main(folder: Path, nproc: int, device: str, join: bool) -> int:
    """Run the workers of the job in `folder`; note there how one ended that left without a word.

    Args:
        folder: The folder of the job.
        nproc: How many workers.
        device: "cpu", or "" for GPUs if there are enough.
        join: Whether the workers make the process group before they call the function.
    """
    lifeline.follow(pass_on=True)
    gpus = device != "cpu" and worker.can_have_gpus(nproc)
    try:
        if sys.platform == "linux" and not gpus:
            # Safe here, where torch's threads were never used; and each rank is spared the import of torch.
            elastic_launch(_config(folder, nproc, "fork"), worker.run)(folder, False, join)
        else:
            script = (
                "-u",
                "-m",
                "ftlab.multi_gpu.worker",
                str(folder),
                "gpus" if gpus else "",
                "join" if join else "",
            )
            elastic_launch(_config(folder, nproc, "spawn"), sys.executable)(*script)
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        (folder / "exit_codes.json").write_text(json.dumps(codes), encoding="utf-8")
        return 1
    return 0


def _config(folder: Path, nproc: int, start_method: str) -> LaunchConfig:
    """Return the settings of `torchrun --standalone --nproc-per-node=... --redirects=3`."""
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=nproc,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # the system chooses a port that is free
        local_addr="127.0.0.1",
        max_restarts=0,
        monitor_interval=0.05,
        start_method=start_method,
        logs_specs=DefaultLogsSpecs(str(folder / "logs"), redirects=Std.ALL),
        shutdown_timeout=2,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    code = main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4] == "join")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # nothing of the agent is worth a slow end
