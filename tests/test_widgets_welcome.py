"""The first lesson's panel: what it shows is what plain PyTorch finds."""

import pytest
import torch
from torch.utils.data import Subset
from torchvision import models
from torchvision.transforms import v2

from ftlab import data, pretrained
from ftlab.widgets.welcome import NEIGHBOURS, NeighboursPanel

TO_TENSOR = v2.Compose(
    [v2.Resize(64), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
)


class Few(Subset):
    """Every third emoji: enough for neighbours, few enough for a test."""

    def __init__(self, dataset):
        super().__init__(dataset, range(0, len(dataset), 3))
        self.classes = dataset.classes
        self.targets = [dataset.targets[position] for position in self.indices]


@pytest.fixture(scope="module")
def dataset():
    return Few(data.emoji("all", transform=TO_TENSOR))


@pytest.fixture(scope="module")
def model():
    return pretrained.load()


@pytest.fixture(scope="module")
def panel(model, dataset):
    return NeighboursPanel(model, dataset, Few(data.emoji("all")))


def test_the_controls_change_what_is_seen(panel):
    panel.depth.value = 8
    assert "block 8" in repr(panel)
    seen = panel.picture.value
    panel.depth.value = 0
    assert "stem" in repr(panel)
    assert panel.picture.value != seen
    panel.class_name.value = "vehicle"
    assert panel.dataset.targets[panel.position] == panel.dataset.classes.index("vehicle")
    assert panel.picture.alt.startswith("8 images: this vehicle; ")


def test_a_smaller_class_keeps_the_number_legal(panel):
    panel.class_name.value = "animal"
    panel.number.value = panel.number.max
    panel.class_name.value = "plant"
    assert panel.number.value <= panel.number.max
    assert panel.failure is None


def test_deep_features_know_the_classes_better_than_pixels_near_the_input(panel):
    panel.depth.value = 8
    deep = panel.same_class()
    panel.depth.value = 0
    assert deep > panel.same_class() + 0.1


@pytest.mark.parametrize("depth", [0, 4, 8])
def test_the_code_finds_the_same_neighbours(panel, model, dataset, depth, capsys):
    panel.depth.value = depth
    panel.number.value = 2
    names = {"model": model, "dataset": dataset}
    exec(panel.code(), names)
    assert names["neighbours"] == panel.neighbours()
    assert len(names["neighbours"]) == NEIGHBOURS
    model.train()


def test_another_network_has_its_own_blocks(dataset):
    model = models.resnet18()
    panel = NeighboursPanel(model, dataset)
    assert panel.layers == ["conv1", "layer1", "layer2", "layer3", "layer4"]
    panel.depth.value = 3
    assert "block 3" in repr(panel)
    names = {"model": model, "dataset": dataset}
    exec(panel.code(), names)
    assert names["neighbours"] == panel.neighbours()


def test_looking_changes_nothing(model, dataset):
    model.train()
    model.features[3].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    torch.manual_seed(4)
    expected = torch.rand(1)
    torch.manual_seed(4)
    NeighboursPanel(model, Few(dataset))
    assert torch.rand(1) == expected
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
