"""The lesson on several processes as a learner has it: run in JupyterLab, and played."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

LESSON = Path(__file__).parents[1] / "notebooks" / "10_multi_gpu.ipynb"


def test_multi_gpu_is_played_by_a_learner(notebook):
    nb = notebook(LESSON)
    nb.run_all()

    # choose a sampler that hangs, read it; choose another, and run real processes
    panel = nb.output("RanksPanel(")
    line = panel.get_by_role("status").first
    panel.get_by_label("sampler").select_option(label="each image once")
    panel.get_by_label("wrapper").select_option(label="none")
    expect(panel).to_contain_text("the gradients meet nowhere")
    panel.get_by_label("wrapper").select_option(label="DistributedDataParallel")
    run = panel.get_by_role("button", name="Run it")
    run.focus()
    run.press("Enter")
    expect(panel).to_contain_text("[rank 1] epoch 1: images")
    expect(panel).to_contain_text("[rank 0] the first name in the file: module.0.weight")
    nb.screenshot("multi-gpu-panel", of=panel)
    panel.get_by_role("button", name="Show the code").click()
    expect(panel).to_contain_text("# torchrun --nproc-per-node=2 train.py")
    expect(line).to_be_visible()

    # a wrong answer is named, the right one passes
    task, check = "def same_as_one", "multi_gpu.same_as_one.check("
    nb.set_source(task, 'def same_as_one():\n    return 64, 0.1, "each rank makes a step of its own"')
    nb.run_cell(task)
    nb.run_cell(check)
    expect(nb.output(check)).to_contain_text("a step sees 256 images")
    nb.set_source(task, 'def same_as_one():\n    return 16, 0.1, "the gradient is the mean over the ranks"')
    nb.run_cell(task)
    nb.run_cell(check)
    expect(nb.output(check)).to_contain_text("same_as_one: passed")
    nb.screenshot("multi-gpu")
    nb.theme("dark")
    nb.screenshot("multi-gpu-dark")
    nb.screenshot("multi-gpu-panel-dark", of=nb.output("RanksPanel("))
