"""The panel on strategy, moved by the keyboard in JupyterLab: results come without a button."""

import re

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


CELLS = [
    "import torch\nfrom ftlab.exercises.models import SmallResNet\n"
    "from ftlab.widgets.strategy import StrategyPanel\nfrom torch.utils.data import TensorDataset",
    "def colours(seed):\n"
    "    generator = torch.Generator().manual_seed(seed)\n"
    "    targets = [place // 20 for place in range(60)]\n"
    "    images = torch.randn(60, 3, 32, 32, generator=generator)\n"
    "    for place, target in enumerate(targets):\n"
    "        images[place, target] += 0.5\n"
    "    data = TensorDataset(images, torch.tensor(targets))\n"
    "    data.classes, data.targets = ['red', 'green', 'blue'], targets\n"
    "    return data",
    "torch.manual_seed(0)\npanel = StrategyPanel({'colours': (colours(0), colours(1))}, SmallResNet())\npanel",
    "panel.epochs = 100_000  # long",
    "panel.epochs = 10  # short",
]


def test_a_slider_is_moved_by_the_keyboard_and_a_result_appears(notebook):
    nb = notebook(CELLS)
    nb.run_all()
    panel = nb.output("StrategyPanel(")
    line = panel.get_by_role("status").last
    images, depth = (panel.locator(".noUi-handle").nth(number) for number in (0, 1))
    expect(line).to_have_text("colours, 6 images, head only at 0.003: not trained yet")
    expect(panel.get_by_role("button", name="Show the code")).to_be_visible()
    expect(panel.locator('[title="null"]')).to_have_count(0)  # ipywidgets would show it under the mouse

    # a move, and a result; the next one, and there are two to compare
    images.press("ArrowRight")
    expect(line).to_contain_text("12 images, head only at 0.003: ")
    expect(line).to_contain_text("on test images")
    images.press("ArrowRight")
    expect(line).to_contain_text("2 results to compare")
    expect(panel.get_by_role("img").first).to_have_attribute("alt", re.compile("with 12, .* with 24"))

    # a training that takes long says so, and the next move ends it
    nb.run_cell("# long")
    depth.press("ArrowRight")
    expect(line).to_contain_text("training, about")
    expect(panel.get_by_role("button", name="Stop")).to_be_enabled()
    nb.run_cell("# short")  # the kernel is free meanwhile
    expect(line).to_contain_text("training, about")
    images.press("ArrowLeft")
    expect(line).to_contain_text("12 images, layer4.0 and later")
    expect(line).to_contain_text("3 results to compare")
    expect(panel.get_by_role("table")).to_contain_text("layer4.0 and later")
    assert panel.get_by_role("table").get_by_role("row").count() == 1 + 3  # the one that was stopped left none

    # live off: a move does nothing, the button does
    live = panel.get_by_label("Train as I move")
    live.press("Space")
    expect(live).not_to_be_checked()
    images.press("End")
    expect(line).to_contain_text("60 images, layer4.0 and later at 0.003, body at 0.0003: not trained yet")
    panel.get_by_role("button", name="Train").press("Enter")
    expect(line).to_contain_text("4 results to compare")
    nb.screenshot("strategy-live", of=panel)
    nb.theme("dark")
    nb.screenshot("strategy-live-dark", of=panel)
