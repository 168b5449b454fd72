import pytest
import torch
from torch import nn
from torchvision import models

from ftlab.freezing import freeze
from ftlab.widgets.summary import SummaryPanel


@pytest.fixture(scope="module")
def resnet():
    return models.resnet18()


@pytest.fixture
def panel(resnet):
    return SummaryPanel(resnet, (1, 3, 64, 64))


def rows(panel):
    return {row["path"]: row for row in panel.tree.rows}


def test_the_tree_has_every_block_with_three_bars(panel):
    found = panel.summary
    assert [row["path"] for row in panel.tree.rows] == [row.path for row in found.rows]
    bars = {bar["label"]: bar for bar in rows(panel)["layer4"]["bars"]}
    assert list(bars) == ["parameters", "memory", "work"]
    assert bars["parameters"]["share"] == found["layer4"].parameters / found.total_params
    assert bars["parameters"]["text"] == "8.39 M"
    assert rows(panel)["relu"]["state"] == ""
    assert all(0 <= bar["share"] <= 1 for row in panel.tree.rows for bar in row["bars"])


def test_the_model_is_left_as_it_was(resnet):
    resnet.bn1.eval()
    before = [m.training for m in resnet.modules()], [t._version for t in resnet.state_dict().values()]
    random = torch.get_rng_state()
    panel = SummaryPanel(resnet, torch.ones(2, 3, 64, 64))
    panel.batch.value = 64
    panel.search.value = "conv"
    panel.tree.toggle("layer1")
    assert panel.code()
    assert panel.failure is None
    assert before == ([m.training for m in resnet.modules()], [t._version for t in resnet.state_dict().values()])
    assert torch.equal(random, torch.get_rng_state())
    resnet.train()


def test_a_search_keeps_what_matches_and_unfolds_what_leads_there(panel):
    panel.search.value = "downsample.0"
    assert [row["path"] for row in panel.tree.shown if row["path"].endswith("downsample.0")] == [
        f"layer{n}.0.downsample.0" for n in (2, 3, 4)
    ]
    assert "conv1" not in rows(panel)
    assert repr(panel).endswith("; 3 of 68 blocks match 'downsample.0'")
    panel.search.value = "no such thing"
    assert [row["path"] for row in panel.tree.rows] == [""]
    assert "0 of 68" in repr(panel)
    panel.search.value = ""
    assert len(panel.tree.rows) == 68
    assert [row["path"] for row in panel.tree.shown][:3] == ["", "conv1", "bn1"]


def test_a_chosen_row_is_told_about(panel):
    panel.tree.toggle("layer1.0.relu")
    assert "layer1.0.relu (ReLU) gives 1×64×16×16, called 2 times" in panel.detail.value
    panel.tree._handle_custom_msg({"kind": "toggle", "path": "layer4"}, [])
    assert "71.8% of the parameters" in panel.detail.value
    panel.search.value = "fc"  # the chosen one is out of sight
    assert panel.detail.value.startswith("<p>The whole model")


def test_the_batch_changes_memory_and_work_and_no_parameter(panel):
    one = panel.summary
    panel.batch.value = 16
    assert panel.summary.multiply_adds == 16 * one.multiply_adds
    assert panel.summary.activations > 15 * one.activations
    assert panel.summary.total_params == one.total_params
    assert "on 16×3×64×64" in repr(panel)


def test_the_batch_of_a_tensor_costs_no_memory_and_its_own_size_is_offered():
    panel = SummaryPanel(nn.Linear(3, 2), torch.ones(7, 3))
    assert panel.batch.value == 7
    panel.batch.value = 256
    assert panel.summary.rows[0].outputs == ((256, 2),)


def test_other_inputs_have_no_batch_to_choose_and_no_code():
    class Two(nn.Module):
        def forward(self, a, b):
            return a + b

    panel = SummaryPanel(Two(), (torch.ones(2), torch.ones(2)))
    assert panel.batch.layout.display == "none"
    assert panel.code() == ""


def test_it_follows_the_flags_after_a_refresh():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    panel = SummaryPanel(model, (1, 3))
    freeze(model, "0")
    panel.refresh()
    assert (rows(panel)["0"]["state"], rows(panel)[""]["state"]) == (False, None)


def test_the_code_prints_the_numbers_of_the_panel(panel, resnet, capsys):
    panel.tree.expand("layer1")
    exec(panel.code(), {"model": resnet})
    lines = capsys.readouterr().out.splitlines()
    shown = [row["path"] for row in panel.tree.shown if row["path"]]
    assert len(lines) == len(shown) == 12
    for line, path in zip(lines, shown, strict=True):
        row = panel.summary[path]
        assert line == f"{path} {row.kind} {row.parameters:,} parameters {row.multiply_adds:,} multiply-adds"


def test_a_wrong_size_is_said_at_once(resnet):
    with pytest.raises(ValueError, match="expected 4D input"):
        SummaryPanel(resnet, (3, 64, 64))


def test_its_twin_without_a_kernel_has_the_numbers(panel):
    html = panel.to_html()
    assert ">8.39 M</td>" in html
    assert "11.69 M parameters" in html
    assert "copy.deepcopy(model)" in html
