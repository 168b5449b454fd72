"""LoopPanel: lines in any order, what three batches do to them, and that the model stays as it was."""

import copy
import random
import warnings

import pytest
import torch
from torch import nn

from ftlab.exercises.behaviour import same_model
from ftlab.exercises.models import SmallResNet
from ftlab.random_state import keep_random_state
from ftlab.training import check_loop
from ftlab.training.blocks import BLOCKS, RIGHT, LoopRun, loop_code, raises_in, run_blocks
from ftlab.widgets.training import LOOPS, LoopPanel, _read

IMAGES = torch.randn(6, 3, 24, 24, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6) % 3


@pytest.fixture
def model():
    return SmallResNet()


@pytest.fixture
def panel(model):
    return LoopPanel(model, IMAGES, LABELS)


def test_the_model_stays_as_it_was(model, panel):
    before, random = copy.deepcopy(model), torch.get_rng_state()
    for loop in LOOPS:
        panel.start.value = loop
    panel.run.click()
    panel.code()
    assert panel.failure is None
    assert same_model(model, before) == []
    assert torch.equal(random, torch.get_rng_state())


def test_a_line_moves_and_stays_chosen(panel):
    panel.lines.value = 5
    panel.up.click()
    panel.up.click()
    assert panel.blocks == ["zero_grad", "forward", "loss", "step", "backward", "clip", "schedule"]
    assert panel.chosen == panel.lines.value == 3
    assert panel.start.value == "a loop of your own"
    panel.down.click()
    panel.down.click()
    assert panel.blocks == list(RIGHT)
    assert panel.start.value == "the right loop"
    panel.lines.value = 0
    panel.up.click()  # there is nothing above
    assert panel.blocks == list(RIGHT)


def test_lines_are_doubled_dropped_and_added(panel):
    panel.lines.value = 5
    panel.double.click()
    assert panel.blocks[5:7] == ["step", "step"]
    assert panel.report().kinds == ["step twice"]
    panel.drop.click()
    panel.add.value = "softmax"
    panel.lines.value = 1
    panel.insert.click()
    assert panel.blocks[2] == "softmax"
    assert panel.report().kinds == ["softmax before cross_entropy"]
    for _ in range(12):
        panel.drop.click()
    assert panel.blocks == []
    assert "0 lines" in repr(panel)
    panel.drop.click()
    panel.insert.click()
    assert panel.blocks == ["softmax"]
    assert panel.failure is None


def test_too_many_lines_are_refused_in_the_panel(panel, monkeypatch):
    monkeypatch.delenv("FTLAB_CI", raising=False)
    for _ in range(20):
        panel.double.click()
    assert len(panel.blocks) == 14
    assert "drop one first" in panel.to_html()


WORDS = {
    "the right loop": [],
    "zero_grad forgotten": ["no zero_grad"],
    "zero_grad too late": ["zero_grad between backward and step"],
    "step before backward": ["step before backward"],
    "clip after the step": ["clip after step"],
    "clip before backward": ["clip before backward"],
    "schedule first": ["scheduler before optimizer"],
    "two steps": ["step twice"],
    "softmax twice": ["softmax before cross_entropy"],
}


@pytest.mark.parametrize("loop", LOOPS)
def test_each_loop_gets_its_word_and_other_numbers_than_the_right_one(panel, loop):
    panel.start.value = loop
    assert panel.report().kinds == WORDS[loop]
    assert ("⚠" in panel.lines.label) is bool(WORDS[loop]) or any("⚠" in text for text, _ in panel.lines.options)
    mine = run_blocks(panel.blocks, panel.model, panel.batches)
    assert len(mine.losses) == 3
    assert (mine == run_blocks(RIGHT, panel.model, panel.batches)) is (loop == "the right loop")


def test_what_the_run_shows_is_what_the_word_says(panel):
    right = run_blocks(RIGHT, panel.model, panel.batches)
    assert right.rates == [0.05, 0.025, 0.0125]
    assert all(norm <= 1 + 1e-4 for norm in right.norms)
    assert all(norm > 1 for norm in right.gradients)
    run = {loop: run_blocks(LOOPS[loop], panel.model, panel.batches) for loop in LOOPS}
    assert run["zero_grad too late"].norms == run["zero_grad too late"].distances == [0, 0, 0]
    assert run["schedule first"].rates == [0.025, 0.0125, 0.00625]
    clipped_late = run["clip after the step"]
    assert clipped_late.norms == pytest.approx(clipped_late.gradients)
    kept = run_blocks(["forward", "loss", "backward"], panel.model, panel.batches[:1] * 3).gradients
    assert kept[2] > 2 * kept[0]  # the sum of three
    right, clipped = (run_blocks(loop, panel.model, panel.batches) for loop in (RIGHT, RIGHT[1:]))
    assert clipped.gradients[1] - right.gradients[1] < 1.01  # what is left of a clipped gradient is at most 1
    assert run["step before backward"].norms == [0, 0, 0]


def test_numbers_of_another_loop_are_not_shown(panel):
    panel.run.click()
    assert "<table>" in panel.numbers.value
    assert panel.picture.alt.startswith("this loop: losses")
    assert panel.mine == panel.right
    panel.drop.click()
    assert panel.numbers.value == ""
    assert panel.picture.alt == ""


def test_the_right_loop_beside_it_begins_with_the_same_model(model, panel):
    panel.run.click()
    with torch.no_grad():
        model.fc.weight.mul_(3)  # as the shown code does it, run in a cell
    panel.run.click()
    assert panel.mine == panel.right


@pytest.mark.parametrize("without", ["forward", "loss", "backward", "step"])
def test_a_loop_that_trains_nothing_is_not_called_right(panel, without):
    panel.blocks = [name for name in ("forward", "loss", "backward", "step") if name != without]
    panel.refresh()
    assert "nothing to object to" not in f"{panel.words.value}{panel}"
    panel.blocks = []
    panel.refresh()
    assert "Nothing is trained: there is no <code>outputs = model(images)</code>" in panel.words.value
    assert repr(panel) == "0 lines, nothing is trained: there is no `outputs = model(images)`"


def test_a_loop_that_raises_is_not_called_right(panel):
    panel.blocks = ["loss", *RIGHT]
    panel.refresh()
    assert "<p>⚠ Line 1 raises: no line above it has made <code>outputs</code>.</p>" in panel.words.value
    assert repr(panel) == "8 lines, line 1 raises: no line above it has made `outputs`"


def test_where_a_loop_raises_is_known_before_it_runs():
    model, batches = nn.Linear(4, 3), [(IMAGES[0, 0, :6, :4], LABELS)] * 2
    raised = []
    for blocks in _mutated_loops(80):
        line, why = raises_in(blocks)
        error = run_blocks(blocks, model, batches).error
        assert bool(line) == bool(error), (blocks, why, error)
        if line:
            assert why.split("`")[1].rstrip("()") in error.replace("'", "`"), (blocks, why, error)
            raised.append("NameError" in error)
    assert set(raised) == {True, False}
    assert len(raised) < 70


def _mutated_loops(count):
    """Yield the right loop with one to three lines moved, doubled, dropped or added."""
    chance = random.Random(0)
    for _ in range(count):
        blocks = list(RIGHT)
        for _ in range(chance.randint(1, 3)):
            place, other = chance.randrange(len(blocks)), chance.randrange(len(blocks))
            line = blocks.pop(place)
            extra = chance.choice(["softmax", "total", "train", line])
            blocks[other:other] = chance.choice([[line], [line, line], [], [extra, line]])
        yield blocks


def test_whoever_chooses_a_line_waits_neither_for_the_linter_nor_for_a_picture(panel, monkeypatch):
    done, plot = [], LoopRun.plot
    monkeypatch.setattr("ftlab.widgets.training.check_loop", lambda code: done.append("read") or check_loop(code))
    monkeypatch.setattr(LoopRun, "plot", lambda run, right: done.append("drawn") or plot(run, right))
    _read.cache_clear()
    panel.run.click()
    assert done == ["read", "drawn"]
    panel.lines.value = 2
    assert panel.chosen == 2
    assert done == ["read", "drawn"]
    panel.drop.click()
    panel.run.click()
    assert done == ["read", "drawn"] * 2


def test_a_loop_that_raises_says_so(panel):
    panel.blocks = ["forward", "loss", "backward", "backward"]
    panel.run.click()
    assert "batch 1: it raised RuntimeError" in panel.mine.error
    assert "it raised RuntimeError" in panel.to_html()
    panel.blocks = ["loss"]
    panel.run.click()
    assert "NameError" in panel.mine.error
    assert panel.failure is None


@pytest.mark.parametrize("loop", LOOPS)
def test_the_code_stands_alone_and_does_what_the_panel_did(model, panel, loop):
    panel.start.value = loop
    mine = run_blocks(panel.blocks, model, panel.batches)
    copied = copy.deepcopy(model)
    start = torch.cat([p.detach().flatten().clone() for p in copied.parameters()])
    with keep_random_state(0), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the scheduler that is stepped first, rightly
        exec(compile(panel.code(), "<panel>", "exec"), {"model": copied, "batches": panel.batches})
    end = torch.cat([p.detach().flatten() for p in copied.parameters()])
    assert ((end - start).norm() / start.norm()).item() == pytest.approx(mine.distances[-1], rel=1e-3)


def test_small_data_is_used_three_times(model):
    panel = LoopPanel(model, IMAGES[:3], LABELS[:3])
    assert len(panel.batches) == 3
    with pytest.raises(ValueError, match="do not belong together"):
        LoopPanel(model, IMAGES, LABELS[:3])
    with pytest.raises(TypeError, match="the model has to be of type Module"):
        LoopPanel(model.state_dict(), IMAGES, LABELS)


def test_the_twin_has_the_words_the_numbers_and_the_code(panel):
    panel.start.value = "zero_grad forgotten"
    panel.run.click()
    html = panel.to_html()
    assert "no zero_grad" in html
    assert ">gradient norm</th>" in html
    assert html.count('>yours</th><th style="text-align: right">right</th>') == 5
    assert "loss.backward()" in html
    assert "[Picture: this loop: losses" in html


def test_blocks_that_are_not_there_are_said():
    with pytest.raises(ValueError, match="the nearest is 'zero_grad'"):
        loop_code(["zero_gard"])
    assert loop_code([]).endswith("pass")
    assert set(RIGHT) <= set(BLOCKS)


def test_a_run_is_plain_data():
    run = run_blocks(RIGHT, nn.Linear(2, 2), [(torch.ones(2, 2), torch.tensor([0, 1]))] * 3)
    assert set(run.to_dict()) == {"losses", "gradients", "norms", "rates", "distances", "error"}
    assert "gradient norm" in repr(run)
    assert "<table>" in run._repr_html_()
