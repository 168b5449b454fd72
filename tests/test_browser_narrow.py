"""The panels in a window of 600 pixels: every control and every value is inside its panel."""

import pytest

pytestmark = pytest.mark.browser

SETUP = """\
import torch
from torch import nn
from ftlab.widgets.freezing import FreezePanel
from ftlab.widgets.learning_rates import RatesPanel
from ftlab.widgets.modes import ModesPanel
from ftlab.widgets.training import LoopPanel
torch.manual_seed(0)
parts = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
model, x, y = nn.Sequential(*parts), torch.randn(8, 3, 16, 16), torch.arange(8) % 3"""
PANELS = [
    "ModesPanel(model, x)",
    "RatesPanel(model, x, y, ['0', '4'])",
    "LoopPanel(nn.Linear(8, 3), torch.randn(96, 8), torch.arange(96) % 3)",
    "FreezePanel(model, example=x)",
]
CUT_OFF = """() => [...document.querySelectorAll('.ftlab-panel')].flatMap((panel) => {
    const edge = panel.getBoundingClientRect();
    const controls = 'button, select, .widget-readout, .ftlab-row .size, .ftlab-row .state';
    return [...panel.querySelectorAll(controls)].filter((control) => {
        const place = control.getBoundingClientRect();
        return place.width > 0 && (place.right > edge.right + 1 || place.left < edge.left - 1);
    }).map((control) => `${control.className}: ${control.textContent.slice(0, 20)}`);
})"""
SHOWN = "() => document.querySelectorAll('.ftlab-panel button, .ftlab-panel select').length"
SQUEEZED = (
    ".ftlab-panel .widget-hbox { flex-wrap: nowrap !important } .widget-select { flex: 0 0 auto !important }"
)


def test_nothing_is_cut_off(notebook):
    nb = notebook([SETUP, *PANELS])
    nb.run_all()
    wide = nb.page.viewport_size
    try:
        nb.page.set_viewport_size({"width": 600, "height": 900})
        assert nb.page.evaluate(SHOWN) > 15
        assert nb.page.evaluate(CUT_OFF) == []
        style = nb.page.add_style_tag(content=SQUEEZED)  # without the rule for narrow windows it would not hold
        assert nb.page.evaluate(CUT_OFF)
        style.evaluate("element => element.remove()")
    finally:
        nb.page.set_viewport_size(wide)
