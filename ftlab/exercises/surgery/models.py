"""Small models of torchvision's classes whose heads and ways through are not those of a ResNet."""

from torch import nn
from torchvision.models import DenseNet, SqueezeNet
from torchvision.models.squeezenet import Fire


def small_squeezenet(num_classes: int = 3) -> SqueezeNet:
    """Return a SqueezeNet with two convolutions before its head `classifier.1`, a convolution too."""
    model = SqueezeNet("1_1", num_classes=num_classes)
    model.features = nn.Sequential(nn.Conv2d(3, 16, 3, stride=4), nn.ReLU(), Fire(16, 4, 256, 256))
    return model


def small_densenet(num_classes: int = 3) -> DenseNet:
    """Return a DenseNet with two blocks; before its `classifier` its forward has a ReLU and a pool."""
    return DenseNet(growth_rate=4, block_config=(1, 1), num_init_features=8, bn_size=2, num_classes=num_classes)
