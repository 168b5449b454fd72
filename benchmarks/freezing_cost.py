"""What `ftlab.freezing.cost` counts, beside a real step that is measured: time, memory kept, gradients, state.

    python benchmarks/freezing_cost.py [model] [batch] [pixels]

Times are the best of several real steps, in the CPU time of one thread; the ratios are to full training. The
counts must equal the measured bytes exactly; the work predicts the time only roughly, because a convolution's
two backward products are not equally fast and the elementwise operations are not counted.
"""

import sys
import time

import torch
from torch.autograd.graph import saved_tensors_hooks
from torchvision.models import get_model

from ftlab.freezing import cost, freeze, unfreeze
from ftlab.table import Table

MIB = 2**20


def measure(model, x, rounds=5):
    """Return the best forward and backward time in seconds, and the bytes that backward keeps and makes."""
    own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers(), x]}
    best = [float("inf"), float("inf")]
    for _ in range(rounds):
        model.zero_grad(set_to_none=True)
        saved, alive = {}, []

        def pack(tensor, saved=saved, alive=alive):
            if tensor.untyped_storage().data_ptr() not in own:
                saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
                alive.append(tensor)
            return tensor

        start = time.thread_time()
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            out = model(x)
        middle = time.thread_time()
        if out.requires_grad:
            out.sum().backward()
        best = [min(best[0], middle - start), min(best[1], time.thread_time() - middle)]
    gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    return *best, sum(saved.values()), gradients


def main(name="resnet18", batch="8", pixels="112"):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = get_model(name, weights=None, num_classes=10)
    x = torch.randn(int(batch), 3, int(pixels), int(pixels))
    children = [child for child, module in model.named_children() if any(True for _ in module.parameters())]
    choices = {"nothing": []}
    choices |= {f"first {i} of {len(children)} parts": children[:i] for i in range(1, len(children))}
    choices |= {f"last {i} of {len(children)} parts": children[-i:] for i in (1, len(children) // 2)}
    rows, full, seconds = [], None, []
    for label, parts in choices.items():
        unfreeze(model)
        model.train()
        if parts:
            freeze(model, *parts, batch_norm="train")
        start = time.perf_counter()
        counted = cost(model, x)
        seconds.append(time.perf_counter() - start)
        _, backward, kept, gradients = measure(model, x)
        full = full or backward
        rows.append(
            [
                label,
                f"{counted.backward_share:.0%}",
                f"{backward / full:.0%}",
                round(backward * 1000, 1),
                round(counted.now.activations / MIB, 2),
                round(kept / MIB, 2),
                round(counted.now.gradients / MIB, 2),
                round(gradients / MIB, 2),
            ]
        )
    headers = [
        "frozen",
        "work counted",
        "time measured",
        "ms",
        "kept (MiB)",
        "measured",
        "gradients (MiB)",
        "measured",
    ]
    counting = f"counting took {min(seconds):.2f} to {max(seconds):.2f} s"
    print(Table(headers, rows, title=f"{name}, backward of {batch} x 3 x {pixels} x {pixels}; {counting}"))


if __name__ == "__main__":
    main(*sys.argv[1:])
