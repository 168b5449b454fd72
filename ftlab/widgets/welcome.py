"""The panel of the first lesson: which images look alike to the network, layer by layer."""

import ipywidgets as w
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.data import Dataset

from ftlab import plots
from ftlab.parts import part_names
from ftlab.pretrained import features, similarity
from ftlab.training import loader
from ftlab.widgets.panel import Panel, Picture

NEIGHBOURS = 7


class NeighboursPanel(Panel):
    """Choose a picture and a depth; see the pictures that are most alike for the network at that depth.

    The model is not changed. The features of all layers are computed once, when the panel is made.

    Args:
        model: A network of convolutions, such as `efficientnet_lite0` or `resnet18`.
        dataset: Items are (image tensor, class number), with `classes` and `targets`.
        pictures: The same images to look at, without normalisation; `dataset` itself if None.

    Example:
        >>> from torchvision.datasets import FakeData
        >>> from torchvision.transforms import ToTensor
        >>> data = FakeData(12, (3, 16, 16), num_classes=2, transform=ToTensor())
        >>> data.classes, data.targets = ["cat", "dog"], [int(target) for _, target in data]
        >>> from torchvision.models import efficientnet_b0
        >>> panel = NeighboursPanel(efficientnet_b0(), data)
        >>> panel.depth.value = 3
        >>> panel.depth.label
        'block 3'
    """

    title = "Which pictures look alike to the network?"

    def __init__(self, model: nn.Module, dataset: Dataset, pictures: Dataset | None = None) -> None:
        self.dataset, self.pictures = dataset, pictures or dataset
        self.layers = _blocks(model)
        found = features(model, loader(dataset, batch_size=64), self.layers)
        self._alike = [similarity(found[layer]).fill_diagonal_(-2) for layer in self.layers]
        self._targets = torch.tensor(dataset.targets)
        depths = [("stem", 0), *[(f"block {number}", number) for number in range(1, len(self.layers))]]
        self.depth = w.SelectionSlider(options=depths, value=len(self.layers) - 1, description="depth")
        self.class_name = w.Dropdown(options=list(dataset.classes), description="class")
        self.number = w.BoundedIntText(description="picture", min=1, max=1)
        self.picture = Picture()
        super().__init__(self.depth, w.HBox([self.class_name, self.number]), self.picture)
        for control in (self.depth, self.class_name, self.number):
            self.on(control)

    @property
    def position(self) -> int:
        """Where the chosen picture stands in the dataset."""
        return int(self._of_class()[self.number.value - 1])

    def neighbours(self) -> list[int]:
        """Return where the most alike pictures stand in the dataset, the most alike first."""
        return self._alike[self.depth.value][self.position].topk(NEIGHBOURS).indices.tolist()

    def same_class(self) -> float:
        """Return the share of all pictures' neighbours, at this depth, that are of the picture's own class."""
        nearest = self._alike[self.depth.value].topk(NEIGHBOURS).indices
        return (self._targets[nearest] == self._targets[:, None]).float().mean().item()

    def _of_class(self) -> torch.Tensor:
        return (self._targets == self.class_name.index).nonzero().flatten()

    def _render(self) -> None:
        self.number.max = max(len(self._of_class()), 1)
        positions = [self.position, *self.neighbours()]
        names = [self.dataset.classes[self._targets[position]] for position in positions]
        right = [name == names[0] for name in names[1:]]
        titles = [
            f"this {names[0]}",
            *[f"{'✓' if ok else '✗'} {name}" for ok, name in zip(right, names[1:], strict=True)],
        ]
        colors = ["black", *[plots.RIGHT if ok else plots.WRONG for ok in right]]
        pictures = [self.pictures[position][0] for position in positions]
        figure = plots.grid(pictures, titles, colors=colors)
        self.picture.show(figure, figure.says)

    def describe(self) -> str:
        """Return how many neighbours are of the same class, for this picture and for all."""
        name = self.class_name.value
        alike = sum(int(self._targets[position]) == self.class_name.index for position in self.neighbours())
        return (
            f"{self.depth.label}: {alike} of the {NEIGHBOURS} pictures most alike to {name} {self.number.value} "
            f"are of class {name}; over all pictures, {self.same_class():.0%} of neighbours are of the same class"
        )

    def code(self) -> str:
        """Return the search for the neighbours at this depth in plain PyTorch, from `model` and `dataset` on."""
        return f"""\
import torch
from torch.nn.functional import normalize

found = []
block = model.get_submodule("{self.layers[self.depth.value]}")
hook = block.register_forward_hook(lambda block, inputs, output: found.append(output.mean((2, 3))))
with torch.no_grad():
    for images, targets in torch.utils.data.DataLoader(dataset, batch_size=64):
        model.eval()(images)
hook.remove()

features = torch.cat(found)
features = normalize((features - features.mean(0)) / features.std(0).clamp(min=1e-6))
alike = features @ features[{self.position}]
alike[{self.position}] = -2  # the picture itself
neighbours = alike.topk({NEIGHBOURS}).indices.tolist()
print(neighbours)
"""


def _blocks(model: nn.Module) -> list[str]:
    """Return the names of the blocks before the head; a norm beside a block is no block of its own."""
    return [name for name in part_names(model)[:-1] if not isinstance(model.get_submodule(name), _NormBase)]
