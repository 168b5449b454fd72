"""Small models to try answers on: torchvision's own classes with few channels, so that the names are real."""

from torch import nn
from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.models.vision_transformer import VisionTransformer


class SmallResNet(ResNet):
    """A ResNet with one block per stage and an eighth of the channels; its head is `fc`."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(BasicBlock, [1, 1, 1, 1], num_classes=num_classes)
        self.fc = nn.Linear(512 // 8, num_classes)

    def _make_layer(self, block, planes: int, *args, **kwargs) -> nn.Sequential:
        return super()._make_layer(block, planes // 8, *args, **kwargs)


def small_mobilenet(num_classes: int = 3) -> MobileNetV3:
    """Return a MobileNetV3 whose blocks `features.1` to `features.11` hold layers named `fc1` and `fc2` too."""
    block = InvertedResidualConfig(8, 3, 16, 8, use_se=True, activation="RE", stride=1, dilation=1, width_mult=1)
    return MobileNetV3([block] * 11, last_channel=32, num_classes=num_classes)


def small_vit(num_classes: int = 3) -> VisionTransformer:
    """Return a vision transformer for images of 32 pixels, with its bare parameter `class_token`."""
    model = VisionTransformer(
        image_size=32, patch_size=16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=num_classes
    )
    nn.init.normal_(model.heads.head.weight)  # at 0, as torchvision starts it, it lets no gradient through
    return model
