"""Lesson 04 as a learner has it: run, played with mouse and keyboard, and answered."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

LESSON = Path(__file__).parents[1] / "notebooks" / "04_modes.ipynb"


def test_modes_is_played_by_a_learner(notebook):
    nb = notebook(LESSON)
    nb.run_all()
    expect(nb.output("log.plot()").locator("img")).to_be_visible()

    # from train mode to eval mode: the cat comes back, and nothing moves
    panel = nb.output("ModesPanel()")
    line, picture = panel.get_by_role("status").first, panel.get_by_role("img")
    expect(line).to_contain_text("looking changed 147 tensors")
    expect(picture).to_be_visible()
    nb.screenshot("modes-panel-train", of=panel)
    panel.get_by_role("button", name="eval", exact=True).click()
    expect(line).to_contain_text("Egyptian cat")
    expect(line).to_contain_text("looking changed no tensors")
    expect(panel).to_contain_text("gives 149 of 149 parameters a gradient")

    # the other switch, by keyboard: the answer stays, the memory goes
    switch = panel.get_by_role("button", name="no_grad", exact=True)
    switch.focus()
    switch.press("Enter")
    expect(line).to_contain_text("0.0 MiB kept")
    expect(line).to_contain_text("Egyptian cat")
    expect(panel).to_contain_text("does not require grad")
    handle = panel.locator(".noUi-handle").first  # the batch: 4 images
    handle.focus()
    handle.press("ArrowRight")
    expect(line).to_contain_text("eval mode, no_grad, 5 images")
    expect(line).to_contain_text("Egyptian cat")
    panel.get_by_role("button", name="Show the code").click()
    expect(panel).to_contain_text("logits = model(images[:5])")
    nb.screenshot("modes-panel-eval", of=panel)

    # a wrong answer is named, a hint helps, the right answer passes
    task = "def repeatable"
    nb.set_source(task, "def repeatable():\n    return {'eval', 'eval + inference_mode', 'no_grad'}")
    nb.run_cell(task)
    exercise = nb.output("ExercisePanel(modes.repeatable")
    exercise.get_by_role("button", name="Check").click()
    expect(exercise).to_contain_text("You name no_grad. We ran it twice: the outputs differ.")
    exercise.get_by_role("button", name="Hint 1 of 3").click()
    expect(exercise).to_contain_text("Only one of them draws at random")
    nb.screenshot("modes-exercise-wrong", of=exercise)
    right = "{'eval', 'eval + inference_mode', 'dropout in eval'}"
    nb.set_source(task, f"def repeatable():\n    return {right}")
    nb.run_cell(task)
    exercise.get_by_role("button", name="Check").click()
    expect(exercise).to_contain_text("✔ repeatable: passed")
    nb.screenshot("modes")
    nb.theme("dark")
    nb.screenshot("modes-dark")
    nb.screenshot("modes-panel-dark", of=panel)
