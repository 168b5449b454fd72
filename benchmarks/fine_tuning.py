"""Fine-tuning side by side: ftlab, a plain PyTorch loop, fastai, Lightning and skorch, in one run.

    python benchmarks/fine_tuning.py [--seeds 5] [--rows head third all welcome] [--tools ...] [--epochs N]

The same images (emoji, 96 pixels), the same network (EfficientNet-Lite0), the same optimizer, rates, batches and
epochs, the accuracy on the validation images after each epoch. Each measurement is a process of its own, and the
tools take turns, so that a busy machine hits all of them. What is measured begins when network and data sets are
there, and ends with the last validation: imports and loading the parameters are not in it. The CPU time says what
the work costs where other programs take the processor away. Memory is the peak of the process.

The other tools are installed beside this file (benchmarks/.venv, once), never into ftlab's own environment; they
use the PyTorch that is there.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import time
import warnings
from pathlib import Path

from peak import peak

from ftlab.table import Table

HERE = Path(__file__).parent
PEERS = {"fastai": "2.8.12", "lightning": "2.6.6", "skorch": "1.4.0"}
TOOLS = ["ftlab", "pytorch", *PEERS]
PIXELS, BATCH = 96, 32
# what is trained, epochs, learning rate
ROWS = {
    "head": ("head only", 20, 3e-3),
    "third": ("last third of the blocks", 20, 3e-4),
    "all": ("everything", 5, 3e-4),
    "welcome": ("the trainings and measurements of lesson 00", 3, 3e-3),
}


def build(row, seed, weights="DEFAULT"):
    """Return the network with what the row does not train frozen; in train mode, as PyTorch has it."""
    import torch

    from ftlab import pretrained

    torch.manual_seed(seed)
    model = pretrained.load(weights=weights, num_classes=8)
    frozen = {"head": 9, "welcome": 9, "third": 6, "all": 0}[row]
    model.features[:frozen].requires_grad_(False)
    return model


def sets(vendor="noto"):
    from ftlab import data, pretrained

    prepare = pretrained.preprocessing(size=PIXELS)
    return [data.emoji(split, vendor=vendor, transform=prepare) for split in ("train", "val")]


def optimizer_of(model, lr):
    import torch

    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)


def ftlab(model, train, val, epochs, lr, seed):
    """Hold what is frozen in eval mode, as lesson 05 teaches; fit does the rest."""
    from ftlab.training import fit, loader

    for block in model.features:
        if not any(p.requires_grad for p in block.parameters()):
            block.eval()
    batches = loader(train, batch_size=BATCH, shuffle=True), loader(val, batch_size=BATCH)
    history = fit(model, *batches, epochs=epochs, optimizer=optimizer_of(model, lr), seed=seed, progress=False)
    return history.cached


def pytorch(model, train, val, epochs, lr, seed):
    """Follow the loop of PyTorch's transfer learning tutorial: a train and a val phase in each epoch."""
    import torch
    from torch.utils.data import DataLoader

    phases = {"train": DataLoader(train, BATCH, shuffle=True), "val": DataLoader(val, BATCH)}
    optimizer, criterion = optimizer_of(model, lr), torch.nn.CrossEntropyLoss()
    for _ in range(epochs):
        for phase, batches in phases.items():
            model.train(phase == "train")
            running_loss, running_corrects = 0.0, 0
            for inputs, labels in batches:
                optimizer.zero_grad()
                with torch.set_grad_enabled(phase == "train"):
                    outputs = model(inputs)
                    loss = criterion(outputs, labels)
                    if phase == "train":
                        loss.backward()
                        optimizer.step()
                running_loss += loss.item() * inputs.size(0)
                running_corrects += torch.sum(outputs.argmax(1) == labels)


def fastai(model, train, val, epochs, lr, seed):
    from functools import partial

    import torch
    from fastai.callback import progress  # noqa: F401 - gives a Learner its no_bar
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.metrics import accuracy
    from fastai.optimizer import OptimWrapper

    loaders = DataLoaders.from_dsets(train, val, bs=BATCH, num_workers=0, device=torch.device("cpu"))
    chosen = [p for p in model.parameters() if p.requires_grad]
    learner = Learner(
        loaders,
        model,
        loss_func=torch.nn.CrossEntropyLoss(),
        opt_func=partial(OptimWrapper, opt=torch.optim.AdamW),
        splitter=lambda _: chosen,
        metrics=accuracy,
    )
    with learner.no_bar(), learner.no_logging():
        learner.fit(epochs, lr, wd=0.01)


def lightning(model, train, val, epochs, lr, seed):
    import logging

    import lightning as lt
    import torch
    from torch.utils.data import DataLoader

    class Module(lt.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = model

        def training_step(self, batch, _):
            return torch.nn.functional.cross_entropy(self.model(batch[0]), batch[1])

        def validation_step(self, batch, _):
            outputs = self.model(batch[0])
            self.log("loss", torch.nn.functional.cross_entropy(outputs, batch[1]))
            self.log("accuracy", (outputs.argmax(1) == batch[1]).float().mean())

        def configure_optimizers(self):
            return optimizer_of(model, lr)

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    off = dict.fromkeys(["enable_checkpointing", "enable_progress_bar", "enable_model_summary", "logger"], False)
    trainer = lt.Trainer(max_epochs=epochs, accelerator="cpu", devices=1, num_sanity_val_steps=0, **off)
    model.train()
    trainer.fit(Module().train(), DataLoader(train, BATCH, shuffle=True), DataLoader(val, BATCH))


def skorch(model, train, val, epochs, lr, seed):
    import torch
    from skorch import NeuralNetClassifier
    from skorch.helper import predefined_split

    learner = NeuralNetClassifier(
        model,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        lr=lr,
        max_epochs=epochs,
        batch_size=BATCH,
        classes=range(8),
        iterator_train__shuffle=True,
        train_split=predefined_split(val),
        verbose=0,
    )
    learner.fit(train, y=None)


def measure(tool, row, seed, threads, epochs):
    """Run one training in this process; return what it cost, and how good the network is."""
    import torch

    import_peer(tool)
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    _, usual, lr = ROWS[row]
    epochs = epochs or usual
    model, (train, val) = build(row, seed), sets()
    models = [model] + ([build(row, seed, weights=None)] if row == "welcome" else [])
    torch.manual_seed(seed)
    wall, cpu = time.perf_counter(), time.process_time()
    said = [globals()[tool](each, train, val, epochs, lr, seed) for each in models]
    if row == "welcome":
        for vendor in ("noto", "twemoji"):
            for images in sets(vendor):
                accuracy(model, images)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "seconds": wall,
        "cpu": cpu,
        "memory": peak() / 2**20,
        "accuracy": accuracy(model, val),
        "said": said[0],
    }


def accuracy(model, images):
    from ftlab.training import evaluate, loader

    return evaluate(model, loader(images, batch_size=BATCH), progress=False).accuracy


def import_peer(tool):
    """Load the tool before the clock starts."""
    if tool in PEERS:
        __import__({"fastai": "fastai.learner"}.get(tool, tool))


def environment():
    """Return the interpreter that has the peers; set it up if it is not there."""
    folder = HERE / ".venv"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    ready = folder / "ready"
    if not ready.exists() or ready.read_text() != repr(PEERS):
        print(f"setting up {folder} with {', '.join(PEERS)}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        packages = subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"], text=True
        )
        # what ftlab runs with, PyTorch above all, is used as it is
        Path(packages.strip(), "ftlab.pth").write_text(
            f"{sysconfig.get_paths()['purelib']}\n{HERE.parent}\n", encoding="utf-8"
        )
        wanted = [f"{name}=={version}" for name, version in PEERS.items()]
        constraints = HERE.parent / "constraints.txt"
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--constraint", constraints, *wanted], check=True)
        ready.write_text(repr(PEERS), encoding="utf-8")
    return python


def run(python, tool, row, seed, threads, epochs):
    """Measure in a process of its own."""
    settings = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(HERE.parent)}
    command = [python, __file__, "--measure", tool, row, *map(str, (seed, threads, epochs))]
    ran = subprocess.run(command, capture_output=True, text=True, env=settings)
    if ran.returncode:
        sys.exit(f"{tool}, {row}, seed {seed} failed:\n{ran.stderr[-2000:]}")
    return json.loads(ran.stdout.splitlines()[-1])


def whole_lesson():
    """Return the seconds of lesson 00 from the start of its kernel to its last cell, as a reader runs it."""
    import nbformat
    from nbclient import NotebookClient

    start = time.perf_counter()
    lesson = HERE.parent / "notebooks/00_welcome.ipynb"
    NotebookClient(
        nbformat.read(lesson, as_version=4), resources={"metadata": {"path": str(lesson.parent)}}
    ).execute()
    return time.perf_counter() - start


def table(row, found, epochs):
    """Return the table of one row; the ratios are to the fastest of the others."""
    what, usual, _ = ROWS[row]
    median = {
        tool: {key: statistics.median(each[key] for each in runs) for key in ("seconds", "cpu", "memory")}
        for tool, runs in found.items()
    }
    others = [tool for tool in found if tool != "ftlab"] or list(found)
    best = {key: min(median[tool][key] for tool in others) for key in ("seconds", "cpu")}
    rows = []
    for tool, costs in median.items():
        right = [100 * each["accuracy"] for each in found[tool]]
        spread = f" ± {statistics.stdev(right):.1f}" if len(right) > 1 else ""
        times = [f"{best[key] / costs[key]:.2f}" for key in ("seconds", "cpu")]
        seconds = [f"{costs[key]:.2f}" for key in ("seconds", "cpu")]
        memory, share = f"{costs['memory']:,.0f}", f"{statistics.mean(right):.1f}{spread}"
        rows.append([tool, seconds[0], times[0], seconds[1], times[1], memory, share])
    headers = ["tool", "seconds", "times as fast", "CPU seconds", "times as fast", "peak MiB", "accuracy %"]
    count = len(next(iter(found.values())))
    note = next((runs[0]["said"] for runs in found.values() if runs[0]["said"]), "")
    title = f"\n{what}, {epochs or usual} epochs; median of {count} seeds, beside the fastest of the others"
    return Table(headers, rows, title=title, note=f"ftlab: {note}" if note else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--epochs", type=int, default=0, help="another number than that of the row, to try it out"
    )
    options = parser.parse_args()
    python = environment()
    for row in options.rows:
        found = {tool: [] for tool in options.tools}
        for seed in range(options.seeds):
            for tool in options.tools:
                found[tool].append(run(python, tool, row, seed, options.threads, options.epochs))
        print(table(row, found, options.epochs), flush=True)
        if row == "welcome" and "ftlab" in options.tools:
            print(f"the whole notebook, with its kernel, panels and exercises: {whole_lesson():.1f} seconds")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        tool, row, *numbers = sys.argv[2:]
        print(json.dumps(measure(tool, row, *map(int, numbers))))
    else:
        main()
