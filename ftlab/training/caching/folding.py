"""The prefix, made fast: batch norm folded into the convolution before it, channels last, less copying."""

import copy
from collections import Counter

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ftlab.modes.mapping import HOLDS, effect_of
from ftlab.pretrained.lite import SamePaddingConv2d
from ftlab.training.caching.memory_format import in_format
from ftlab.training.caching.walk import close


def fast(prefix: fx.GraphModule, images: Tensor, expected: tuple[Tensor, ...]) -> fx.GraphModule:
    """Return a copy of `prefix` that gives the same and is faster, or `prefix` itself where it would not be.

    The prefix is not changed. What was made faster is run on `images`, and kept if it gives what is expected, up
    to rounding.
    """
    folded = copy.deepcopy(prefix)
    with torch.no_grad():
        _fold(folded)
        _overwrite(folded)
        _widen(folded)
        if images.ndim == 4:
            folded.to(memory_format=torch.channels_last)
        found = folded(in_format(images))
    agree = all(close(one, other) for one, other in zip(found, expected, strict=True))
    return folded if agree else prefix


def _fold(module: fx.GraphModule) -> None:
    uses = Counter(node.target for node in module.graph.nodes)
    for node in list(module.graph.nodes):
        pair = _conv_and_norm(module, node, uses)
        if pair is None:
            continue
        conv, norm = pair
        conv.weight, conv.bias = _folded_weights(conv, norm)
        node.replace_all_uses_with(node.args[0])
        module.graph.erase_node(node)
    module.recompile()


def _overwrite(module: fx.GraphModule) -> None:
    """Let an activation function write over the output of a convolution that nobody else needs."""
    uses = Counter(node.target for node in module.graph.nodes)
    for node in module.graph.nodes:
        before = node.args[0] if node.args else None
        if node.op != "call_module" or uses[node.target] > 1 or not isinstance(before, fx.Node):
            continue
        layer = module.get_submodule(node.target)
        fresh = before.op == "call_module" and isinstance(module.get_submodule(before.target), nn.Conv2d)
        if fresh and len(before.users) == 1 and hasattr(layer, "inplace"):
            layer.inplace = True


class WideKernel(nn.Module):
    """A convolution of stride 2 that pads the right and the bottom more, on images of even size without a copy.

    A row and a column of zeros before its kernel let it pad the same on all sides, which `F.conv2d` does itself.
    On an odd size it already pads the same on all sides, and the convolution is called as it is.
    """

    def __init__(self, conv: SamePaddingConv2d) -> None:
        super().__init__()
        self.conv = conv
        self.weight = nn.Parameter(F.pad(conv.weight, (1, 0, 1, 0)), requires_grad=False)
        self.padding = tuple(size // 2 for size in conv.kernel_size)

    def forward(self, images: Tensor) -> Tensor:
        """Return what the convolution gives."""
        if any(size % 2 for size in images.shape[-2:]):
            return self.conv(images)
        return F.conv2d(images, self.weight, self.conv.bias, 2, self.padding, 1, self.conv.groups)


def _widen(module: fx.GraphModule) -> None:
    for name, layer in list(module.named_modules()):
        if not isinstance(layer, SamePaddingConv2d) or layer.stride != (2, 2) or layer.dilation != (1, 1):
            continue
        if all(size % 2 and size > 1 for size in layer.kernel_size):
            module.set_submodule(name, WideKernel(layer))


def _conv_and_norm(
    module: fx.GraphModule, node: fx.Node, uses: Counter
) -> tuple[nn.Conv2d, nn.BatchNorm2d] | None:
    """Return the two layers if `node` is a held batch norm and alone behind a convolution that is used once."""
    before = node.args[0] if node.args else None
    if node.op != "call_module" or not isinstance(before, fx.Node) or before.op != "call_module":
        return None
    if len(before.users) != 1 or uses[node.target] > 1 or uses[before.target] > 1:
        return None
    norm, conv = module.get_submodule(node.target), module.get_submodule(before.target)
    if not isinstance(norm, nn.BatchNorm2d) or not isinstance(conv, nn.Conv2d):
        return None
    return (conv, norm) if effect_of(norm) == HOLDS else None


def _folded_weights(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[nn.Parameter, nn.Parameter]:
    # in double precision: it is done once
    tensors = (conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    weight, bias, mean, var, scale, shift = (None if t is None else t.detach().double() for t in tensors)
    pair = fuse_conv_bn_weights(weight, bias, mean, var, norm.eps, scale, shift)
    return tuple(nn.Parameter(t.to(conv.weight.dtype), requires_grad=False) for t in pair)
