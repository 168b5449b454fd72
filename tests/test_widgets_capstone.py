"""The capstone's panel: reasons are worth at once what the facts say, and the judge speaks when asked."""

import shutil
from pathlib import Path

import pytest
import torch

from ftlab import capstone, finetune
from ftlab.capstone import judging
from ftlab.capstone.verdict import Finding
from ftlab.widgets import capstone as widgets
from ftlab.widgets.capstone import OPEN, CapstonePanel
from tests.test_capstone import contents


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Only the quick checks; and the job ends before `start` returns."""
    monkeypatch.setenv("FTLAB_CI", "1")
    quick = {check: step for check, step in judging.CHECKS.items() if step.__name__ in ("_leaks", "_accuracy")}
    monkeypatch.setattr(judging, "CHECKS", quick)
    monkeypatch.setattr(widgets, "CHECKS", quick)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A clean folder of a few images of each class, and two runs of it that differ in size."""
    place = tmp_path_factory.mktemp("panel")
    whole = capstone.make_folder(place / "whole")
    for name in capstone.CLASSES:
        (place / "mine" / name).mkdir(parents=True)
        for file in sorted((whole / name).glob("IMG_00*.png"))[:6]:
            shutil.copy(file, place / "mine" / name / f"{file.stem}.png")
    for copied in (place / "mine" / "sport").glob("* (1).png"):
        copied.unlink()
    for name, size in {"small": 32, "larger": 48}.items():
        finetune.run(place / "mine", place / name, size=size, epochs=1, strategy="head", say=lambda line: None)
    return place


@pytest.fixture(scope="module")
def facts(place):
    return capstone.measure(place / "mine", sizes=[32, 48])


@pytest.fixture
def panel(place, facts):
    return CapstonePanel(place, facts)


def test_it_begins_with_the_latest_run_and_nothing_is_decided(panel):
    assert (panel.run.options, panel.run.value) == (("small", "larger"), "larger")
    assert repr(panel) == "larger: 0 of 5 decisions defended, 5 not decided yet; not judged yet"
    assert set(panel.decisions.values()) == {...}
    assert panel.cards.value.count("Your turn: choose, with a reason") == 5


def test_a_reason_is_worth_at_once_what_the_facts_say(panel):
    panel.because["strategy"].value = "few images"
    assert panel.decisions["strategy"] == ("head", "few images")
    assert "1 of 5 decisions defended, 4 not decided yet" in repr(panel)
    panel.because["strategy"].value = "enough images"
    assert "0 of 5 decisions defended, 4 not decided yet" in repr(panel)
    assert "✗ does not hold: strategy: &#x27;head&#x27;, because &#x27;enough images&#x27;" in panel.cards.value
    assert "What to improve: that is few, fewer than 30" in panel.cards.value
    panel.because["strategy"].value = OPEN
    assert panel.decisions["strategy"] is ...


def test_the_choice_of_a_run_is_read_from_its_plan(panel):
    panel.because["size"].value = "told apart better"
    assert panel.decisions["size"][0] == 48
    assert "<b>48</b>" in panel.did["size"].value
    panel.run.value = "small"
    assert panel.decisions["size"][0] == 32
    assert "<b>32</b>" in panel.did["size"].value


def test_what_is_decided_can_be_handed_over_and_taken_out(place, facts):
    decided = {
        "report": ("accuracy on val", "it is the highest"),
        "size": (48, "told apart better"),
        "copies": ...,
    }
    panel = CapstonePanel(place, facts, decided)
    assert {name: made for name, made in panel.decisions.items() if made is not ...} == {
        name: made for name, made in decided.items() if made is not ...
    }
    with pytest.raises(ValueError, match="no reason 'best'"):
        CapstonePanel(place, facts, {"report": ("accuracy on val", "best")})


def test_the_judge_speaks_when_asked_and_changes_no_run(panel, place):
    before, state = contents(place), torch.get_rng_state()
    panel.job.start()
    assert contents(place) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert panel.verdict.findings[-1].check.startswith("accuracy on hidden images")
    assert "checks hold" in repr(panel)
    assert panel.picture.alt.startswith("The surest mistakes: ")
    assert panel.job.bar.value == 1
    panel.run.value = "small"
    assert "not judged yet" in repr(panel)
    assert panel.picture.alt == ""
    panel.run.value = "larger"
    assert "checks hold" in repr(panel)
    assert "[Picture: The surest mistakes" in panel.to_html()


def test_another_run_is_found(place, facts, tmp_path):
    here = tmp_path / "runs"
    here.mkdir()
    with pytest.raises(FileNotFoundError, match="no folder of a run that has ended"):
        CapstonePanel(here, facts)
    shutil.copytree(place / "small", here / "small")
    panel = CapstonePanel(here, facts)
    shutil.copytree(place / "larger", here / "another")
    (here / "half").mkdir()
    shutil.copy(place / "small" / "plan.json", here / "half")  # has not ended
    panel.look.click()
    assert set(panel.run.options) == {"small", "another"}
    assert panel.run.value == "small"


def test_facts_of_other_images_are_a_card_and_no_crash(place, panel, tmp_path):
    changed = Path(shutil.copytree(place / "mine", tmp_path / "mine"))
    next((changed / "food").iterdir()).unlink()
    panel.facts = capstone.measure(changed, sizes=[])
    panel.refresh()
    assert panel.failure is None
    assert "measure again" in panel.cards.value
    assert "0 of 5 decisions defended" in repr(panel)


def test_the_code_gives_the_number_of_the_judge(panel):
    panel.job.start()
    names = {"out": panel.out, "hidden": panel.verdict.pictures}
    exec(compile(panel.code(), "<panel>", "exec"), names)
    assert names["accuracy"] == pytest.approx(panel.verdict.mean_accuracy)
    assert str(panel.place) not in panel.code()


def test_what_comes_from_outside_is_escaped():
    html = widgets.cards_html([Finding("<b>x", False, "<i>", "<u>"), Finding("fine", True, "yes")])
    assert "<i>" not in html.replace("<i></i>", "")
    assert "&lt;b&gt;x" in html
    assert "<summary>✓ 1 hold</summary>" in html
    assert html.index("does not hold") < html.index("<details>") < html.index("fine")


def test_the_twin_says_what_is_decided(panel):
    panel.because["balance"].value = "even classes"
    twin = panel.to_html()
    assert "balance because: even classes" in twin
    assert "<select" not in twin
    assert "torch.inference_mode()" in twin
