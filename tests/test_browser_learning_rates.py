"""The lesson on learning rates as a learner has it: run in JupyterLab, and played."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

LESSON = Path(__file__).parents[1] / "notebooks" / "06_learning_rates.ipynb"


def test_learning_rates_is_played_by_a_learner(notebook):
    nb = notebook(LESSON)
    nb.run_all()

    # choose a schedule that takes the rates away, read the mark; measure a step; drag a rate
    panel = nb.output("RatesPanel(")
    line, picture = panel.get_by_role("status").first, panel.get_by_role("img").first
    expect(line).to_contain_text("SGD, constant")
    panel.get_by_label("schedule").select_option(label="step")
    panel.get_by_label("called").select_option(label="first in the epoch")
    expect(panel).to_contain_text("the schedule is one value early")
    expect(picture).to_have_attribute("alt", re.compile("one value early"))
    step = panel.get_by_role("button", name="Measure one step")
    step.focus()
    step.press("Enter")
    expect(panel.get_by_role("img")).to_have_count(2)
    expect(panel.get_by_role("img").nth(1)).to_have_attribute("alt", re.compile("moved by"))
    nb.screenshot("learning-rates-panel", of=panel)
    handle = panel.locator(".noUi-handle").nth(2)
    handle.focus()
    handle.press("ArrowRight")
    expect(panel.get_by_role("img")).to_have_count(1)  # the measured step is out of date
    panel.get_by_role("button", name="Show the code").click()
    expect(panel).to_contain_text("for epoch in range(10):")

    # a wrong answer is named, the right one passes
    task, check = "def rates_of_epochs", "learning_rates.rates_of_epochs.check("
    nb.set_source(task, "def rates_of_epochs():\n    return 1e-4, 1e-4, 1e-5")
    nb.run_cell(task)
    nb.run_cell(check)
    expect(nb.output(check)).to_contain_text("Epoch 9 is not trained at 0.0001")
    nb.set_source(task, "def rates_of_epochs():\n    return 1e-3, 1e-4, 1e-5")
    nb.run_cell(task)
    nb.run_cell(check)
    expect(nb.output(check)).to_contain_text("rates_of_epochs: passed")
    nb.screenshot("learning-rates")
    nb.theme("dark")
    nb.screenshot("learning-rates-dark")
