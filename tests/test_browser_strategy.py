"""The lesson on strategy as a learner has it: run in JupyterLab, and played."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

LESSON = Path(__file__).parents[1] / "notebooks" / "08_strategy.ipynb"


def test_strategy_is_played_by_a_learner(notebook):
    nb = notebook(LESSON)
    nb.run_all()

    # the first training began with the cell; another seed, by the keyboard, and the results pile up
    panel = nb.output("StrategyPanel(")
    line = panel.get_by_role("status").last
    expect(line).to_contain_text("on test images")
    seed = panel.get_by_label("seed")
    seed.fill("1")
    seed.press("Enter")
    expect(line).to_contain_text("2 results to compare")
    images = panel.locator(".noUi-handle").first
    images.press("ArrowLeft")
    expect(line).to_contain_text("32 images, head only at 0.003: ")
    expect(line).to_contain_text("3 results to compare")
    alt = panel.get_by_role("img").first.get_attribute("alt")
    assert "with 32" in alt
    assert "with 64" in alt
    nb.screenshot("strategy-panel", of=panel)

    # everything takes long, and says so; stopped before its end it leaves no result
    images.press("End")
    expect(line).to_contain_text("4 results to compare")
    panel.locator(".noUi-handle").nth(1).press("End")
    expect(line).to_contain_text("everything at 0.003, body")
    expect(line).to_contain_text("training, about")
    panel.get_by_role("button", name="Stop").click()
    expect(panel).to_contain_text("stopped")
    expect(line).to_contain_text("not trained yet; 4 results to compare")
    panel.get_by_role("button", name="Show the code").click()
    expect(panel).to_contain_text("torch.optim.AdamW(groups)")

    # a wrong answer is named, the right one passes
    task, check = "def body_passes", "strategy.body_passes.check("
    nb.set_source(task, "def body_passes():\n    return 2000, 100, 6000")
    nb.run_cell(task)
    nb.run_cell(check)
    expect(nb.output(check)).to_contain_text("For three views it is not 6000")
    nb.set_source(task, "def body_passes():\n    return 2000, 100, 300")
    nb.run_cell(task)
    nb.run_cell(check)
    expect(nb.output(check)).to_contain_text("body_passes: passed")
    nb.screenshot("strategy")
    nb.theme("dark")
    nb.screenshot("strategy-dark")
