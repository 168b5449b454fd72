"""Channels last beside channels first: a training step and a validation batch of torchvision's families.

    python benchmarks/memory_format.py [--models resnet18 ...] [--pixels 96] [--batch 16] [--threads 1]

CPU time, the least of the rounds, in which both take turns. `channels last` is what `fit` and `evaluate` do: the
images are laid out anew, the parameters stay as they are, and depthwise convolutions get ftlab's backward.
"""

import argparse
import time
import warnings

import torch
from torchvision.models import get_model

from ftlab import pretrained
from ftlab.table import Table
from ftlab.training.caching.depthwise import QuickDepthwise
from ftlab.training.caching.memory_format import in_format

MODELS = ["efficientnet_lite0", "efficientnet_b0", "mobilenet_v2", "mobilenet_v3_large", "mnasnet1_0", "resnet18"]
MODELS += ["resnext50_32x4d", "regnet_y_400mf", "densenet121", "googlenet", "squeezenet1_1", "vgg11"]
MODELS += ["shufflenet_v2_x1_0", "convnext_tiny", "swin_t"]


def build(name):
    if name == "efficientnet_lite0":
        return pretrained.load(name, weights=None)
    options = {"aux_logits": False, "init_weights": True} if name == "googlenet" else {}
    return get_model(name, weights=None, **options)


def step(model, images, last):
    """Return the seconds of forward and backward."""
    model.zero_grad()
    start = time.process_time()
    if last:
        with QuickDepthwise():
            output = model(in_format(images))
    else:
        output = model(images)
    output.square().mean().backward()
    return time.process_time() - start


@torch.no_grad()
def validation(model, images, last):
    """Return the seconds of a forward pass in eval mode."""
    start = time.process_time()
    model(in_format(images) if last else images)
    return time.process_time() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    for name, usual in {"pixels": 96, "batch": 16, "threads": 1, "rounds": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=usual)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    rows = []
    for name in options.models:
        torch.manual_seed(0)
        model, images = build(name), torch.randn(options.batch, 3, options.pixels, options.pixels)
        row = [name]
        for measure, training in ((step, True), (validation, False)):
            model.train(training)
            found = [[measure(model, images, last) for last in (False, True)] for _ in range(options.rounds)]
            first, last = (min(each) for each in zip(*found, strict=True))
            row += [1e3 * first, f"{last / first:.2f}"]
        rows.append(row)
    headers = ["model", "step ms", "channels last", "validation ms", "channels last"]
    print(Table(headers, rows, title=f"{options.batch} images of {options.pixels} pixels"))


if __name__ == "__main__":
    main()
