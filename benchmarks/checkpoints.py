"""What it costs to look at a checkpoint: `inspect` and `ftlab doctor` beside torch.load and safetensors.

    python benchmarks/checkpoints.py [--large]

The files have 100 tensors and 50 MB; with --large 5 GB more, as a sparse file that takes no room on the disk,
and of which torch.load still makes 5 GB of memory. Each way runs in a process of its own. "seconds" is the work,
without importing; "process" is all of it, from the start of Python to its end: what somebody waits for who calls
a command. "rose by" is by how much the memory of the process rose at its peak while it worked, mapped pages
included, as Linux counts it. safetensors is no dependency of ftlab; without it that line is left out. A sparse
file has no right checksums: the ways that compare them are left out for it.
"""

import argparse
import json
import struct
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from peak import peak, restart

from ftlab.table import Table

MB = 10**6
COUNT = 100  # tensors


def torch_load(path):
    import torch

    return lambda: torch.load(path, map_location="cpu", weights_only=True)


def torch_load_mapped(path):
    import torch

    return lambda: torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def inspect(path):
    from ftlab.checkpoints import inspect

    return lambda: inspect(path)


def inspect_with_checksums(path):
    from ftlab.checkpoints import inspect

    return lambda: inspect(path, checksums=True)


def inspect_and_read(path):
    import torch  # noqa: F401 - its import is not what is measured

    from ftlab.checkpoints import inspect

    return lambda: inspect(path).state_dict()


def doctor(path):
    from ftlab.checkpoints.doctor import examine

    return lambda: examine(path)


def safetensors_load(path):
    from safetensors.torch import load_file

    return lambda: load_file(path)


WAYS = {
    "inspect": (inspect, "zip"),
    "inspect, old format": (inspect, "old"),
    "inspect, safetensors": (inspect, "safetensors"),
    "inspect(checksums=True)": (inspect_with_checksums, "zip"),
    "inspect().state_dict()": (inspect_and_read, "zip"),
    "ftlab doctor": (doctor, "zip"),
    "torch.load": (torch_load, "zip"),
    "torch.load(mmap=True)": (torch_load_mapped, "zip"),
    "safetensors load_file": (safetensors_load, "safetensors"),
}


def measure(way, path):
    work = WAYS[way][0](path)
    restart()
    before, start = peak(), time.perf_counter()
    result = work()
    return {"seconds": time.perf_counter() - start, "rise": peak() - before, "kept": result is not None}


def row(way, path):
    start = time.perf_counter()
    command = [sys.executable, __file__, "--measure", way, str(path)]
    ran = subprocess.run(command, capture_output=True, text=True)
    whole = time.perf_counter() - start
    if ran.returncode:
        return [way, f"failed: {ran.stderr.strip().splitlines()[-1][:60]}", "", ""]
    found = json.loads(ran.stdout)
    return [way, f"{found['seconds']:.3f}", f"{whole:.2f}", f"{found['rise'] / MB:.1f}"]


def make(folder, size, *, sparse):
    """Write the files; a sparse one has holes in place of its numbers."""
    import torch

    each = size // COUNT // 4
    if sparse:
        with torch.serialization.skip_data():
            torch.save({f"layer{n}.weight": torch.empty(each) for n in range(COUNT)}, folder / "zip")
    else:
        state = {f"layer{n}.weight": torch.randn(each) for n in range(COUNT)}
        torch.save(state, folder / "zip")
        torch.save(state, folder / "old", _use_new_zipfile_serialization=False)
    table = {
        f"layer{n}.weight": {"dtype": "F32", "shape": [each], "data_offsets": [4 * each * n, 4 * each * (n + 1)]}
        for n in range(COUNT)
    }
    text = json.dumps(table).encode()
    with (folder / "safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        if sparse:
            file.truncate(8 + len(text) + 4 * each * COUNT)
        else:
            for tensor in state.values():
                file.write(tensor.numpy().tobytes())


def compare(size, *, sparse):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, size, sparse=sparse)
        rows = []
        for way, (_, kind) in WAYS.items():
            if (folder / kind).exists() and (way != "safetensors load_file" or find_spec("safetensors")):
                if sparse and way in ("inspect(checksums=True)", "ftlab doctor"):
                    continue
                rows.append(row(way, folder / kind))
    headers = ["way", "seconds", "process (s)", "memory rose by (MB)"]
    kind = " (sparse)" if sparse else ""
    print(Table(headers, rows, title=f"A checkpoint of {size // MB:,} MB{kind}, {COUNT} tensors"), end="\n\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="also 5 GB")
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(*args.measure)))
        return
    compare(50 * MB, sparse=False)
    if args.large:
        compare(5_000 * MB, sparse=True)


if __name__ == "__main__":
    main()
