"""The surgery lesson as a learner has it: run from top to bottom, its panel and an exercise played."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

LESSON = Path(__file__).parents[1] / "notebooks" / "03_surgery.ipynb"


def test_surgery_is_played_by_a_learner(notebook):
    nb = notebook(LESSON)
    nb.run_all()

    # cut after layer3, ten heads, by keyboard; then share layer4 and see what is not there
    panel = nb.output("SurgeryPanel(models")
    line = panel.get_by_role("status").first
    expect(line).to_contain_text("cut after layer4; 1 head with no later stage")
    panel.get_by_label("cut after").select_option(label="layer3: 1024 channels of 4 × 4")
    panel.get_by_label("a head begins with").select_option(label="its own copy of the later stages")
    handle = panel.locator(".noUi-handle")
    handle.focus()
    for _ in range(9):
        handle.press("ArrowRight")
    expect(line).to_contain_text("cut after layer3; 10 heads, each with its own copy of the later stages")
    expect(panel).to_contain_text("head 9: layer4, average pool, linear")
    expect(panel).to_contain_text("the state_dict has 878 names")
    nb.screenshot("surgery-panel-own", of=panel)
    panel.get_by_label("a head begins with").select_option(label="the same later stages")
    expect(panel).to_contain_text("are counted above, and are not there")
    panel.get_by_label("pool", exact=True).select_option(label="both")
    panel.get_by_role("button", name="Show the code").click()
    expect(panel).to_contain_text("class BothPools(nn.Module)")
    nb.screenshot("surgery-panel", of=panel)

    # a wrong answer is named, a hint helps, the right answer passes
    task = "def count_tensors"
    nb.set_source(task, "def count_tensors():\n    return 22, 22, 4")
    nb.run_cell(task)
    exercise = nb.output("ExercisePanel(")
    exercise.get_by_role("button", name="Check").click()
    expect(exercise).to_contain_text('You gave 22 for "list"')
    exercise.get_by_role("button", name="Hint 1 of 2").click()
    expect(exercise).to_contain_text("Only what a module has registered is counted")
    nb.screenshot("surgery-exercise-wrong", of=exercise)
    nb.set_source(task, "def count_tensors():\n    return 2, 22, 4")
    nb.run_cell(task)
    exercise.get_by_role("button", name="Check").click()
    expect(exercise).to_contain_text("passed")
    nb.screenshot("surgery")
    nb.theme("dark")
    nb.screenshot("surgery-dark")
    nb.screenshot("surgery-panel-dark", of=panel)
