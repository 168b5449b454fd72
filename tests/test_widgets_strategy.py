"""The panel on strategy: its results are those of its code, they pile up, and nothing handed over changes."""

import copy
import threading
import time

import pytest
import torch

from ftlab.exercises.behaviour import same_model
from ftlab.exercises.models import SmallResNet
from ftlab.random_state import keep_random_state
from ftlab.strategy import Run
from ftlab.widgets.job import Stopped
from ftlab.widgets.strategy import Result, StrategyPanel
from ftlab.widgets.strategy.surface import FAINT, surface
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
    panel.live.value = False
    choose(panel, **choice)
    assert panel.result is None
    panel.job.start()
    names = {"model": copy.deepcopy(model), "train": TRAIN, "test": {"near": TEST, "far": FAR}[panel.data.value]}
    with keep_random_state():
        exec(compile(panel.code(), "<panel>", "exec"), names)
    assert names["accuracy"] == pytest.approx(panel.result.accuracy, abs=0.5 / len(TEST))
    learned = sum(p.numel() for p in names["model"].parameters() if p.requires_grad)
    assert learned == panel.result.trained


# -- live --------------------------------------------------------------------------------------------


def test_a_move_trains_without_any_button(panel):
    assert panel.result is None
    choose(panel, images=12)
    assert panel.result.images == 12
    assert repr(panel) == f"near, 12 images, head only at 0.003: {panel.result.accuracy:.1%} on test images"
    choose(panel, depth=2)
    choose(panel, seed=4)
    choose(panel, body_lr=1e-3)
    choose(panel, data="far")
    tried = [(s["data"], s["images"], s["depth"], s["seed"]) for s in (one.settings for one in panel.results)]
    assert tried == [
        ("near", 12, 1, 0), ("near", 12, 2, 0), ("near", 12, 2, 4), ("near", 12, 2, 4), ("far", 12, 2, 4),
    ]  # fmt: skip


def test_with_live_off_a_move_trains_nothing_and_switched_on_it_begins(panel):
    panel.live.value = False
    choose(panel, images=12)
    choose(panel, data="far")
    assert panel.results == []
    assert "not trained yet" in repr(panel)
    panel.live.value = True
    assert panel.result is not None


def test_live_can_be_off_from_the_start(model):
    panel = StrategyPanel({"near": (TRAIN, TEST)}, model, epochs=1, live=False)
    choose(panel, images=12)
    assert panel.results == []
    panel.job.start()
    assert len(panel.results) == 1


def test_settings_that_are_known_are_not_trained_again(panel):
    choose(panel, images=12)
    choose(panel, images=24)
    first, second = panel.results
    choose(panel, images=12)
    assert panel.results == [first, second]
    assert panel.result is first.run
    panel.job.start()  # who presses the button wants it
    assert len(panel.results) == 2
    assert panel.result is not first.run
    assert panel.result.accuracy == first.run.accuracy


def test_the_same_settings_give_the_same_number_whatever_was_trained_before(model, panel):
    for depth in (1, 6, 3):
        choose(panel, depth=depth, images=12)
    other = StrategyPanel({"near": (TRAIN, TEST), "far": (TRAIN, FAR)}, model, epochs=2)
    choose(other, data="far", images=27, depth=3)
    choose(other, data="near", images=12)
    assert other.result.accuracy == panel.result.accuracy
    looks = [next(one.looks for one in p.results if one.settings == other.settings) for p in (panel, other)]
    assert looks[0] == looks[1]
    assert [epoch for epoch, _ in looks[0]] == [1, 2]


def test_what_lies_before_is_computed_once_for_both_data_sets(panel, monkeypatch):
    looked = []
    original = Colours.__getitem__

    def look(self, place):
        looked.append(id(self.images))  # a copy of the dataset is asked as well, and has the same images
        return original(self, place)

    monkeypatch.setattr(Colours, "__getitem__", look)
    choose(panel, depth=3, images=12)
    assert looked.count(id(TRAIN.images)) >= len(TRAIN)
    looked.clear()
    choose(panel, images=24)
    choose(panel, body_lr=1e-3)
    choose(panel, seed=2)
    assert len(panel.results) == 5  # a move of the depth, of the rate, of the seed, and two of the images
    assert looked == []
    choose(panel, data="far")
    assert looked.count(id(TRAIN.images)) == 0
    assert looked.count(id(FAR.images)) >= len(FAR)


class Held:
    """Lets each training go on until it is stopped, as long as `hold` is set."""

    def __init__(self, panel):
        self.panel, self.begun, self.stopped, self.hold = panel, [], [], True
        for trials in panel.trials.values():
            trials.run = self.around(trials.run)

    def around(self, original):
        def run(depth, images=None, *, on_step, **more):
            self.begun.append(images)
            try:
                while self.hold:
                    on_step(0.0, 1.0)
                    time.sleep(0.001)
            except Stopped:
                self.stopped.append(images)
                raise
            return original(depth, images, on_step=on_step, **more)

        return run


@pytest.fixture
def held(panel, monkeypatch):
    monkeypatch.delenv("FTLAB_CI")
    yield Held(panel)
    panel.close()


def wait_for(condition):
    for _ in range(60_000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen within ten minutes")


def test_the_next_move_stops_what_is_going_on_and_only_the_last_one_is_kept(panel, held):
    choose(panel, images=12)
    wait_for(lambda: held.begun == [12])
    choose(panel, images=24)
    wait_for(lambda: held.begun == [12, 24])
    assert held.stopped == [12]
    held.hold = False
    wait_for(lambda: panel.result is not None)
    assert [one.settings["images"] for one in panel.results] == [24]
    assert panel.job.error is None


def test_the_kernel_is_free_while_it_trains_and_the_panel_says_what_goes_on(panel, held):
    choose(panel, images=12)
    wait_for(lambda: held.begun == [12])
    assert panel.job.running
    assert "training, about" in repr(panel)
    panel.live.value = False
    choose(panel, images=24)
    assert panel.job.running  # a move stops nothing then
    assert "not trained yet" in repr(panel)


def test_stop_ends_it_until_the_next_move(panel, held):
    choose(panel, images=12)
    wait_for(lambda: held.begun == [12])
    panel.job.stop_button.click()
    panel.job.wait(600)
    assert panel.results == []
    assert "stopped" in repr(panel.job)
    wait_for(lambda: "not trained yet" in panel._status.value)
    held.hold = False
    choose(panel, images=24)
    wait_for(lambda: panel.result is not None)


def test_moving_back_to_what_is_known_stops_the_other(panel, held):
    held.hold = False
    choose(panel, images=12)
    wait_for(lambda: panel.result is not None and not panel.job.running)
    held.hold = True
    choose(panel, images=24)
    wait_for(lambda: held.begun == [12, 24])
    choose(panel, images=12)
    wait_for(lambda: not panel.job.running)
    assert held.stopped == [24]
    assert [one.settings["images"] for one in panel.results] == [12]


def test_a_closed_panel_begins_nothing_more(panel, held):
    choose(panel, images=12)
    wait_for(lambda: held.begun == [12])
    panel.close()
    panel._restart()
    assert not panel.job.running
    assert held.begun == [12]
    assert panel.results == []


def test_cells_that_draw_meanwhile_and_the_training_do_not_disturb_each_other(model, monkeypatch):
    quiet = StrategyPanel({"near": (TRAIN, TEST)}, model, epochs=3)
    choose(quiet, depth=6, images=12)
    monkeypatch.delenv("FTLAB_CI")
    panel = StrategyPanel({"near": (TRAIN, TEST)}, model, epochs=3)
    with keep_random_state(seed=3):
        expected = torch.rand(1000)
    with keep_random_state(seed=3):
        panel.depth.value = 6
        panel.images.value = 12
        drawn = []
        while panel.result is None and len(drawn) < 900:
            drawn.append(torch.rand(1))
            time.sleep(0.005)
        wait_for(lambda: panel.result is not None)
        drawn.append(torch.rand(1))
    panel.close()
    assert torch.equal(torch.cat(drawn), expected[: len(drawn)])
    assert panel.result.accuracy == quiet.result.accuracy
    assert panel.results[-1].looks == quiet.results[-1].looks


def test_an_error_in_the_background_is_shown(panel, monkeypatch):
    monkeypatch.delenv("FTLAB_CI")

    def broken(*args, **more):
        raise ValueError("there is no such image")

    panel.trials["near"].run = broken
    choose(panel, images=12)
    wait_for(lambda: "no such image" in panel.job.text.value)
    assert panel._now is None
    panel.close()


# -- what is shown -----------------------------------------------------------------------------------


def test_the_deepest_choice_is_everything_and_the_shallowest_the_head(panel):
    labels = [label for label, _ in panel.depth.options]
    assert labels[0] == "head only"
    assert labels[-1] == "everything"
    assert labels[1] == "layer4 and later" or labels[1].startswith("layer4")


def test_results_pile_up_and_stay_to_be_compared(panel):
    panel.job.start()
    choose(panel, seed=1)
    choose(panel, depth=2, images=12)
    assert len(panel.results) == 4
    assert "4 results to compare" in repr(panel)
    assert len(panel.table()) == 4
    assert len(panel.table(2)) == 2
    assert panel.picture.alt.startswith("near: accuracy by number of images; head only: ")
    assert "with 6; layer4.0 and later: " in panel.picture.alt
    choose(panel, depth=1, seed=0, images=6)
    assert panel.result is panel.results[0].run
    panel.clear.click()
    assert panel.results == []
    assert panel.picture.alt == ""
    assert "not trained yet" in repr(panel)


def test_the_picture_is_of_the_data_set_that_is_chosen(panel):
    choose(panel, images=12)
    choose(panel, data="far")
    assert panel.picture.alt.startswith("far: accuracy")
    assert panel.picture.alt.count("with 12") == 1
    assert len(panel.results) == 2


def test_a_rate_is_named_where_a_depth_was_tried_with_several(panel):
    choose(panel, depth=2)
    assert "body at" not in panel.picture.alt
    choose(panel, body_lr=1e-3)
    assert "body at 0.0003: " in panel.picture.alt
    assert "body at 0.001: " in panel.picture.alt


def test_a_long_list_is_cut_in_the_panel_and_whole_in_the_table(panel):
    for seed in range(1, 9):
        choose(panel, seed=seed)
    assert panel.list.value.count("<tr>") == 1 + 6
    assert "and 2 more" in panel.list.value
    assert len(panel.table()) == 8


def results_of(**accuracies):
    """Make results with depth 1 by number of images; several seeds are several accuracies."""
    return [
        Result(
            {"data": "near", "images": int(name[1:]), "depth": 1, "body_lr": None, "seed": seed},
            looks=[(1, accuracy / 2), (2, accuracy)],
            run=Run("head only", "", seed, int(name[1:]), accuracy, seconds=1.0, memory=1, trained=1),
        )
        for name, found in accuracies.items()
        for seed, accuracy in enumerate(found)
    ]


def test_the_surface_has_a_line_through_the_means_faint_points_and_the_present_one():
    results = results_of(_6=[0.2, 0.4], _12=[0.5])
    figure = surface(results, results[2], {(1, 0.0): "head only"}, [6, 12, 24], 2, chance=0.25)
    curves, points = figure.axes
    line = next(one for one in points.lines if one.get_label() == "head only")
    assert line.get_xdata() == pytest.approx([6, 12])
    assert line.get_ydata() == pytest.approx([0.3, 0.5])
    assert [text.get_text() for text in points.texts] == ["50%"]
    assert [text.get_text() for text in points.get_xticklabels()] == ["6", "12", "24"]
    assert len([one for one in curves.lines if one.get_alpha() == FAINT]) == 2  # the two earlier trainings
    assert figure.says == "accuracy by number of images; head only: 30% with 6, 50% with 12"


def test_a_training_that_goes_on_is_drawn_open_and_named_so():
    (now,) = results_of(_12=[0.5])
    now.run, now.looks = None, [(2, 0.25)]
    figure = surface([], now, {(1, 0.0): "head only"}, [6, 12, 24], 4, chance=0.25)
    assert [text.get_text() for text in figure.axes[1].texts] == ["25% so far"]
    assert figure.axes[1].lines[0].get_markerfacecolor() == "white"
    assert figure.says.endswith("the present training 25% after 2 epochs")


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
    panel.epochs, panel.live.value = 10_000, False
    choose(panel, depth=6)
    begun = threading.Event()
    tick = panel.job.tick
    monkeypatch.setattr(panel.job, "tick", lambda *args, **more: (tick(*args, **more), begun.set()))
    panel.job.start_button.click()
    assert begun.wait(600)
    panel.job.stop_button.click()
    panel.job.wait(600)
    assert not panel.job.running
    assert panel.job.error is None
    assert panel.results == []
    panel.close()


def test_the_settings_may_be_moved_while_a_training_runs(panel):
    panel.live.value = False
    choose(panel, depth=1, images=12)
    original = panel.trials["near"].run

    def run(*args, **more):
        choose(panel, depth=2)
        return original(*args, **more)

    panel.trials["near"].run = run
    panel.job.start()
    (found,) = panel.results
    assert found.settings["depth"] == 1
    assert found.run.strategy == "head only"


def test_the_twin_has_the_result_and_the_code(panel):
    panel.job.start()
    html = panel.to_html()
    assert "on test images" in html
    assert "torch.manual_seed(0)" in html
    assert "[Picture: near: accuracy by number of images" in html
    assert "<table>" in html


def test_no_data_and_data_that_do_not_fit_are_refused(model):
    other = Colours()
    other.classes = ("cyan", "magenta", "yellow")
    with pytest.raises(ValueError, match="there are no data"):
        StrategyPanel({}, model)
    with pytest.raises(
        TypeError, match=r"data is a dictionary, not a tuple: hand over \{name: \(train, test\)\}"
    ):
        StrategyPanel((TRAIN, TEST), model)
    for wrong in (TRAIN, (TRAIN, TEST, FAR)):
        with pytest.raises(TypeError, match=r"'near' is a (Colours|tuple), and no pair of datasets"):
            StrategyPanel({"near": wrong}, model)
    with pytest.raises(ValueError, match="epochs is 1 or more, not 0"):
        StrategyPanel({"near": (TRAIN, TEST)}, model, epochs=0)
    with pytest.raises(ValueError, match="the classes of train and test differ"):
        StrategyPanel({"near": (TRAIN, other)}, model)
