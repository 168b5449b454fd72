"""FreezePanel and ExercisePanel in a real JupyterLab, with the keyboard alone."""

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

SETUP = """\
import torch
from torch import nn
from ftlab.widgets.freezing import FreezePanel
torch.manual_seed(0)
stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
body = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
model = nn.Sequential()
for name, block in dict(stem=stem, body=body, head=head).items():
    model.add_module(name, block)"""
PANEL = "panel = FreezePanel(model, example=torch.ones(4, 3, 16, 16)); panel"
TRAINABLE = "print([name for name, p in model.named_parameters() if p.requires_grad])"


class Keys:
    """A learner without a mouse."""

    def __init__(self, nb):
        self.page = nb.page

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    @property
    def focused(self):
        return self.page.locator(":focus")

    def tab_to(self, target):
        """Press Tab until the target has the focus."""
        for _ in range(12):
            if target.evaluate("element => element === document.activeElement"):
                return
            self.press("Tab")
        expect(target).to_be_focused()


@pytest.fixture
def nb(notebook):
    nb = notebook([SETUP, PANEL, TRAINABLE, "panel", "print(panel.code())"])
    nb.run_all()
    return nb


def row(panel, path):
    return panel.locator(f'.ftlab-row[data-path="{path}"]')


def test_a_block_is_frozen_and_a_step_is_judged_by_keyboard(nb):
    panel, keys = nb.output(PANEL), Keys(nb)
    panel.get_by_label("batch norm").focus()
    keys.press("ArrowDown", "Tab")  # let the statistics move; on to the tree
    expect(row(panel, "")).to_be_focused()
    keys.press("ArrowDown", "Space")
    expect(row(panel, "stem")).to_have_attribute("aria-checked", "false")
    expect(row(panel, "")).to_have_attribute("aria-checked", "mixed")
    expect(row(panel, "stem")).to_be_focused()  # drawn anew, and still in the hand
    expect(panel).to_contain_text("1 of 3 blocks frozen")
    keys.tab_to(panel.get_by_role("button", name="Run one step"))
    keys.press("Enter")
    expect(row(panel, "stem")).to_contain_text("moved though frozen: batch norm statistics (2)")
    expect(row(panel, "stem")).to_have_attribute(
        "title", "stem moved though frozen: batch norm statistics (2), a counter (1)"
    )
    expect(row(panel, "body")).to_contain_text("moved: gradient")
    expect(panel.get_by_role("button", name="Run one step")).to_be_focused()
    nb.run_cell(TRAINABLE)
    expect(nb.output(TRAINABLE)).not_to_contain_text("stem")
    nb.screenshot("freeze-panel-light")
    nb.theme("dark")
    nb.screenshot("freeze-panel-dark")


def test_blocks_are_unfolded_and_folded_by_keyboard(nb):
    panel, keys = nb.output(PANEL), Keys(nb)
    row(panel, "").focus()
    keys.press("ArrowDown", "ArrowRight")
    expect(row(panel, "stem.1")).to_be_visible()
    expect(row(panel, "stem")).to_have_attribute("aria-expanded", "true")
    keys.press("ArrowRight", "ArrowDown")
    expect(row(panel, "stem.1")).to_be_focused()
    keys.press("Enter")
    expect(row(panel, "stem")).to_have_attribute("aria-checked", "mixed")
    keys.press("ArrowLeft")
    expect(row(panel, "stem")).to_be_focused()
    keys.press("ArrowLeft")
    expect(row(panel, "stem.1")).to_be_hidden()
    keys.press("End")
    expect(row(panel, "head")).to_be_focused()
    keys.press("Home")
    expect(row(panel, "")).to_be_focused()


def test_the_keys_of_the_tree_are_not_those_of_the_notebook(nb):
    keys = Keys(nb)
    cells = nb.panel.locator(".jp-Notebook-cell")
    count = cells.count()
    row(nb.output(PANEL), "").focus()
    keys.press("ArrowDown", "ArrowUp", "Enter", "a", "b", "x", "Space")
    expect(cells).to_have_count(count)
    expect(row(nb.output(PANEL), "")).to_be_focused()


def test_two_views_of_one_panel_stay_in_step(nb):
    row(nb.output(PANEL), "head").click()
    other = nb.panel.locator(".jp-Notebook-cell").nth(3)
    expect(row(other, "head")).to_have_attribute("aria-checked", "false")


def test_the_code_is_shown_copied_and_the_one_that_python_gives(nb):
    panel, keys = nb.output(PANEL), Keys(nb)
    nb.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    row(panel, "stem").click()
    keys.tab_to(panel.get_by_role("button", name="Show the code"))
    keys.press("Space")
    copy = panel.get_by_role("button", name="Copy")
    keys.tab_to(copy)
    keys.press("Enter")
    expect(panel.get_by_role("button", name="Copied")).to_be_visible()
    copied = nb.page.evaluate("navigator.clipboard.readText()")
    assert 'for name in ["stem"]:\n    model.get_submodule(name).requires_grad_(False)' in copied
    nb.run_cell("print(panel.code())")
    expect(nb.output("print(panel.code())")).to_contain_text('for name in ["stem"]')  # not what run_all showed
    assert nb.output("print(panel.code())").inner_text().strip() == copied.strip()


def test_what_is_named_for_a_screen_reader(nb):
    panel = nb.output(PANEL)
    tree = panel.get_by_role("tree", name="Sequential")
    row(panel, "stem").click()
    expect(
        tree.get_by_role("treeitem", name="stem, Sequential, 240 parameters, frozen, statistics held")
    ).to_be_visible()
    expect(panel.get_by_role("status").last).to_contain_text("1 of 3 blocks frozen")
    expect(panel.get_by_role("combobox", name="batch norm")).to_be_visible()


def test_an_error_of_the_step_is_seen_in_the_panel(notebook):
    nb = notebook([SETUP, "panel = FreezePanel(model, example=torch.ones(4, 5, 16, 16)); panel"])
    nb.run_all()
    panel, keys = nb.output("FreezePanel(model"), Keys(nb)
    keys.tab_to(panel.get_by_role("button", name="Run one step"))
    keys.press("Enter")
    expect(panel.get_by_role("alert")).to_contain_text("It raised RuntimeError: Given groups=1")
    expect(panel.get_by_text("Traceback")).to_be_hidden()
    panel.get_by_text("Where it happened").focus()
    keys.press("Enter")
    expect(panel.get_by_text("Traceback")).to_be_visible()


EXERCISE = """\
from ftlab.exercises.core import Wrong, exercise
from ftlab.widgets.exercise import ExercisePanel

def check_double(answer):
    \"\"\"Numbers from 0 to 3 are doubled.\"\"\"
    for number in range(4):
        if answer(number) != 2 * number:
            raise Wrong(f"For {number} you gave {answer(number)}.", ask="What is twice the number?")

@exercise(check=check_double, hints=["Look at `*`.", "Return it."])
def double(number: int) -> int:
    \"\"\"Double `number`.\"\"\"
    return 2 * number

task = double"""
ANSWER = "def answer(number):\n    raise NotImplementedError"
ASK = "ExercisePanel(task, lambda: answer)"


def test_a_learner_is_wrong_takes_a_hint_and_is_right(notebook):
    nb = notebook([EXERCISE, ANSWER, ASK])
    nb.run_all()
    panel, keys = nb.output(ASK), Keys(nb)
    panel.get_by_role("button", name="Check").focus()
    keys.press("Enter")
    expect(panel).to_contain_text("double: not tried yet")
    nb.set_source("def answer", "def answer(number):\n    return number + 1")
    nb.run_cell("def answer")
    keys.tab_to(panel.get_by_role("button", name="Check"))
    keys.press("Enter")
    expect(panel).to_contain_text("For 0 you gave 1.")
    expect(panel.get_by_role("button", name="Check")).to_be_focused()
    keys.press("Tab", "Enter")
    expect(panel).to_contain_text("Hint 1 of 2: Look at *.")
    nb.screenshot("exercise-panel", of=panel)
    nb.set_source("def answer", "def answer(number):\n    return number + number")
    nb.run_cell("def answer")
    panel.get_by_role("button", name="Check").focus()
    keys.press("Enter")
    expect(panel).to_contain_text("✔ double: passed")
