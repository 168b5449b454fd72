"""Which pretrained network the lessons work on."""

import os

from ftlab.nearest import nearest
from ftlab.pretrained.catalogue import names

VARIABLE = "FTLAB_BACKBONE"
EMBEDDED = "efficientnet_lite0"


def backbone() -> str:
    """Return the name of the network that `load` and `preprocessing` give if no name is said.

    It is `efficientnet_lite0`, whose weights came with ftlab, or the one that the environment variable
    `FTLAB_BACKBONE` names: `FTLAB_BACKBONE=resnet18` runs the lessons on torchvision's own weights, which are
    downloaded once. The variable is read at each call.

    Raises:
        ValueError: The variable names no classification model of torchvision.

    Example:
        >>> backbone()
        'efficientnet_lite0'
    """
    name = os.environ.get(VARIABLE, "").strip() or EMBEDDED
    if name not in names():
        raise ValueError(
            f"the environment variable {VARIABLE} is {name!r}, which is no classification model of torchvision; "
            f"{nearest(name, names())}. Without the variable it is {EMBEDDED!r}"
        )
    return name
