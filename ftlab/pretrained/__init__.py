"""Pretrained models: any torchvision classifier by name, and one whose weights are always there.

After `import ftlab.pretrained` torchvision's own calls know `efficientnet_lite0` too, for example
`torchvision.models.get_model("efficientnet_lite0", weights="DEFAULT")`.
"""

from ftlab.pretrained.catalogue import available
from ftlab.pretrained.extract import features, similarity
from ftlab.pretrained.lite import EfficientNet_Lite0_Weights, efficientnet_lite0
from ftlab.pretrained.loading import fetch, load, preprocessing

__all__ = [
    "EfficientNet_Lite0_Weights",
    "available",
    "efficientnet_lite0",
    "features",
    "fetch",
    "load",
    "preprocessing",
    "similarity",
]
