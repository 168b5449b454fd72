"""`ftlab finetune` on one and on two processes, beside a plain loop, plain DDP, and Lightning's DDP.

    python benchmarks/finetune.py [--seeds 1] [--rows head all] [--tools ...] [--epochs N] [--threads N]

Whole programs are measured, from the start of Python to the last file written: the same folder of images (emoji,
96 pixels, the same split), the same network (EfficientNet-Lite0), optimizer, rates, global batch and epochs, a
validation after each epoch, and the model saved at the end. ftlab also checks the images, audits the freeze,
saves after each epoch, and draws its report. Two processes get one thread each, one process gets a thread for
each core, and the tools take turns. Where there are two processes, torchrun starts them, and they talk over gloo.

"per epoch" is from the first epoch's end to the last one's: without imports, start, frozen features, and report.
Memory is the sum of the peaks (VmHWM) of all processes, torchrun's own included; libraries that they share count
in each. Below stands what this machine can give: how much more work two processes do that have nothing to say to
each other, and what it costs to bring the gradients of two together.

The peers are those of fine_tuning.py, in the environment that it sets up.
"""

import argparse
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fine_tuning import environment

from ftlab.table import Table

PIXELS, BATCH, LR, BODY = 96, 32, 3e-3, 0.1
ROWS = {"head": ("head only", 20), "all": ("everything", 4)}  # what is trained, epochs
# tool, processes, threads of each, 0 for all; the first one is what the others are compared with
TOOLS = {
    "plain loop": ("plain", 1, 0),
    "plain DDP": ("plain", 2, 1),
    "Lightning's DDP": ("lightning", 2, 1),
    "ftlab, one thread": ("ftlab", 1, 1),
    "ftlab": ("ftlab", 1, 0),
    "ftlab, torchrun": ("ftlab", 2, 1),
}


def ftlab(folder, row, epochs, seed, out):
    """Call the command as it is."""
    from ftlab.cli import main

    strategy = {"head": "head", "all": "everything"}[row]
    choices = {"size": PIXELS, "strategy": strategy, "epochs": epochs, "seed": seed, "batch-size": BATCH}
    choices |= {"lr": LR, "body": BODY, "precision": "float32"}
    flags = [part for name, value in choices.items() for part in (f"--{name}", str(value))]
    code = main(["finetune", str(folder), "--out", str(out), "--no-augment", "--no-balance", *flags])
    if code:
        sys.exit(code)


def build(row, seed):
    """Return the network with what the row does not train frozen, and its optimizer."""
    import torch

    from ftlab import pretrained

    torch.manual_seed(seed)
    model = pretrained.load(num_classes=8)
    model.features.requires_grad_(row == "all")
    body = [p for p in model.features.parameters() if p.requires_grad]
    groups = [{"params": model.classifier.parameters(), "lr": LR}]
    groups += [{"params": body, "lr": LR * BODY}] if body else []
    return model, torch.optim.AdamW(groups)


def sets(folder, seed):
    from ftlab import data, pretrained

    prepare = pretrained.preprocessing(size=PIXELS)
    return [data.folder(folder, side, transform=prepare, seed=seed) for side in ("train", "val")]


def plain(folder, row, epochs, seed, out):
    """Follow PyTorch's tutorials: the transfer learning loop, and with two processes the one on DDP."""
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel
    from torch.utils.data import DataLoader, DistributedSampler

    size = int(os.environ.get("WORLD_SIZE", 1))
    if size > 1:
        dist.init_process_group("gloo")
    (model, optimizer), (train, val) = build(row, seed), sets(folder, seed)
    trained = DistributedDataParallel(model) if size > 1 else model
    samplers = [DistributedSampler(s, shuffle=s is train) if size > 1 else None for s in (train, val)]
    batches = DataLoader(train, BATCH // size, shuffle=size == 1, sampler=samplers[0])
    val_batches = DataLoader(val, BATCH // size, sampler=samplers[1])
    for epoch in range(epochs):
        if size > 1:
            samplers[0].set_epoch(epoch)
        trained.train()
        for images, labels in batches:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(trained(images), labels).backward()
            optimizer.step()
        counts = count_right(model, val_batches)
        if size > 1:
            dist.all_reduce(counts)
        say(epoch, counts[0] / counts[1])
    if int(os.environ.get("RANK", 0)) == 0:
        torch.save(model.state_dict(), out)
    if size > 1:
        del trained  # alive, it can abort the process when gloo's threads end
        dist.barrier()
        dist.destroy_process_group()


def count_right(model, batches):
    """Return how many images are taken for what they are, and how many there are."""
    import torch

    model.eval()
    counts = torch.zeros(2)
    with torch.no_grad():
        for images, labels in batches:
            counts += torch.tensor([(model(images).argmax(1) == labels).sum(), len(labels)])
    return counts


def lightning(folder, row, epochs, seed, out):
    import logging
    import warnings

    import lightning as lt
    import torch
    from lightning.pytorch.strategies import DDPStrategy
    from torch.utils.data import DataLoader

    (model, optimizer), (train, val) = build(row, seed), sets(folder, seed)
    size = int(os.environ.get("WORLD_SIZE", 1))

    class Module(lt.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = model

        def training_step(self, batch, _):
            return torch.nn.functional.cross_entropy(self.model(batch[0]), batch[1])

        def validation_step(self, batch, _):
            right = (self.model(batch[0]).argmax(1) == batch[1]).float().mean()
            self.log("accuracy", right, sync_dist=size > 1)

        def on_validation_epoch_end(self):
            say(self.current_epoch, self.trainer.callback_metrics["accuracy"])

        def configure_optimizers(self):
            return optimizer

    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    off = dict.fromkeys(["enable_checkpointing", "enable_progress_bar", "enable_model_summary", "logger"], False)
    strategy = DDPStrategy(process_group_backend="gloo") if size > 1 else "auto"
    trainer = lt.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=size, strategy=strategy, num_sanity_val_steps=0, **off
    )
    loaders = DataLoader(train, BATCH // size, shuffle=True), DataLoader(val, BATCH // size)
    trainer.fit(Module().train(), *loaders)
    if trainer.is_global_zero:
        torch.save(model.state_dict(), out)


def say(epoch, accuracy):
    if int(os.environ.get("RANK", 0)) == 0:
        print(f"epoch {epoch + 1}: val accuracy {float(accuracy):.4f}", flush=True)


def be(tool, row, epochs, seed, folder, out, peaks):
    """Be one process of a training; leave the peak of its memory in the folder `peaks`."""
    globals()[tool](Path(folder), row, int(epochs), int(seed), Path(out))
    leave_peak(peaks)


def be_torchrun(peaks, *arguments):
    from torch.distributed.run import main

    main(arguments)
    leave_peak(peaks)


def leave_peak(peaks):
    # not ru_maxrss: a child begins with that of its parent
    kib = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
    Path(peaks, str(os.getpid())).write_text(str(kib))


def measure(python, name, row, seed, epochs, images, most):
    """Run one training; return what it cost and how good the network is."""
    tool, processes, threads = TOOLS[name]
    settings = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads or most),
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    with tempfile.TemporaryDirectory() as folder:
        peaks = Path(folder, "peaks")
        peaks.mkdir()
        worker = [__file__, "--be", tool, row, str(epochs), str(seed), images, f"{folder}/out", peaks]
        torchrun = ["--torchrun", peaks, "--standalone", f"--nproc-per-node={processes}"]
        command = [python, "-u", *([__file__, *torchrun] if processes > 1 else []), *worker]
        before, start, ends, said = cpu_of_children(), time.perf_counter(), [], []
        with subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=settings,
        ) as process:  # fmt: skip
            for line in process.stdout:
                said.append(line)
                if found := re.match(r"epoch \d+.*val accuracy ([\d.]+)", line):
                    ends.append((time.perf_counter(), float(found[1])))
        if process.returncode or len(ends) != epochs:
            sys.exit(f"{name}, {row}, seed {seed} failed:\n{''.join(said)[-3000:]}")
        return {
            "seconds": time.perf_counter() - start,
            "cpu": cpu_of_children() - before,
            "epoch": (ends[-1][0] - ends[0][0]) / max(1, epochs - 1),
            "memory": sum(int(file.read_text()) for file in peaks.iterdir()) / 1024,
            "accuracy": ends[-1][1],
        }


def cpu_of_children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(row, found, epochs, most):
    what, _ = ROWS[row]
    median = {
        name: {key: statistics.median(each[key] for each in runs) for key in runs[0]}
        for name, runs in found.items()
    }
    first = next(iter(median.values()))
    rows = []
    for name, costs in median.items():
        _, processes, threads = TOOLS[name]
        line = [name, f"{processes} x {threads or most}"]
        for key, digits in (("seconds", 1), ("cpu", 1), ("epoch", 2)):
            ratio = f"{first[key] / costs[key]:.2f}" if costs[key] else ""
            line += [f"{costs[key]:.{digits}f}", ratio]
        rows.append([*line, f"{costs['memory']:,.0f}", f"{100 * costs['accuracy']:.1f}"])
    times = "times as fast"
    headers = ["program", "processes x threads", "seconds", times, "CPU seconds", times, "per epoch", times]
    first, runs = next(iter(found.items()))
    title = f"\n{what}, {epochs} epochs; median of {len(runs)} seeds, beside the {first}"
    return Table([*headers, "peak MiB", "accuracy %"], rows, title=title)


def steps_per_second(images, threads, seconds=6.0):
    """Return how many images a second go forward and backward, while the other processes do the same."""
    import torch
    import torch.distributed as dist

    from ftlab import pretrained

    torch.set_num_threads(threads)
    model = pretrained.load(num_classes=8).eval()
    batch = torch.randn(images, 3, PIXELS, PIXELS)
    model(batch).sum().backward()
    dist.barrier()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        model(batch).sum().backward()
        count += images
    return count / (time.perf_counter() - start)


def meeting(numbers, times=50):
    """Return the seconds that it takes to add up so many numbers of each process."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    gradient = torch.ones(numbers)
    dist.all_reduce(gradient)
    start = time.perf_counter()
    for _ in range(times):
        dist.all_reduce(gradient)
    return (time.perf_counter() - start) / times


def limits(count, most):
    """Measure what this machine can give to two processes; `count` is the number of training images."""
    from ftlab.multi_gpu import launch

    def rate(processes, images, threads):
        return sum(launch(steps_per_second, images, threads, nproc=processes, device="cpu", show=None))

    one, wide, two = rate(1, BATCH, 1), rate(1, BATCH, most), rate(2, BATCH // 2, 1)
    rows = [
        ["forward and backward, 1 process, 1 thread", f"{one:.0f} images/s", ""],
        [f"... 1 process, {most} threads", f"{wide:.0f} images/s", f"{wide / one:.2f}"],
        ["... 2 processes, 1 thread, each for itself", f"{two:.0f} images/s", f"{two / one:.2f}"],
    ]
    for row, (what, _) in ROWS.items():
        numbers = sum(p.numel() for p in build(row, 0)[0].parameters() if p.requires_grad)
        cost = max(launch(meeting, numbers, nproc=2, device="cpu", show=None))
        each = f"{1e3 * cost:.1f} ms, {cost * -(-count // BATCH):.2f} s per epoch"
        rows.append([f"all-reduce of {numbers:,} gradients on gloo, {what}", each, ""])
    return Table(["limit", "measured", "times one"], rows, title="\nwhat this machine can give")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS))
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--epochs", type=int, default=0, help="another number than that of the row")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="of a single process (a busy machine: 1)"
    )
    options = parser.parse_args()
    python = environment()
    from ftlab.paths import DATA

    with tempfile.TemporaryDirectory() as folder:
        images = shutil.copytree(DATA / "emoji" / "noto", Path(folder, "emoji"))
        for row in options.rows:
            epochs = options.epochs or ROWS[row][1]
            found = {name: [] for name in options.tools}
            for seed in range(options.seeds):
                for name in options.tools:
                    found[name].append(measure(python, name, row, seed, epochs, images, options.threads))
                    print(f"{row}, seed {seed}, {name}: {found[name][-1]}", file=sys.stderr, flush=True)
            print(table(row, found, epochs, options.threads), flush=True)
        print(limits(len(sets(images, 0)[0]), options.threads), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--be"]:
        be(*sys.argv[2:])
    elif sys.argv[1:2] == ["--torchrun"]:
        be_torchrun(*sys.argv[2:])
    else:
        main()
