"""The weight gradient of depthwise convolutions on small maps, faster than PyTorch's on a processor."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.overrides import TorchFunctionMode

# Measured, see benchmarks/depthwise.py: up to there adding up place by place is faster than oneDNN, which has no
# quick way for kernels larger than 3 x 3.
LARGEST_MAP = 144


class QuickDepthwise(TorchFunctionMode):
    """A context in which slow depthwise convolutions get another backward, and all else is as it was.

    The values are the same; the gradients are, up to rounding.

    Example:
        >>> images = torch.randn(2, 4, 6, 6).to(memory_format=torch.channels_last)
        >>> weight = torch.randn(4, 1, 5, 5, requires_grad=True)
        >>> with QuickDepthwise():
        ...     output = torch.nn.functional.conv2d(images, weight, padding=2, groups=4)
        >>> output.grad_fn.name()
        'DepthwiseBackward'
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run `func`, or a convolution with the other backward."""
        if func is torch.conv2d:
            call = _in_order(*args, **(kwargs or {}))
            if is_slow(*call):
                return Depthwise.apply(*call[:5])
        return func(*args, **(kwargs or {}))


def _in_order(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> tuple:
    pairs = (value if isinstance(value, str) else _pair(value) for value in (stride, padding, dilation))
    return input, weight, bias, *pairs, groups


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def is_slow(images, weight, bias, stride, padding, dilation, groups) -> bool:
    """Return whether the backward here is faster than PyTorch's, and gives the same."""
    wanted = torch.is_grad_enabled() and weight.requires_grad and not torch.is_autocast_enabled("cpu")
    if not wanted or images.device.type != "cpu" or images.ndim != 4 or isinstance(padding, str):
        return False
    depthwise = weight.shape[1] == 1 and weight.shape[0] == groups == images.shape[1]
    if not depthwise or max(weight.shape[2:]) <= 3 or dilation != (1, 1):
        return False
    places = images.shape[2] // stride[0] * (images.shape[3] // stride[1])
    return places <= LARGEST_MAP and images.is_contiguous(memory_format=torch.channels_last)


class Depthwise(torch.autograd.Function):
    """A depthwise convolution whose weight gradient is added up place by place of the kernel."""

    @staticmethod
    def forward(ctx: FunctionCtx, images, weight, bias, stride, padding) -> Tensor:
        """Return PyTorch's own convolution."""
        ctx.save_for_backward(images, weight)
        ctx.has_bias, ctx.stride, ctx.padding = bias is not None, stride, padding
        return torch.conv2d(images, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return PyTorch's own gradient of images and bias, and ours of the weight."""
        images, weight = ctx.saved_tensors
        for_images = None
        if ctx.needs_input_grad[0]:
            # not torch.nn.grad.conv2d_input: it does not know that the images have their channels last
            options = None, ctx.stride, ctx.padding, (1, 1), False, (0, 0), len(weight)
            for_images, *_ = torch.ops.aten.convolution_backward(
                gradient, images, weight, *options, (True, False, False)
            )
        for_weight = weight_gradient(images, weight, gradient, ctx.stride, ctx.padding)
        for_bias = gradient.sum((0, 2, 3)) if ctx.has_bias and ctx.needs_input_grad[2] else None
        return for_images, for_weight, for_bias, None, None


def weight_gradient(images: Tensor, weight: Tensor, gradient: Tensor, stride, padding) -> Tensor:
    """Return the gradient (C, 1, kernel height, kernel width) of the weight of a depthwise convolution.

    A weight at place (i, j) of the kernel has met, at output (y, x), the pixel (y * stride + i - padding, ...);
    its gradient is the sum of those pixels, each times the gradient of the output that it went into.

    Args:
        images: (N, C, H, W).
        weight: (C, 1, kernel height, kernel width).
        gradient: Of the output, (N, C, H', W').
        stride: In both directions.
        padding: In both directions.
    """
    images, gradient = images.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)  # channels last: no copy
    steps = range(weight.shape[2]), range(weight.shape[3])
    rows, columns = (
        [_overlap(images.shape[1 + d], gradient.shape[1 + d], i - padding[d], stride[d]) for i in steps[d]]
        for d in (0, 1)
    )
    sums = [
        (gradient[:, y_out, x_out] * images[:, y_in, x_in]).sum((0, 1, 2))
        for y_out, y_in in rows
        for x_out, x_in in columns
    ]
    return torch.stack(sums, 1).view_as(weight)


def _overlap(size: int, outputs: int, offset: int, stride: int) -> tuple[slice, slice]:
    """Return the outputs whose pixel `output * stride + offset` is inside the image, and those pixels."""
    first = max(0, -(offset // stride))
    last = min(outputs, (size - 1 - offset) // stride + 1)
    if first >= last:
        return slice(0, 0), slice(0, 0)
    start = first * stride + offset
    return slice(first, last), slice(start, (last - 1) * stride + offset + 1, stride)
