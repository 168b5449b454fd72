"""RatesPanel: what it shows, that the code does the same, and that the model stays as it was."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ftlab.exercises.behaviour import same_model
from ftlab.exercises.models import SmallResNet
from ftlab.learning_rates import timeline
from ftlab.widgets.learning_rates import _SCHEDULES, RatesPanel
from ftlab.widgets.picture import Picture

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0])
PARTS = {"layer?.*": 1e-3, "fc": 1e-2}


@pytest.fixture
def model():
    return SmallResNet()


@pytest.fixture
def panel(model):
    return RatesPanel(model, IMAGES, LABELS, PARTS, epochs=6, batches=2)


def test_the_model_stays_as_it_was(model, panel):
    before, random = copy.deepcopy(model), torch.get_rng_state()
    panel.step.click()
    for schedule in _SCHEDULES:
        panel.schedule.value = schedule
    panel.code()
    assert panel.failure is None
    assert same_model(model, before) == []
    assert torch.equal(random, torch.get_rng_state())


def test_a_step_is_measured_and_forgotten_when_a_rate_changes(panel):
    assert panel.ratios is None
    panel.step.click()
    slow = [group.ratio for group in panel.ratios.groups]
    assert "moved by" in panel.ratio_picture.alt
    panel.rates["fc"].value = 0.1
    assert panel.ratios is None
    assert panel.ratio_picture.alt == ""
    panel.step.click()
    fast = [group.ratio for group in panel.ratios.groups]
    assert fast[1] == pytest.approx(10 * slow[1], rel=1e-3)
    assert fast[0] == pytest.approx(slow[0], rel=1e-3)


def test_decay_sets_the_rates_from_the_head_on(model):
    panel = RatesPanel(model, IMAGES, LABELS, ["conv1", "layer1", "fc"])
    panel.rates["fc"].value = 0.1
    panel.decay.value = 0.1
    assert [slider.value for slider in panel.rates.values()] == pytest.approx([0.001, 0.01, 0.1])


def test_a_single_layer_has_one_rate():
    layer, images = nn.Linear(4, 3), torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    panel = RatesPanel(layer, images, LABELS)
    panel.rates["*"].value = 0.1
    panel.step.click()
    assert panel.failure is None
    assert [group.lr for group in panel.ratios.groups] == [pytest.approx(0.1)]
    assert '"*": 0.1' in panel.code()
    with pytest.raises(TypeError, match="the model has to be of type Module"):
        RatesPanel("resnet18", images, LABELS)


def test_the_factor_draws_once_for_all_rates(model, monkeypatch):
    panel = RatesPanel(model, IMAGES, LABELS, ["conv1", "layer1", "layer2", "fc"])
    drawn = []
    monkeypatch.setattr(panel.timeline_picture, "show", lambda *_: drawn.append(panel.timeline.rates[0][:4]))
    panel.rates["fc"].value = 0.1
    drawn.clear()
    panel.decay.value = 0.5
    assert drawn == [[pytest.approx(rate) for rate in (0.0125, 0.025, 0.05, 0.1)]]


def test_a_constant_rate_has_no_scheduler_to_step(panel):
    assert repr(panel) == "SGD, constant: nothing to object to"
    assert panel.made_for.disabled
    assert panel.when.disabled
    panel.schedule.value = "cosine"
    assert not panel.made_for.disabled
    assert not panel.when.disabled
    assert "made for 6 steps, called once per epoch (6 times)" in repr(panel)


@pytest.mark.parametrize("schedule", _SCHEDULES)
def test_a_schedule_called_as_it_is_made_for_is_in_order(model, schedule, monkeypatch):
    monkeypatch.setattr(Picture, "show", lambda *_: None)  # the pictures take the time
    panel = RatesPanel(model, IMAGES, LABELS, PARTS, epochs=10, batches=5)
    panel.schedule.value = schedule
    for made_for, when in ((10, "epoch"), (50, "batch")):
        panel.made_for.value, panel.when.value = made_for, when
        assert set(panel.timeline.kinds) <= ({"same"} if schedule == "one cycle, one rate" else set())


def test_what_is_made_for_epochs_and_called_per_batch_is_marked(panel, monkeypatch):
    monkeypatch.setattr(Picture, "show", lambda *_: None)
    panel.when.value = "batch"
    for schedule in ("step", "cosine", "warm-up and cosine"):
        panel.schedule.value = schedule
        assert panel.timeline.kinds == ["per batch"], schedule
    panel.schedule.value = "one cycle, a rate per group"
    assert panel.timeline.kinds == ["raised"]


def test_a_frozen_model_has_no_step_to_measure(model):
    panel = RatesPanel(model.requires_grad_(False), IMAGES, LABELS, PARTS)
    panel.step.click()
    assert "unfreeze what the step is to move" in str(panel.failure)


def test_what_is_marked_is_said(panel):
    assert "nothing to object to" in repr(panel)
    panel.schedule.value = "step"
    panel.when.value = "epoch first"
    assert panel.timeline.kinds == ["skipped"]
    assert "skipped" in panel.marks.value
    assert "1 thing to look at" in repr(panel)
    panel.when.value = "epoch"
    panel.schedule.value = "one cycle, one rate"
    assert panel.timeline.kinds == ["same"]
    panel.schedule.value = "one cycle, a rate per group"
    assert panel.timeline.kinds == []
    panel.made_for.value = 12
    assert panel.timeline.kinds == ["per epoch"]


@pytest.mark.parametrize("schedule", _SCHEDULES)
@pytest.mark.parametrize("when", ["epoch", "batch", "epoch first"])
def test_the_code_gets_the_rates_of_the_panel(model, panel, schedule, when):
    panel.schedule.value, panel.when.value, panel.optimizer.value = schedule, when, "AdamW"
    panel.made_for.value = 12 if when == "batch" else 6
    rates = []
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, *_: rates.append({id(g["params"][0]): g["lr"] for g in optimizer.param_groups})
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the scheduler that is stepped first, rightly
            exec(compile(panel.code(), "<panel>", "exec"), {"model": model, "batches": [(IMAGES, LABELS)] * 2})
    finally:
        hook.remove()
    names = {"layer1": model.layer1[0].conv1.weight, "fc": model.fc.weight}
    found = [[step[id(names["layer1"])], step[id(names["fc"])]] for step in rates]
    assert torch.allclose(
        torch.tensor(found), torch.tensor([step[:2] for step in panel.timeline.rates]), rtol=1e-3
    )


def test_the_twin_has_the_text_and_the_code(panel):
    html = panel.to_html()
    assert "optimizer steps" in html
    assert "rates = {" in html
    assert "fc: 0.01" in html


def test_parts_that_are_wrong_are_said(model):
    with pytest.raises(ValueError, match="the nearest"):
        RatesPanel(model, IMAGES, LABELS, ["layer55"])
    with pytest.raises(TypeError, match="the name of a part has to be of type str, and is of type Linear"):
        RatesPanel(model, IMAGES, LABELS, [model.fc])
    with pytest.raises(TypeError, match="not the text 'fc'"):
        RatesPanel(model, IMAGES, LABELS, "fc")
    with pytest.raises(ValueError, match="a panel without a part"):
        RatesPanel(model, IMAGES, LABELS, [])


@pytest.mark.parametrize(
    ("rate", "error", "says"),
    [
        (0, ValueError, "the sliders go from 1e-06 to 1, and 0 lies outside"),
        (5, ValueError, "and 5 lies outside"),
        (-0.1, ValueError, "a learning rate is 0 or more"),
        ("0.1", TypeError, "a learning rate is a number, not '0.1'"),
    ],
)
def test_a_rate_that_no_slider_can_show_is_refused(model, rate, error, says):
    with pytest.raises(error, match=says):
        RatesPanel(model, IMAGES, LABELS, {"fc": rate})


def test_the_timeline_is_that_of_the_logic(panel):
    panel.schedule.value = "cosine"
    optimizer = torch.optim.SGD(
        [{"params": [nn.Parameter(torch.ones(1))], "lr": rate} for rate in (1e-3, 1e-2, 1e-3)]
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6)
    wanted = timeline(optimizer, scheduler, epochs=6, batches=2).rates
    assert torch.allclose(torch.tensor(panel.timeline.rates), torch.tensor(wanted))
