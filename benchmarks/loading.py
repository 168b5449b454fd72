"""How long it takes to load a large model, and how much memory, the plain way and with `build`.

    python benchmarks/loading.py            # vit_l_16, 1.2 GB
    python benchmarks/loading.py resnet50

Each way runs in a process of its own. "loaded" is the time until the model is there, "used" the time until one
image has gone through it as well: mapped tensors are read only then. The file is in the system's cache in all
cases. The memory is the highest that the process had, less what it had before; pages of a mapped file count too,
though the system can take them back at any time.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from peak import peak, restart
from torchvision import models

from ftlab.table import Table

WAYS = {
    "plain": "model = make(); model.load_state_dict(torch.load(path))",
    "plain, mmap": "model = make(); model.load_state_dict(torch.load(path, mmap=True))",
    "meta, assign": """
with torch.device('meta'): model = make()
model.load_state_dict(torch.load(path), assign=True)""",
    "build": "model = build(make, path)",
}


def one(name: str, path: str, way: str) -> None:
    from ftlab.checkpoints.building import build

    size = models.get_model_weights(name).DEFAULT.transforms().crop_size[0]
    image = torch.randn(1, 3, size, size)
    names = {"torch": torch, "build": build, "path": path, "make": lambda: models.get_model(name)}
    restart()
    before, start = peak(), time.perf_counter()
    exec(WAYS[way], names)
    loaded, when_loaded = time.perf_counter() - start, peak() - before
    with torch.no_grad():
        names["model"].eval()(image)
    used = time.perf_counter() - start
    print(json.dumps([loaded, used, when_loaded / 2**20, (peak() - before) / 2**20]))


def main(name: str = "vit_l_16") -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{name}.pt")
        model = f"torchvision.models.get_model({name!r})"
        write = f"import torch, torchvision; torch.save({model}.state_dict(), {str(path)!r})"
        subprocess.run([sys.executable, "-c", write], check=True)
        size = path.stat().st_size / 2**20
        for way in WAYS:
            command = [sys.executable, __file__, name, str(path), way]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append([way, *json.loads(done.stdout)])
    headers = ["way", "loaded, s", "used, s", "memory when loaded, MiB", "memory when used, MiB"]
    print(Table(headers, rows, title=f"{name}, {size:,.0f} MiB, {torch.get_num_threads()} threads"))


if __name__ == "__main__":
    one(*sys.argv[1:]) if len(sys.argv) == 4 else main(*sys.argv[1:])
