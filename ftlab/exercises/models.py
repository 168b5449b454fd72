"""Small models to try answers on: torchvision's own classes with few channels, so that the names are real."""

from torch import nn
from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.models.vision_transformer import VisionTransformer


class SmallResNet(ResNet):
    """A ResNet with one block per stage and an eighth of the channels, or less; its head is `fc`."""

    def __init__(self, num_classes: int = 3, thinner: int = 8) -> None:
        self.thinner = thinner
        super().__init__(BasicBlock, [1, 1, 1, 1], num_classes=num_classes)
        self.fc = nn.Linear(512 // thinner, num_classes)
        _leave_zero(self)

    def _make_layer(self, block, planes: int, *args, **kwargs) -> nn.Sequential:
        return super()._make_layer(block, planes // self.thinner, *args, **kwargs)


def small_mobilenet(num_classes: int = 3) -> MobileNetV3:
    """Return a MobileNetV3 whose blocks `features.1` to `features.11` hold layers named `fc1` and `fc2` too."""
    block = InvertedResidualConfig(8, 3, 16, 8, use_se=True, activation="RE", stride=1, dilation=1, width_mult=1)
    return _leave_zero(MobileNetV3([block] * 11, last_channel=32, num_classes=num_classes))


def small_vit(num_classes: int = 3) -> VisionTransformer:
    """Return a vision transformer for images of 32 pixels, with its bare parameter `class_token`."""
    sizes = {"image_size": 32, "patch_size": 16, "num_layers": 1, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 16}
    return _leave_zero(VisionTransformer(**sizes, num_classes=num_classes))


def _leave_zero(model: nn.Module) -> nn.Module:
    """Start at small numbers what torchvision starts at 0: a trained model has no zeros.

    A head of zeros lets no gradient through, and a bias at 0 behind a dead ReLU never moves.
    """
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model
