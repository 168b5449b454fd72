"""The lesson on strategy as a learner has it: run in JupyterLab, and played."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

LESSON = Path(__file__).parents[1] / "notebooks" / "08_strategy.ipynb"


def test_strategy_is_played_by_a_learner(notebook):
    nb = notebook(LESSON)
    nb.run_all()

    # train the head, then another seed, by the keyboard; the results pile up
    panel = nb.output("StrategyPanel(")
    line = panel.get_by_role("status").last
    expect(panel).to_contain_text("not trained yet")
    train = panel.get_by_role("button", name="Train")
    train.focus()
    train.press("Enter")
    expect(panel).to_contain_text("on test images")
    seed = panel.get_by_label("seed")
    seed.fill("1")
    seed.press("Enter")
    expect(panel).to_contain_text("not trained yet")
    train.click()
    expect(panel).to_contain_text("2 results to compare")
    expect(panel.get_by_role("img").first).to_have_attribute("alt", re.compile("seed 1"))
    nb.screenshot("strategy-panel", of=panel)

    # everything, stopped before its end: no result is added
    depth = panel.locator(".noUi-handle").nth(1)
    depth.focus()
    depth.press("End")
    expect(panel).to_contain_text("everything")
    train.click()
    panel.get_by_role("button", name="Stop").click()
    expect(panel).to_contain_text("stopped")
    expect(line).to_contain_text("2 results to compare")
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
