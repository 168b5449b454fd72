"""The capstone as a learner has it: the right way passes, wrong choices and reasons are named, runs judged."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

LESSON = Path(__file__).parents[1] / "notebooks" / "11_capstone.ipynb"

DECISIONS = """decisions = {{
    "copies": ("kept", "always on one side"),
    "strategy": ("head", "{strategy}"),
    "size": ({size}, "told apart better"),
    "balance": (True, "uneven classes"),
    "report": ("{report}", "each class matters"),
}}
"""
WRONG = {"strategy": "enough images", "size": 64, "report": "accuracy on hidden images"}
RIGHT = {"strategy": "few images", "size": 160, "report": "mean over the classes on hidden images"}
GIVEN, DEFEND = "decisions = {", "capstone.defend("


def test_capstone_is_played_by_a_learner(notebook):
    nb = notebook(LESSON)

    # a word that is no reason is said before anything is trained
    nb.set_source(GIVEN, DECISIONS.format(**WRONG | {"strategy": "few image"}) + "capstone.choices(decisions)")
    for cell in ("own = None", GIVEN):
        nb.run_cell(cell)
    expect(nb.output(GIVEN)).to_contain_text("strategy: there is no reason 'few image'; the nearest")

    # the right way: every decision is defended, and the judge has nothing to improve
    nb.set_source(GIVEN, DECISIONS.format(**RIGHT))
    nb.run_all()
    said = nb.output(DEFEND)
    expect(said).to_contain_text("5 of 5 checks hold")
    expect(nb.output("final = capstone.judge(")).to_contain_text("7 of 7 checks hold: the work is done.")
    expect(nb.output("verdict = capstone.judge(")).to_contain_text("open it, decide which class is right")

    # a choice that the run did not make, and reasons that are not true of these images
    nb.set_source(GIVEN, DECISIONS.format(**WRONG))
    nb.run_cell(GIVEN)
    nb.run_cell(DEFEND)
    expect(said).to_contain_text("2 of 5 checks hold")
    expect(said).to_contain_text("that is few, fewer than 30: is there another reason, or another choice?")
    expect(said).to_contain_text("the run did 160")
    expect(said).to_contain_text("say what was done, or run again as you decided")
    expect(said).to_contain_text("each must count the same: the mean over the classes")
    nb.screenshot("capstone-wrong", of=said)

    # the panel finds the new run; a reason is worth at once what was measured
    panel = nb.output("panel = CapstonePanel(")
    line = panel.get_by_role("status").last
    expect(line).to_contain_text("second: 5 of 5 decisions defended; 7 of 7 checks hold: the work is done")
    nb.screenshot("capstone-panel", of=panel)
    nb.set_source(
        "second = finetune.run(", 'finetune.run(folder, place / "third", size=32, strategy="head", epochs=1)'
    )
    nb.run_cell('place / "third", size=32')
    look = panel.get_by_role("button", name="Look for new runs")
    look.focus()
    look.press("Enter")
    run, because = panel.get_by_label("run", exact=True), panel.get_by_label("strategy because")
    run.select_option("third")
    expect(line).to_contain_text("third: 4 of 5 decisions defended; not judged yet")
    expect(panel).to_contain_text("measured at 64, 160, not at 32 pixels")
    because.select_option("it is the default")
    expect(panel).to_contain_text("whoever wrote the default has not seen your images")
    nb.screenshot("capstone-panel-cards", of=panel)

    # the images of the first run have changed: a card says it, and the judge; another judgement is stopped
    run.select_option("first")
    expect(panel).to_contain_text("measure again")
    judge = panel.get_by_role("button", name="Judge")
    judge.click()
    expect(panel).to_contain_text("the folder has other images now")
    run.select_option("third")
    judge.click()
    panel.get_by_role("button", name="Stop").click()
    expect(panel).to_contain_text("stopped")
    expect(line).to_contain_text("not judged yet")
    panel.get_by_role("button", name="Show the code").click()
    expect(panel).to_contain_text("torch.inference_mode()")
    run.select_option("second")
    because.select_option("few images")
    expect(line).to_contain_text("second: 5 of 5 decisions defended")
    expect(panel.get_by_role("img").first).to_be_visible()  # the surest mistakes
    nb.screenshot("capstone")
    nb.theme("dark")
    nb.screenshot("capstone-dark")
    nb.screenshot("capstone-panel-dark", of=panel)
