"""The weight gradient of a depthwise convolution: PyTorch's (oneDNN) beside ftlab's, place by place.

    python benchmarks/depthwise.py

CPU time of one thread, the least of several runs, 32 images, channels last. Decides `LARGEST_MAP` in
ftlab/training/caching/depthwise.py.
"""

import time

import torch

from ftlab.table import Table
from ftlab.training.caching.depthwise import weight_gradient

MAPS = {3: 1152, 6: 672, 7: 960, 12: 240, 24: 96}  # height and width, and channels that go with it


def least(function, runs=7):
    function()
    times = []
    for _ in range(runs):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return 1e3 * min(times)


def compare(kernel, size, stride):
    channels = MAPS[size]
    images = torch.randn(32, channels, size, size).to(memory_format=torch.channels_last)
    weight, pairs = torch.randn(channels, 1, kernel, kernel), [(stride,) * 2, (kernel // 2,) * 2]
    gradient = torch.randn_like(torch.conv2d(images, weight, None, *pairs, groups=channels))
    others = [(1, 1), False, (0, 0), channels, [False, True, False]]
    pytorch = least(lambda: torch.ops.aten.convolution_backward(gradient, images, weight, None, *pairs, *others))
    ours = least(lambda: weight_gradient(images, weight, gradient, *pairs))
    shape = f"{channels} x {size} x {size}"
    return [f"{kernel} x {kernel}", shape, str(stride), f"{pytorch:.2f}", f"{ours:.2f}", f"{pytorch / ours:.2f}"]


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [compare(kernel, size, stride) for kernel in (3, 5, 7) for size in MAPS for stride in (1, 2)]
    print(
        Table(
            ["kernel", "map", "stride", "PyTorch ms", "ftlab ms", "times as fast"],
            rows,
            title=__doc__.split("\n")[0],
        )
    )


if __name__ == "__main__":
    main()
