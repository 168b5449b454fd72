"""The panel on strategy: its results are those of its code, they pile up, and nothing handed over changes."""

import copy
import threading

import pytest
import torch

from ftlab.exercises.behaviour import same_model
from ftlab.exercises.models import SmallResNet
from ftlab.widgets.strategy import StrategyPanel
from tests.test_strategy import Colours

TRAIN, TEST, FAR = Colours(), Colours((6, 6, 6), seed=1), Colours((6, 6, 6), seed=2, noise=1.5)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setenv("FTLAB_CI", "1")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return SmallResNet(num_classes=4)


@pytest.fixture
def panel(model):
    return StrategyPanel({"near": (TRAIN, TEST), "far": (TRAIN, FAR)}, model, epochs=2)


def choose(panel, **values):
    for name, value in values.items():
        getattr(panel, name).value = value


CHOICES = [
    {"depth": 1, "images": 12},
    {"depth": 2, "images": 12, "seed": 3},
    {"depth": 3, "images": 27, "body_lr": 1e-3},
    {"data": "far", "depth": 6, "images": 6},
]


@pytest.mark.parametrize("choice", CHOICES)
def test_the_code_shown_gives_the_accuracy_of_the_panel(model, panel, choice):
    choose(panel, **choice)
    assert panel.result is None
    panel.job.start()
    names = {"model": copy.deepcopy(model), "train": TRAIN, "test": {"near": TEST, "far": FAR}[panel.data.value]}
    exec(compile(panel.code(), "<panel>", "exec"), names)
    assert names["accuracy"] == pytest.approx(panel.result.accuracy, abs=0.5 / len(TEST))
    learned = sum(p.numel() for p in names["model"].parameters() if p.requires_grad)
    assert learned == panel.result.trained


def test_the_deepest_choice_is_everything_and_the_shallowest_the_head(panel):
    labels = [label for label, _ in panel.depth.options]
    assert labels[0] == "head only"
    assert labels[-1] == "everything"
    assert labels[1] == "layer4 and later" or labels[1].startswith("layer4")


def test_results_pile_up_and_stay_to_be_compared(panel):
    panel.job.start()
    choose(panel, seed=1)
    panel.job.start()
    choose(panel, depth=2)
    panel.job.start()
    assert len(panel.results) == 3
    assert "3 results to compare" in repr(panel)
    assert len(panel.table()) == 3
    assert panel.picture.alt.count("images, seed") == 3
    choose(panel, depth=1, seed=0)
    assert panel.result is panel.results[0][1]
    panel.clear.click()
    assert panel.results == []
    assert panel.picture.alt == ""
    assert "not trained yet" in repr(panel)


def test_images_are_offered_in_doublings_up_to_all(panel):
    assert list(panel.images.options) == [6, 12, 24, 27]


def test_the_rate_of_the_body_counts_only_where_a_body_learns(panel):
    assert panel.body_lr.disabled
    assert panel.settings["body_lr"] is None
    choose(panel, depth=2)
    assert not panel.body_lr.disabled
    assert panel.settings["body_lr"] == pytest.approx(3e-4)


def test_nothing_that_is_handed_over_changes(model):
    before, state = copy.deepcopy(model), torch.get_rng_state()
    panel = StrategyPanel({"near": (TRAIN, TEST)}, model, epochs=1)
    for depth in (1, 3):
        choose(panel, depth=depth)
        panel.job.start()
    panel.code()
    assert same_model(model, before) == []
    assert torch.equal(torch.get_rng_state(), state)


def test_stop_ends_a_training_and_no_result_is_kept(panel, monkeypatch):
    monkeypatch.delenv("FTLAB_CI")
    panel.epochs = 10_000
    choose(panel, depth=6)
    begun = threading.Event()
    tick = panel.job.tick
    monkeypatch.setattr(panel.job, "tick", lambda *args, **more: (tick(*args, **more), begun.set()))
    panel.job.start_button.click()
    assert begun.wait(60)
    panel.job.stop_button.click()
    panel.job.wait(60)
    assert not panel.job.running
    assert panel.job.error is None
    assert panel.results == []
    panel.close()


def test_the_settings_may_be_moved_while_a_training_runs(panel):
    choose(panel, depth=1, images=12)
    original = panel.trials["near"].run

    def run(*args, **more):
        choose(panel, depth=2)
        return original(*args, **more)

    panel.trials["near"].run = run
    panel.job.start()
    ((settings, found),) = panel.results
    assert settings["depth"] == 1
    assert found.strategy == "head only"


def test_the_twin_has_the_result_and_the_code(panel):
    panel.job.start()
    html = panel.to_html()
    assert "on test images" in html
    assert "torch.manual_seed(0)" in html
    assert "[Picture: accuracy by number of images" in html
    assert "<table>" in html


def test_no_data_and_data_that_do_not_fit_are_refused(model):
    other = Colours()
    other.classes = ("cyan", "magenta", "yellow")
    with pytest.raises(ValueError, match="there are no data"):
        StrategyPanel({}, model)
    with pytest.raises(ValueError, match="the classes of train and test differ"):
        StrategyPanel({"near": (TRAIN, other)}, model)
