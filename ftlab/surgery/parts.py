"""Parts to build with: a pool that keeps average and maximum, and one backbone with several heads."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from ftlab.given import refuse_no_model


class AdaptiveConcatPool2d(nn.Module):
    """Pool to `size` x `size`, by average and by maximum; both are kept, so there are twice the channels.

    The average tells how much of a feature there is, the maximum whether there is any.

    The trap: the layer behind it needs `2 * channels` inputs.

    Args:
        size: Height and width of what comes out.

    Example:
        >>> AdaptiveConcatPool2d()(torch.zeros(4, 512, 7, 7)).shape
        torch.Size([4, 1024, 1, 1])
    """

    def __init__(self, size: int = 1) -> None:
        super().__init__()
        self.average = nn.AdaptiveAvgPool2d(size)
        self.maximum = nn.AdaptiveMaxPool2d(size)

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, 2 C, size, size) for (N, C, H, W): the averages, then the maxima."""
        return torch.cat([self.average(features), self.maximum(features)], dim=1)


class MultiHead(nn.Module):
    """One backbone that is run once, and several heads that all look at what it gives.

    The modules are taken as they are, not copied. Heads may not share parameters with each other or with the
    backbone unless that is said: ten heads made of one `model.layer4` are ten names for one layer4.

    Args:
        backbone: Gives the features.
        heads: A dictionary (the output is a dictionary with the same keys) or a list (the output is a list).
        shared: Allow heads that share parameters.

    Raises:
        TypeError: The backbone or a head is no module.
        ValueError: There is no head, or heads share parameters.

    Example:
        >>> model = MultiHead(nn.Flatten(), {"animal": nn.Linear(12, 4), "colour": nn.Linear(12, 3)})
        >>> {name: tuple(scores.shape) for name, scores in model(torch.zeros(2, 3, 2, 2)).items()}
        {'animal': (2, 4), 'colour': (2, 3)}
    """

    def __init__(
        self,
        backbone: nn.Module,
        heads: Mapping[str, nn.Module] | Sequence[nn.Module],
        *,
        shared: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(heads, Mapping | Sequence | nn.ModuleDict | nn.ModuleList):
            raise TypeError(f"heads must be a dictionary or a list of modules, not a {type(heads).__name__}")
        by_name = isinstance(heads, Mapping | nn.ModuleDict)
        named = dict(heads.items() if by_name else enumerate(heads))
        if not named:
            raise ValueError("no head was given")
        for module in (backbone, *named.values()):
            if not isinstance(module, nn.Module):
                refuse_no_model(module)  # and says what it is
        if not shared:
            _refuse_shared({"the backbone": backbone, **{f"head {key!r}": head for key, head in named.items()}})
        self.backbone = backbone
        self.heads = nn.ModuleDict(named) if by_name else nn.ModuleList(named.values())

    def forward(self, images: Tensor) -> dict[str, Tensor] | list[Tensor]:
        """Return what each head says, under the head's name or in the order of the heads."""
        features = self.backbone(images)
        if isinstance(self.heads, nn.ModuleDict):
            return {name: head(features) for name, head in self.heads.items()}
        return [head(features) for head in self.heads]


def _refuse_shared(modules: dict[str, nn.Module]) -> None:
    for (one, first), (other, second) in combinations(modules.items(), 2):
        own = {id(parameter) for parameter in first.parameters()}
        common = [name for name, parameter in second.named_parameters() if id(parameter) in own]
        if common:
            raise ValueError(
                f"{one} and {other} share {len(common)} parameters, the first is {common[0]!r}: what one learns "
                "the other gets. Give each its own with copy.deepcopy(...), or say shared=True"
            )
