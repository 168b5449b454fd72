"""The lesson on checkpoints as a learner has it: opened in JupyterLab, run, and played."""

import pytest
import torch
from playwright.sync_api import expect
from torch import nn

from ftlab import paths

pytestmark = pytest.mark.browser


WRONG = """\
def bare(state):
    return {name.replace("module.", "").replace("_orig_mod.", ""): value for name, value in state.items()}"""
RIGHT = """\
def bare(state):
    import re
    return {re.sub(r"^((module|_orig_mod)\\.)+", "", name): value for name, value in state.items()}"""


def test_checkpoints_is_played_by_a_learner(notebook, tmp_path):
    nb = notebook(paths.LESSONS / "09_checkpoints.ipynb")
    nb.run_all()

    # a piece of the museum by keyboard; apply its fix
    panel = nb.output("panel = CheckpointPanel")
    line = panel.get_by_role("status").first
    expect(line).to_contain_text("parallel.pth: prefix")
    choice = panel.get_by_label("file", exact=True)
    choice.focus()
    choice.select_option("ten_classes")
    expect(line).to_contain_text("ten.pt: classes. The fix loads 20 of the model's 22 tensors")
    expect(panel).to_contain_text("After the fix head.weight, head.bias stay as they were")
    nb.screenshot("checkpoints-panel", of=panel)
    panel.get_by_role("button", name="Apply the fix").click()
    expect(line).to_contain_text("The fix was applied: 20 of 22 tensors loaded")
    expect(panel.get_by_role("button", name="Apply the fix")).to_be_disabled()
    choice.select_option("page")
    expect(line).to_contain_text("html-page. Nothing can be loaded into this model")
    expect(panel.get_by_role("button", name="Show the code")).to_be_hidden()

    # a file of one's own, for a real network
    torch.save(nn.DataParallel(nn.Linear(2, 2)).state_dict(), tmp_path / "my.pt")
    with nb.page.expect_file_chooser() as chooser:
        panel.get_by_role("button", name="Your own file").click()
    chooser.value.set_files(str(tmp_path / "my.pt"))
    expect(line).to_contain_text("my.pt: ")
    panel.get_by_label("model", exact=True).select_option("resnet18")
    expect(line).to_contain_text("my.pt: other-model")
    panel.get_by_label("or its path").fill("nowhere.pt")
    panel.get_by_label("or its path").press("Enter")
    expect(panel.get_by_role("alert")).to_contain_text("there is no file")
    nb.screenshot("checkpoints-panel-error", of=panel)
    choice.select_option("renamed")
    panel.get_by_label("model", exact=True).select_option("the one that it is meant for")
    panel.get_by_role("button", name="Show the code").click()
    expect(panel).to_contain_text("def renamed(key):")
    nb.screenshot("checkpoints-panel-code", of=panel)

    # a wrong answer is named, a right one passes
    task, check = "def bare", "bare.check"
    nb.set_source(task, WRONG)
    nb.run_cell(task)
    nb.run_cell(check)
    expect(nb.output(check)).to_contain_text("module.submodule.weight became subweight")
    nb.set_source(task, RIGHT)
    nb.run_cell(task)
    nb.run_cell(check)
    expect(nb.output(check)).to_contain_text("passed")
    nb.screenshot("checkpoints")
    nb.theme("dark")
    nb.screenshot("checkpoints-panel-dark", of=panel)
    nb.screenshot("checkpoints-dark")
