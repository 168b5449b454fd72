"""What makes the frozen part fast, one thing at a time: EfficientNet-Lite0 over the emoji at 96 pixels.

    python benchmarks/prefix.py [--model efficientnet_lite0] [--pixels 96] [--threads 1] [--rounds 3]

Each row changes one thing against the row named "as `cached` does it". The variants take turns, and the best of
the rounds counts; CPU time, so that other programs disturb less. `differs` is the largest difference from the
plain model, beside the largest activation. The last rows are wall time: threads and worker processes take it
elsewhere.
"""

import argparse
import copy
import time

import torch
from torch import nn

from ftlab import data, pretrained
from ftlab.table import Table
from ftlab.training import loader
from ftlab.training.caching.cache import Cache
from ftlab.training.caching.folding import _fold, _overwrite, _widen
from ftlab.training.caching.memory_format import in_format
from ftlab.training.caching.side import SideBySide


def variants(prefix):
    """Return, by name, what is to be run on a batch, the batch size, and the mode without gradients."""
    last = {"memory_format": torch.channels_last}
    all_steps = [_fold, _overwrite, _widen]
    channels_last, channels_first = made(prefix, all_steps).to(**last), made(prefix, all_steps)
    not_folded, not_in_place, copied = (
        made(prefix, [step for step in all_steps if step is not without]).to(**last) for without in all_steps
    )
    half = copy.deepcopy(channels_last).to(torch.bfloat16)
    inference, plain = torch.inference_mode, torch.no_grad

    def ours(batch):
        return channels_last(batch.contiguous(**last))

    return {
        "the model as it is": (prefix, 32, plain),
        "as `cached` does it": (ours, 16, inference),
        "no_grad": (ours, 16, plain),
        "not channels last": (channels_first, 16, inference),
        "batch norm not folded": (lambda batch: not_folded(batch.contiguous(**last)), 16, inference),
        "not in place": (lambda batch: not_in_place(batch.contiguous(**last)), 16, inference),
        "images copied to pad them": (lambda batch: copied(batch.contiguous(**last)), 16, inference),
        **{f"batches of {size}": (ours, size, inference) for size in (4, 8, 32, 64, 128)},
        "bfloat16": (lambda batch: (half(batch.contiguous(**last).bfloat16())[0].float(),), 16, inference),
    }


def made(prefix, steps):
    """Return a copy that each of these steps of `fast` has changed."""
    changed = copy.deepcopy(prefix)
    for step in steps:
        step(changed)
    return changed


def run(function, batch, mode, images):
    with mode():
        return torch.cat([function(each)[0] for each in images.split(batch)])


def decoding(dataset):
    """Return the rows on reading the images: here, and in worker processes."""
    rows = []
    for workers in (0, 1, 2):
        batches = torch.utils.data.DataLoader(dataset, 32, num_workers=workers)
        start = time.perf_counter()
        for _ in batches:
            pass
        rows.append([f"only reading the images, {workers} worker processes", time.perf_counter() - start, "", ""])
    return rows


def threads(prefix, dataset):
    """Return the rows on reading and running: on one batch after the other, or on two batches at once."""
    rows = []
    for what, together in {"here, on all cores": False, "in two threads, on half of them": True}.items():
        best = float("inf")
        for _ in range(3):
            start = time.perf_counter()
            with SideBySide(torch.device("cpu")) as beside:
                if not together:
                    beside.pool = None
                for first in range(0, len(dataset) - 15, 16):
                    batch = torch.stack([dataset[place][0] for place in range(first, first + 16)])
                    beside.call(run, lambda images: prefix(in_format(images)), 16, torch.inference_mode, batch)
            best = min(best, time.perf_counter() - start)
        rows.append([f"reading and running, {what}", best, "", ""])
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--pixels", type=int, default=96)
    parser.add_argument("--threads", type=int, default=1, help="2 or more show what two threads are good for")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    weights = "DEFAULT" if options.model == "efficientnet_lite0" else None
    model = pretrained.load(options.model, weights=weights, num_classes=8).requires_grad_(False).eval()
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    head.requires_grad_(True)
    dataset = data.emoji("train", transform=pretrained.preprocessing(size=options.pixels))
    cache = Cache(model, loader(dataset))
    prefix, ours_alone = cache.parts.prefix, cache.prefix
    images = torch.stack([dataset[place][0] for place in range(0, len(dataset), max(1, options.pixels // 48))])
    tried = variants(prefix)
    best, outputs = dict.fromkeys(tried, float("inf")), {}
    for _ in range(options.rounds):
        for name, (function, batch, mode) in tried.items():
            start = time.process_time()
            outputs[name] = run(function, batch, mode, images)
            best[name] = min(best[name], time.process_time() - start)
    expected, ours = outputs["the model as it is"], best["as `cached` does it"]
    rows = []
    for name, seconds in best.items():
        error = (outputs[name] - expected).abs().max().item()
        rows.append([name, seconds, f"{seconds / ours:.2f}", f"{error:.1e} of {expected.abs().max():.1f}"])
    headers = ["frozen part", "seconds", "times ours", "differs"]
    rows += threads(ours_alone, dataset) + decoding(dataset)
    print(Table(headers, rows, title=f"{options.model}, {len(images)} images; wall time: {len(dataset)} images"))


if __name__ == "__main__":
    main()
