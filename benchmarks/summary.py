"""What looking at a model costs: `ftlab.summary.summarize` beside torchinfo and torchsummary, in one run.

    python benchmarks/summary.py [model ...]

Each runs in a process of its own, on the same model with 224 pixels, one image, one thread; the model is built
before, and only the look is measured: wall time, and by how much the memory of the process rose at its peak.
The first look also loads code. What it did to a model in training whose first batch norm is held in eval mode is
looked up afterwards. torchsummary is no dependency of ftlab: `pip install torchsummary`; without it the run ends
with that sentence.
"""

import contextlib
import importlib.util
import io
import json
import subprocess
import sys
import time

import torch
from peak import peak, restart
from torch import nn
from torchvision import models

from ftlab.summary import summarize
from ftlab.table import Table

MIB = 2**20


def look(tool, model):
    """Let `tool` look at the model; return the parameters and giga multiply-adds that it found."""
    if tool == "ftlab":
        found = summarize(model, (1, 3, 224, 224))
        return found.total_params, found.multiply_adds / 1e9
    if tool == "torchinfo":
        import torchinfo

        found = torchinfo.summary(model, input_size=(1, 3, 224, 224), verbose=0)
        return found.total_params, found.total_mult_adds / 1e9
    from torchsummary import summary

    with contextlib.redirect_stdout(io.StringIO()) as said:
        summary(model, (3, 224, 224), device="cpu")
    return int(said.getvalue().split("Total params:")[1].split()[0].replace(",", "")), None


def on_meta(name):
    with torch.device("meta"):
        return models.get_model(name)


def measure(tool, name):
    torch.set_num_threads(1)
    model = on_meta(name).to_empty(device="cpu").train()
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.fill_(0.01 if tensor.is_floating_point() else 0)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms[:1]:
        norm.eval()
    modes = [m.training for m in model.modules()]
    random = torch.get_rng_state()
    restart()
    before, start = peak(), time.perf_counter()
    look(tool, model)
    first, rise = time.perf_counter() - start, peak() - before
    changed = [
        "statistics" if any(norm.num_batches_tracked > 0 for norm in norms) else "",
        "modes" if modes != [m.training for m in model.modules()] else "",
        "random state" if not torch.equal(random, torch.get_rng_state()) else "",
    ]
    start = time.perf_counter()
    parameters, work = look(tool, model)
    seconds = time.perf_counter() - start
    return {
        "first": first,
        "seconds": seconds,
        "rise": rise,
        "parameters": parameters,
        "work": work,
        "changed": ", ".join(filter(None, changed)) or "nothing",
    }


def row(tool, name):
    ran = subprocess.run([sys.executable, __file__, "--measure", tool, name], capture_output=True, text=True)
    if ran.returncode:
        last = ran.stderr.strip().splitlines()[-1] if ran.stderr.strip() else f"exit code {ran.returncode}"
        return [name, tool, "failed", "", "", "", "", last[:60]]
    found = json.loads(ran.stdout)
    work = "" if found["work"] is None else f"{found['work']:.3f}"
    times = [f"{found[key]:.2f}" for key in ("first", "seconds")]
    return [name, tool, *times, round(found["rise"] / MIB), found["parameters"], work, found["changed"]]


def main(*names):
    if importlib.util.find_spec("torchsummary") is None:
        sys.exit("torchsummary is not installed, and is no dependency of ftlab: pip install torchsummary")
    names = names or ("resnet50", "vit_h_14")
    rows = [row(tool, name) for name in names for tool in ("ftlab", "torchinfo", "torchsummary")]
    headers = ["model", "tool", "first look (s)", "second (s)", "memory rose by (MiB)"]
    headers += ["parameters", "G multiply-adds", "changed in the model"]
    counts = [sum(p.numel() for p in on_meta(name).parameters()) for name in names]
    note = "PyTorch's own count of parameters: " + ", ".join(f"{number:,}" for number in counts)
    print(Table(headers, rows, title="One image of 224 pixels, one thread", note=note))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(*sys.argv[2:])))
    else:
        main(*sys.argv[1:])
