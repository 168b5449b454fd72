"""The lesson on training as a learner has it: run in JupyterLab, and played."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

LESSON = Path(__file__).parents[1] / "notebooks" / "07_training.ipynb"


def test_training_is_played_by_a_learner(notebook):
    nb = notebook(LESSON)
    nb.run_all()

    # the linter names the slips of a loop that was brought, and reads the learner's own
    report = nb.output("report = check_loop(brought)")
    expect(report).to_contain_text("4 slips in this loop")
    nb.screenshot("training-report", of=report)
    mine = "def my_loop("
    nb.set_source(
        mine,
        "def my_loop(model, images, targets, optimizer):\n"
        "    loss = F.cross_entropy(model(images), targets)\n"
        "    loss.backward()\n"
        "    optimizer.step()\n\n\n"
        "check_loop(my_loop)",
    )
    nb.run_cell(mine)
    expect(nb.output(mine)).to_contain_text("no zero_grad")

    # start from a loop in the wrong order, run it, see what it did; drop a line; look at the code
    panel = nb.output("LoopPanel(")
    expect(panel).to_contain_text("nothing to object to")
    panel.get_by_label("start from").select_option(label="clip after the step")
    expect(panel).to_contain_text("1 slip: clip after step")
    run = panel.get_by_role("button", name="Run three batches")
    run.focus()
    run.press("Enter")
    expect(panel).to_contain_text("after 3 batches the parameters moved by")
    expect(panel.get_by_role("img")).to_have_count(1)
    nb.screenshot("training-panel", of=panel)
    panel.get_by_role("button", name="Drop").click()
    expect(panel).to_contain_text("no zero_grad")
    panel.get_by_role("button", name="Show the code").click()
    expect(panel).to_contain_text("for images, targets in batches:")

    # a wrong answer is named, the right one passes
    task, check = "def gradients()", "training.gradients.check("
    nb.set_source(task, "def gradients():\n    return 3.0, 3.0, 3.0, None")
    nb.run_cell(task)
    nb.run_cell(check)
    expect(nb.output(check)).to_contain_text("After line 2, weight.grad is not 3.0")
    nb.set_source(task, "def gradients():\n    return 3.0, 6.0, 6.0, None")
    nb.run_cell(task)
    nb.run_cell(check)
    expect(nb.output(check)).to_contain_text("gradients: passed")
    nb.screenshot("training")
    nb.theme("dark")
    nb.screenshot("training-dark")
    nb.screenshot("training-panel-dark", of=panel)
