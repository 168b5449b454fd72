"""Every panel can be read, in the light and in the dark theme, and by somebody who does not see it.

The contrast is computed from the styles that the browser really uses, as WCAG 2 does it: at least 4.5 to 1. What
is disabled is left out, as WCAG does. That each control has a name is asked of the page, too.
"""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

import ftlab.widgets
from ftlab.widgets.panel import Panel

pytestmark = pytest.mark.browser

READABLE = Path(__file__).with_name("readable.js")

SETUP = """\
import torch
from torch import nn
from torchvision import models
from torchvision.datasets import FakeData
from torchvision.transforms import ToTensor
from ftlab.exercises import freezing
images = torch.randn(6, 3, 16, 16)
targets = torch.tensor([0, 1] * 3)
stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
model = nn.Sequential(stem, head)
fake = FakeData(40, (3, 16, 16), num_classes=2, transform=ToTensor())
fake.classes, fake.targets = ["cat", "dog"], [int(target) for _, target in fake]
def wrong(model):
    print("a try")

import shutil
from pathlib import Path
from ftlab import capstone, finetune
place = Path("runs")
whole = capstone.make_folder(place / "whole")
for name in capstone.CLASSES:
    (place / "mine" / name).mkdir(parents=True)
    for file in sorted((whole / name).glob("IMG_00*.png"))[:6]:
        shutil.copy(file, place / "mine" / name)
_ = finetune.run(place / "mine", place / "small", size=32, epochs=1, strategy="head", say=lambda line: None)
facts = capstone.measure(place / "mine", sizes=[32])"""
# each in a state with as much to read as there is
PANELS = {
    "CapstonePanel": "capstone CapstonePanel(place, facts); panel.because['strategy'].value = 'few images'",
    "CheckpointPanel": "checkpoints CheckpointPanel(); panel.file.value = 'parallel'",
    "ExercisePanel": "exercise ExercisePanel(freezing.freeze_backbone, lambda: wrong); panel.check.click()",
    "FreezePanel": "freezing FreezePanel(model, example=images); panel.tree.toggle('0'); panel.step.click()",
    "LoopPanel": "training LoopPanel(nn.Linear(4, 2), torch.ones(6, 4), targets); panel.drop.click()",
    "ModesPanel": "modes ModesPanel(model, images, ['cat', 'dog'])",
    "NeighboursPanel": "welcome NeighboursPanel(models.resnet18(), fake)",
    "PreprocessingPanel": "pretrained PreprocessingPanel()",
    "RanksPanel": "multi_gpu RanksPanel(); panel.wrapper.value = 'none'",
    "RatesPanel": "learning_rates RatesPanel(model, images, targets, {'0': 1e-3, '1': 1e-2})",
    "StrategyPanel": "strategy StrategyPanel({'noise': (fake, fake)}, model)",
    "SummaryPanel": "summary SummaryPanel(model, (4, 3, 16, 16)); panel.tree.toggle('1')",
    "SurgeryPanel": "surgery SurgeryPanel(models.resnet18())",
}
ERROR = "freezing FreezePanel(model, example=torch.ones(4, 5, 16, 16)); panel.step.click()"


def cell(text):
    """Return the cell of one panel, with its code shown."""
    module, call = text.split(" ", 1)
    call, _, more = call.partition("; ")
    name = call.partition("(")[0]
    lines = [
        f"from ftlab.widgets.{module} import {name}",
        f"panel = {call}",
        more,
        "panel.show_code.value = True",
    ]
    return "\n".join([*filter(None, lines), "panel"])


def panels_of_ftlab():
    """Return the name of every panel class of the package."""
    for info in pkgutil.walk_packages(ftlab.widgets.__path__, "ftlab.widgets."):
        importlib.import_module(info.name)
    found, waiting = set(), [Panel]
    while waiting:
        waiting += (below := [each for each in waiting.pop().__subclasses__() if each.__module__[:6] == "ftlab."])
        found |= {each.__name__ for each in below}
    return found


def test_no_panel_is_missing_here():
    assert set(PANELS) == panels_of_ftlab()


def all_panels(nb):
    return dict(zip([*PANELS, "an error"], nb.panel.locator(".ftlab-panel").all(), strict=True))


def pale(panel):
    """Return what has too little contrast; there has to be something to read."""
    read = panel.evaluate("panel => readable.read(panel)")
    assert len(read) > 5
    return [seen for seen in read if seen[0] < 4.5]


def test_everything_in_every_panel_can_be_read_and_each_control_has_a_name(notebook):
    nb = notebook([SETUP, *map(cell, PANELS.values()), cell(ERROR)])
    nb.run_all()
    nb.page.evaluate(READABLE.read_text(encoding="utf-8"))
    expect(nb.panel.get_by_role("slider")).not_to_have_count(0)
    for handle in nb.panel.get_by_role("slider").all():
        expect(handle).to_have_attribute("aria-label", re.compile(r"\w"))
    found = {name: panel.evaluate("panel => readable.nameless(panel)") for name, panel in all_panels(nb).items()}
    assert found == {name: [] for name in found}
    for theme in ("light", "dark"):
        nb.theme(theme)
        nb.screenshot(f"readable-{theme}")
        found = {name: pale(panel) for name, panel in all_panels(nb).items()}
        assert found == {name: [] for name in found}, theme

    # and what cannot be read, or has no name, is found
    panel = all_panels(nb)["ModesPanel"]
    panel.evaluate("panel => panel.querySelectorAll('p').forEach(one => { one.style.color = '#666'; })")
    assert pale(panel)
    panel.evaluate(
        "panel => panel.querySelectorAll('select').forEach(one => one.labels.forEach(two => two.remove()))"
    )
    panel.evaluate("panel => panel.querySelectorAll('img').forEach(one => one.removeAttribute('alt'))")
    assert panel.evaluate("panel => readable.nameless(panel)")
