import pytest
import torch
from torch import nn
from torchvision import models

from ftlab import pretrained
from ftlab.widgets.surgery import SurgeryPanel
from tests.test_surgery import IMAGES
from tests.test_widgets_freezing import assert_same, state


@pytest.fixture
def model():
    torch.manual_seed(0)
    return models.resnet18().eval()


def made_by(panel, model, seed=0):
    """Run the code that the panel shows, as a learner would."""
    names = {"model": model}
    torch.manual_seed(seed)
    exec(compile(panel.code(), "<shown>", "exec"), names)
    return names["network"]


def test_looking_changes_nothing(model):
    before = state(model)
    panel = SurgeryPanel(model)
    panel.after.value, panel.rest.value, panel.pool.value = "layer2", "own", "both"
    panel.heads.value, panel.classes.value = 4, 7
    panel.to_html()
    panel.code()
    assert_same(state(model), before)


def test_the_line_says_what_is_built(model):
    panel = SurgeryPanel(model)
    assert repr(panel) == "cut after layer4; 1 head with no later stage; 11.2 M parameters"
    panel.after.value, panel.rest.value, panel.heads.value = "layer3", "own", 3
    assert repr(panel).startswith("cut after layer3; 3 heads, each with its own copy of the later stages; 28.0 M")


def test_after_the_last_stage_there_is_nothing_to_begin_with(model):
    panel = SurgeryPanel(model)
    panel.rest.value = "shared"
    assert panel.plan.rest == "none"
    assert panel.failure is None


def test_the_table_has_every_head_and_adds_up(model):
    panel = SurgeryPanel(model)
    panel.after.value, panel.rest.value, panel.heads.value = "layer3", "shared", 2
    html = panel.network.value
    total = sum(p.numel() for p in panel.build().parameters())
    assert f"{total:,} parameters in all" in html
    layer4 = sum(p.numel() for p in model.layer4.parameters())
    assert f"{layer4:,} are counted above, and are not there" in html
    assert html.count("head 0: layer4, average pool, linear") == 1
    panel.rest.value = "own"
    assert "are not there" not in panel.network.value


@pytest.mark.parametrize("pool", ["average", "maximum", "both"])
@pytest.mark.parametrize("rest", ["none", "own", "shared"])
def test_the_code_makes_the_network_of_the_panel(model, rest, pool):
    panel = SurgeryPanel(model)
    panel.after.value, panel.rest.value, panel.pool.value = "layer2", rest, pool
    panel.heads.value, panel.classes.value = 2, 3
    torch.manual_seed(0)
    ours, theirs = panel.build().eval(), made_by(panel, model).eval()
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    for one, other in zip(ours(IMAGES), theirs(IMAGES), strict=True):
        torch.testing.assert_close(one, other)
    assert panel.network.value.count(">1 × 3</td>") == 2  # what is shown for the two heads
    assert ours(IMAGES[:1])[0].shape == (1, 3)
    assert f"the state_dict has {len(ours.state_dict())} names" in panel.network.value


def test_the_code_fits_the_network_that_is_always_here():
    model = pretrained.load().eval()
    panel = SurgeryPanel(model)
    panel.after.value, panel.rest.value = "features.4", "own"
    torch.manual_seed(0)
    ours = panel.build().eval()
    torch.testing.assert_close(ours(IMAGES), made_by(panel, model).eval()(IMAGES))


def test_an_example_of_ones_own_gives_the_shapes(model):
    panel = SurgeryPanel(model, example=torch.empty(8, 3, 224, 224))
    assert "layer4: 512 channels of 7 × 7" in [label for label, _ in panel.after.options]
    assert "8 × 512 × 7 × 7" in panel.network.value


def test_a_model_without_stages_is_refused_with_another_way():
    with pytest.raises(ValueError, match="no row of stages"):
        SurgeryPanel(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 2)))


def test_the_twin_says_the_same_without_a_widget(model):
    panel = SurgeryPanel(model)
    panel.heads.value = 5
    twin = panel.to_html()
    assert "5 heads, each with no later stage" in twin
    assert "head 4: average pool, linear" in twin
    assert "class Network" in twin
