"""Pretrained models: any torchvision classifier by name, and one whose weights are always there.

After `import ftlab.pretrained` torchvision's own calls know `efficientnet_lite0` too, for example
`torchvision.models.get_model("efficientnet_lite0", weights="DEFAULT")`.
"""

from ftlab.pretrained.asking import asked_weights
from ftlab.pretrained.backbone import backbone
from ftlab.pretrained.catalogue import available, entries
from ftlab.pretrained.extract import features, flat_map, similarity
from ftlab.pretrained.lite import EfficientNet_Lite0_Weights, efficientnet_lite0
from ftlab.pretrained.loading import fetch, load, preprocessing
from ftlab.pretrained.photographs import photographs, views
from ftlab.pretrained.picture import draw_map
from ftlab.pretrained.preparing import (
    MISTAKES,
    as_seen,
    preprocessing_cost,
    top_classes,
    wrong_preprocessing,
)

__all__ = [
    "MISTAKES",
    "EfficientNet_Lite0_Weights",
    "as_seen",
    "asked_weights",
    "available",
    "backbone",
    "draw_map",
    "efficientnet_lite0",
    "entries",
    "features",
    "fetch",
    "flat_map",
    "load",
    "photographs",
    "preprocessing",
    "preprocessing_cost",
    "similarity",
    "top_classes",
    "views",
    "wrong_preprocessing",
]
