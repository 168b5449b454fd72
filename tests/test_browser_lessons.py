"""The lessons as a learner has them: opened in JupyterLab, run from top to bottom, and played."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

LESSONS = Path(__file__).parents[1] / "notebooks"


def test_welcome_is_run_and_its_panel_is_played(notebook):
    nb = notebook(LESSONS / "00_welcome.ipynb")
    nb.run_all()
    expect(nb.output("plots.confusion(measured)").locator("img")).to_be_visible()

    panel = nb.output("panel = NeighboursPanel")
    line, picture = panel.get_by_role("status"), panel.get_by_role("img")
    expect(line).to_contain_text("block 8: ")
    seen = picture.get_attribute("alt")
    slider = panel.locator(".noUi-handle")
    slider.focus()
    for _ in range(8):
        slider.press("ArrowLeft")
    expect(line).to_contain_text("stem: ")
    expect(picture).not_to_have_attribute("alt", seen)
    panel.locator("select").select_option("vehicle")
    expect(line).to_contain_text("most alike to vehicle 1")
    expect(picture).to_have_attribute("alt", re.compile("^8 images: this vehicle; "))
    nb.screenshot("welcome")
    nb.screenshot("welcome-panel", of=panel)
    nb.theme("dark")
    nb.screenshot("welcome-dark")


def test_freezing_is_played_by_a_learner(notebook):
    nb = notebook(LESSONS / "05_freezing.ipynb")
    nb.run_all()

    # freeze a block by keyboard, run the step, read the verdict
    panel = nb.output("FreezePanel(models")
    expect(panel.get_by_role("status").first).to_contain_text("0 of 7 blocks frozen")
    row = panel.locator('.ftlab-row[data-path="layer1"]')
    row.focus()
    row.press("Space")
    expect(panel.get_by_role("status").first).to_contain_text("1 of 7 blocks frozen")
    panel.get_by_label("batch norm").select_option(label="let its statistics move (train)")
    step = panel.get_by_role("button", name="Run one step")
    step.focus()
    step.press("Enter")
    expect(panel).to_contain_text("batch norm statistics")
    nb.screenshot("freezing-panel", of=panel)

    # a wrong answer is named, a hint helps, the right answer passes
    task = "def what_moves"
    nb.set_source(task, "def what_moves():\n    return {'fc.weight', 'fc.bias'}")
    nb.run_cell(task)
    exercise = nb.output("ExercisePanel(")
    exercise.get_by_role("button", name="Check").click()
    expect(exercise).to_contain_text("What you name moves. 3 more in the list moved too.")
    exercise.get_by_role("button", name="Hint 1 of 3").click()
    expect(exercise).to_contain_text("two kinds of tensors")
    nb.screenshot("freezing-exercise-wrong", of=exercise)
    moved = ["bn.running_mean", "bn.running_var", "bn.num_batches_tracked", "fc.weight", "fc.bias"]
    nb.set_source(task, f"def what_moves():\n    return set({moved})")
    nb.run_cell(task)
    exercise.get_by_role("button", name="Check").click()
    expect(exercise).to_contain_text("passed")
    nb.screenshot("freezing")
    nb.theme("dark")
    nb.screenshot("freezing-dark")
