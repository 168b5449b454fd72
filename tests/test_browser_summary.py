"""The lesson on summaries as a learner has it: run, folded, searched, and an exercise answered."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

LESSON = Path(__file__).parents[1] / "notebooks" / "02_summary.ipynb"


def test_summary_is_played_by_a_learner(notebook):
    nb = notebook(LESSON)
    nb.run_all()

    # the summary folds without a kernel: a native <details>
    found = nb.panel
    block = found.locator(".ftlab-fold details details").first
    expect(block.locator("div").first).to_be_hidden()
    block.locator("summary").first.click()
    expect(block.locator("div").first).to_be_visible()
    nb.screenshot("summary-fold", of=found.locator(".ftlab-fold").first)

    # the panel: unfold by keyboard, choose a row, search, another batch, the code
    panel = nb.output("SummaryPanel(pretrained")
    line = panel.get_by_role("status").first
    expect(line).to_contain_text("3.38 M parameters, 282.10 M multiply-adds")
    tree = panel.get_by_role("tree")
    row = tree.locator('.ftlab-row[data-path="classifier"]')
    row.focus()
    row.press("ArrowRight")
    expect(tree.locator('.ftlab-row[data-path="classifier.1"]')).to_be_visible()
    row.press("Space")
    expect(panel).to_contain_text("classifier (Sequential) gives 4×8")
    expect(row).to_have_attribute("aria-selected", "true")
    nb.screenshot("summary-panel", of=panel)
    panel.get_by_placeholder("a name or a kind").fill("batchnorm")
    expect(line).to_contain_text("49 of 241 blocks match")
    expect(row).to_have_count(0)
    nb.screenshot("summary-search", of=panel)
    panel.get_by_placeholder("a name or a kind").fill("")
    expect(row).to_be_visible()
    panel.get_by_label("batch", exact=True).select_option("16")
    expect(line).to_contain_text("on 16×3×96×96")
    panel.get_by_role("button", name="Show the code").click()
    expect(panel).to_contain_text("shadow(torch.empty(16, 3, 96, 96")

    # a wrong answer is named, the right one passes
    task = "def count_parameters"
    wrong = "    return sum(t.numel() for t in model.state_dict().values()), 0"
    nb.set_source(task, f"def count_parameters(model):\n{wrong}")
    nb.run_cell(task)
    exercise = nb.output("ExercisePanel(")
    exercise.get_by_role("button", name="Check").click()
    expect(exercise).to_contain_text("has buffers too")
    both = "    p = list(model.parameters())\n    return sum(map(len, map(torch.flatten, p))), "
    nb.set_source(task, f"def count_parameters(model):\n{both}sum(q.numel() for q in p if q.requires_grad)")
    nb.run_cell(task)
    exercise.get_by_role("button", name="Check").click()
    expect(exercise).to_contain_text("passed")
    nb.screenshot("summary")
    nb.theme("dark")
    nb.screenshot("summary-dark")
    nb.screenshot("summary-panel-dark", of=panel)
    nb.screenshot("summary-fold-dark", of=found.locator(".ftlab-fold").first)
