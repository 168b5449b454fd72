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


# The right edge of the last bar, of its heading, and of the tree, which scrolls if its content is wider.
EDGES = """() => {
  const right = (selector) => document.querySelector(selector).getBoundingClientRect().right;
  const bar = right('.ftlab-tree .ftlab-row .bar:last-child'), label = right('.ftlab-head .label:last-child');
  return bar > 0 && Math.abs(bar - label) < 12 && bar <= right('.ftlab-tree') && window.innerWidth === WIDTH;
}"""


def test_in_a_narrow_window_the_numbers_stay_in_sight_and_under_their_headings(notebook):
    made = "SummaryPanel(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), (1, 3, 8, 8))"
    nb = notebook([f"from torch import nn\n\nfrom ftlab.widgets.summary import SummaryPanel\n\n{made}"])
    nb.run_all()
    panel = nb.output("SummaryPanel(")
    expect(panel.locator(".ftlab-head")).to_contain_text("work")
    for width in (1280, 600):
        nb.page.set_viewport_size({"width": width, "height": 900})
        nb.page.wait_for_function(EDGES.replace("WIDTH", str(width)))
        nb.screenshot(f"summary-{width}", of=panel)
    expect(panel.locator(".ftlab-row .kind").last).to_be_hidden()
