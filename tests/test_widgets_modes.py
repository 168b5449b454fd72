"""The panel on modes: what it shows is what the model does, and its code does the same."""

import copy
import threading
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ftlab.widgets import background
from ftlab.widgets.modes import ModesPanel
from ftlab.widgets.modes.experiment import Settings, run
from tests.test_modes import assert_same, state


def small():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*body, nn.Dropout(0.5), nn.Linear(4, 3))


IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1)) + 2


@pytest.fixture
def panel():
    return ModesPanel(small(), IMAGES, ["cat", "dog", "bird"])


def choose(panel, **values):
    for name, value in values.items():
        getattr(panel, name).value = value


CHOICES = [
    {},
    {"mode": "eval", "gradients": "inference_mode"},
    {"batch": 6, "dropout": 0.0, "passes": 5, "momentum": 0.5},
    {"gradients": "no_grad", "passes": 10, "momentum": 1.0, "dropout": 0.9},
]


@pytest.mark.parametrize("choice", CHOICES)
def test_the_code_shown_does_what_the_panel_did(panel, choice):
    choose(panel, **choice)
    model = copy.deepcopy(panel.model)
    names = {"model": model, "images": IMAGES}
    exec(compile(panel.code(), "<code>", "exec"), names)
    torch.testing.assert_close(names["logits"], panel.seen.logits, rtol=0, atol=0)
    torch.testing.assert_close(dict(model.named_buffers()), panel.seen.buffers, rtol=0, atol=0)
    assert panel.settings.mode == ("train" if model.training else "eval")


@pytest.mark.parametrize("choice", CHOICES)
def test_playing_changes_nothing(panel, choice):
    before = state(panel.model)
    choose(panel, **choice)
    assert_same(before, state(panel.model))


def test_the_mode_decides_what_is_said_and_what_moves(panel):
    choose(panel, dropout=0.0)
    train = panel.seen
    choose(panel, mode="eval")
    held = panel.seen
    assert (train.moved, held.moved) == (3, 0)
    assert train.shift > 0 == held.shift
    assert not torch.equal(train.logits, held.logits)
    with torch.no_grad():
        torch.testing.assert_close(held.logits, copy.deepcopy(panel.model).eval()(IMAGES[:4]))


def test_gradients_decide_the_memory_and_the_backward_alone(panel):
    choose(panel, mode="eval")
    grad = panel.seen
    choose(panel, gradients="no_grad")
    none = panel.seen
    assert torch.equal(grad.logits, none.logits)
    assert grad.kept > 0 == none.kept
    assert (grad.reached, grad.refused) == (6, "")
    assert none.reached == 0
    assert "does not require grad" in none.refused
    assert "does not require grad" in panel.table.value
    choose(panel, gradients="inference_mode")
    assert (panel.seen.kept, panel.seen.reached) == (0, 0)


def test_dropout_decides_whether_a_pass_repeats(panel):
    choose(panel, batch=6, dropout=0.5)
    assert not panel.seen.repeats
    assert "another output" in panel.table.value
    choose(panel, dropout=0.0)
    assert panel.seen.repeats
    choose(panel, dropout=0.9, mode="eval")
    assert panel.seen.repeats


def test_momentum_and_passes_decide_how_far_the_statistics_go(panel):
    def shift(**values):
        choose(panel, **values)
        return panel.seen.shift

    assert shift(momentum=0.0) == 0
    assert 0 < shift(momentum=0.01) < shift(momentum=0.1) < shift(passes=5) < shift(momentum=1.0)
    assert panel.seen.moved == 3


def test_the_line_and_the_picture_say_it(panel):
    choose(panel, mode="eval")
    assert repr(panel).startswith("eval mode, grad, 4 images, 1 pass: ")
    assert "looking changed no tensors" in repr(panel)
    assert panel.picture.alt.startswith("In this mode the network says: ")
    assert "<th scope" in panel.to_html()
    assert "The code" in panel.to_html()


def test_an_error_is_shown_and_the_next_choice_takes_it_away(monkeypatch):
    monkeypatch.delenv("FTLAB_CI")
    norm_last = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(3), nn.Linear(3, 2))
    panel = ModesPanel(norm_last, IMAGES)
    panel._running.ask = lambda work: work()
    choose(panel, batch=1)
    assert "Expected more than 1 value per channel" in str(panel.failure)
    assert "ValueError" in repr(panel)
    choose(panel, batch=2)
    assert panel.failure is None


def test_outside_of_tests_it_runs_in_the_background(monkeypatch, panel):
    monkeypatch.delenv("FTLAB_CI")
    over = threading.Event()  # the pause
    monkeypatch.setattr(background, "time", SimpleNamespace(sleep=lambda seconds: over.wait()))
    choose(panel, passes=5)
    assert repr(panel).endswith("running ...")
    assert panel.table.layout.visibility == "hidden"
    thread = panel._running._thread
    over.set()
    thread.join(600)
    assert "looking changed 3 tensors" in repr(panel)
    assert panel.table.layout.visibility == "visible"
    panel.close()


def test_a_model_without_images_is_refused():
    with pytest.raises(ValueError, match="Hand over a batch"):
        ModesPanel(small())


def test_a_model_without_norms_or_dropout_can_be_played():
    seen = run(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), IMAGES, Settings())
    assert (seen.moved, seen.shift, seen.repeats) == (0, 0.0, True)


def test_the_network_on_board_knows_the_cat_in_eval_mode_only():
    panel = ModesPanel()
    assert "cat" not in panel._says(panel.seen.logits)
    choose(panel, mode="eval", gradients="no_grad")
    assert panel._says(panel.seen.logits).startswith("Egyptian cat")
