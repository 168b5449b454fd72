"""The timeline: what each step gets, and what is marked."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.optim import LBFGS, SGD, Adam, lr_scheduler

from ftlab.learning_rates import Timeline, timeline

L = lr_scheduler


def two_groups(*rates, kind=SGD, **options):
    groups = [{"params": [nn.Parameter(torch.ones(2))], "lr": rate} for rate in rates or (0.1, 1.0)]
    return kind(groups, **options)


def first(found):
    return [rates[0] for rates in found.rates]


SCHEDULERS = {
    "LambdaLR": lambda o: L.LambdaLR(o, lambda step: 0.9**step),
    "MultiplicativeLR": lambda o: L.MultiplicativeLR(o, lambda step: 0.9),
    "StepLR": lambda o: L.StepLR(o, 3),
    "MultiStepLR": lambda o: L.MultiStepLR(o, [2, 5]),
    "ConstantLR": lambda o: L.ConstantLR(o, 0.5, 4),
    "LinearLR": lambda o: L.LinearLR(o, 0.1, total_iters=4),
    "ExponentialLR": lambda o: L.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: L.PolynomialLR(o, 6),
    "CosineAnnealingLR": lambda o: L.CosineAnnealingLR(o, 8),
    "CosineAnnealingWarmRestarts": lambda o: L.CosineAnnealingWarmRestarts(o, 4),
    "CyclicLR": lambda o: L.CyclicLR(o, 0.01, 0.1, step_size_up=3, cycle_momentum=False),
    "OneCycleLR": lambda o: L.OneCycleLR(o, [0.1, 1.0], total_steps=8),
    "ReduceLROnPlateau": lambda o: L.ReduceLROnPlateau(o, patience=1),
    "SequentialLR": lambda o: L.SequentialLR(
        o, [L.LinearLR(o, 0.1, total_iters=3), L.CosineAnnealingLR(o, 5)], [3]
    ),
    "ChainedScheduler": lambda o: L.ChainedScheduler([L.ConstantLR(o, 0.5, 3), L.ExponentialLR(o, 0.9)], o),
}


def test_no_scheduler_of_torch_is_forgotten():
    declared = set(L.__all__) - {"LRScheduler"}
    assert declared == set(SCHEDULERS)


@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
def test_the_rates_are_those_of_the_real_loop_and_nothing_is_left(make):
    optimizer = two_groups(momentum=0.9)
    scheduler = make(optimizer)
    states = copy.deepcopy((optimizer.state_dict(), _plain(scheduler)))
    found = timeline(optimizer, scheduler, epochs=8)
    assert (optimizer.state_dict(), _plain(scheduler)) == states
    assert "step" not in vars(scheduler)
    real = []
    for _ in range(8):
        real.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step(*[1.0] * isinstance(scheduler, L.ReduceLROnPlateau))
    assert found.rates == real
    assert found.scheduled == list(range(1, 9))


def _plain(scheduler):
    return {
        k: v
        for k, v in scheduler.state_dict().items()
        if not callable(v) and k not in ("_schedulers", "lr_lambdas")
    }


def test_gradients_parameters_and_the_random_state_are_as_before():
    optimizer = two_groups(kind=Adam, weight_decay=0.1)
    parameter = optimizer.param_groups[0]["params"][0]
    gradient = parameter.grad = torch.ones(2)
    random = torch.get_rng_state()
    timeline(optimizer, L.StepLR(optimizer, 2), epochs=4)
    assert torch.equal(parameter, torch.ones(2))
    assert parameter.grad is gradient
    assert not optimizer.state
    assert torch.equal(random, torch.get_rng_state())


def test_the_skipped_first_value_cuts_the_first_stage():
    optimizer = two_groups(0.001)
    found = timeline(optimizer, L.StepLR(optimizer, 10), epochs=22, when="epoch first")
    assert first(found).count(0.001) == 9
    assert found.kinds == ["skipped"]
    right = timeline(optimizer, L.StepLR(optimizer, 10), epochs=22)
    assert first(right).count(0.001) == 10
    assert right.marks == []


def test_a_loop_of_ones_own_is_run_in_its_order():
    optimizer = two_groups(1.0)
    scheduler = L.StepLR(optimizer, 10)
    weight = optimizer.param_groups[0]["params"][0]

    def loop():
        for _ in range(3):
            for _ in range(7):
                optimizer.zero_grad()
                weight.sum().backward()
                optimizer.step()
                scheduler.step()

    found = timeline(optimizer, scheduler, loop=loop, batches=7)
    assert [round(rate, 6) for rate in first(found)] == [1.0] * 10 + [0.1] * 10 + [0.01]
    assert torch.equal(weight, torch.ones(2))  # even though the loop really trains
    assert weight.grad is None


def test_a_step_per_batch_where_one_per_epoch_was_meant():
    optimizer = two_groups(1.0)
    found = timeline(optimizer, L.StepLR(optimizer, 10), epochs=30, batches=11, when="batch")
    assert found.kinds == ["per batch"]
    assert found.marks[0].step == 10
    assert "over after 0.91" in found.marks[0].text
    assert timeline(optimizer, L.StepLR(optimizer, 110), epochs=30, batches=11, when="batch").kinds == []


def test_a_step_per_epoch_where_one_per_batch_was_meant():
    optimizer = two_groups(1.0)
    one = L.OneCycleLR(optimizer, 1.0, total_steps=110)
    found = timeline(optimizer, one, epochs=10, batches=11)
    assert found.kinds == ["per epoch"]
    assert "9% is run" in found.marks[0].text
    assert timeline(optimizer, one, epochs=10, batches=11, when="batch").kinds == []


def test_too_many_steps_are_an_error_that_is_shown():
    optimizer = two_groups(1.0)
    found = timeline(optimizer, L.OneCycleLR(optimizer, 1.0, total_steps=5), epochs=9)
    assert found.kinds == ["raised"]
    assert "Tried to step 6 times" in found.marks[0].text


def test_one_rate_for_all_groups_is_said():
    optimizer = two_groups(0.01, 0.1)
    assert timeline(optimizer, L.OneCycleLR(optimizer, 0.1, total_steps=10), epochs=9).kinds == ["same"]
    optimizer = two_groups(0.01, 0.1)
    assert timeline(optimizer, L.OneCycleLR(optimizer, [0.01, 0.1], total_steps=10), epochs=9).kinds == []


def test_a_group_that_stands_still_and_one_that_wakes_up():
    optimizer = two_groups(1e-3, 1e-2)
    assert timeline(optimizer, L.CosineAnnealingLR(optimizer, 5, eta_min=1e-3), epochs=5).kinds == ["constant"]
    optimizer = two_groups(0.0, 1e-2)
    found = timeline(optimizer, L.CosineAnnealingLR(optimizer, 5, eta_min=1e-3), epochs=5)
    assert [(mark.kind, mark.step) for mark in found.marks] == [("woken", 1)]
    optimizer = two_groups(0.0, 1e-2)
    assert timeline(optimizer, L.StepLR(optimizer, 2), epochs=5).kinds == []


@pytest.mark.parametrize(
    ("make", "raised"),
    [
        (lambda o: L.StepLR(o, 2), False),
        (lambda o: L.LambdaLR(o, lambda step: 0.9**step), True),
        (lambda o: L.CosineAnnealingWarmRestarts(o, 3), True),
        (lambda o: L.OneCycleLR(o, 0.1, total_steps=9), True),
        (lambda o: L.LinearLR(o, 0.3, total_iters=3), False),
        (lambda o: L.ChainedScheduler([L.StepLR(o, 2)], o), False),
    ],
)
def test_a_group_that_came_after_the_scheduler(make, raised):
    optimizer = two_groups(0.1)
    scheduler = make(optimizer)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": 0.01, "name": "late"})
    found = timeline(optimizer, scheduler, epochs=5)
    assert "uncovered" in found.kinds
    assert ("raised" in found.kinds) == raised
    assert "'late' came after it" in next(mark.text for mark in found.marks if mark.kind == "uncovered")


def test_a_group_that_comes_in_the_loop_has_no_rate_before():
    optimizer = two_groups(0.1)
    scheduler = L.StepLR(optimizer, 2)

    def loop():
        for epoch in range(4):
            if epoch == 2:
                optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": 0.01})
            optimizer.step()
            scheduler.step()

    found = timeline(optimizer, scheduler, loop=loop)
    assert [math.isnan(rates[1]) for rates in found.rates] == [True, True, False, False]
    assert "uncovered" in found.kinds
    assert len(optimizer.param_groups) == 1  # it is gone again
    found.plot()


def test_a_resume_that_jumps_and_one_that_does_not():
    optimizer = two_groups(0.1)
    scheduler = L.CosineAnnealingLR(optimizer, 10)

    def whole(state):
        again = two_groups(0.1)
        again.load_state_dict(state["optimizer"])
        going_on = L.CosineAnnealingLR(again, 10)
        going_on.load_state_dict(state["scheduler"])
        again.load_state_dict(state["optimizer"])  # making a scheduler has set the first rate
        return again, going_on

    def without_scheduler(state):
        again = two_groups(0.1)
        again.load_state_dict(state["optimizer"])
        return again, L.CosineAnnealingLR(again, 10)

    found = timeline(optimizer, scheduler, epochs=10, batches=3, resume=(5, whole))
    assert found.marks == []
    assert found.resumed == found.rates[15:]
    found = timeline(optimizer, scheduler, epochs=10, batches=3, resume=(5, without_scheduler))
    assert found.kinds == ["jump"]
    assert found.resumed_at == 15
    assert "resumed" in str([text.get_text() for text in found.plot().axes[0].get_legend().get_texts()])


def test_the_metric_decides_on_a_plateau():
    optimizer = two_groups(1.0)
    plateau = L.ReduceLROnPlateau(optimizer, patience=1)
    assert len(set(first(timeline(optimizer, plateau, epochs=6)))) == 3
    assert len(set(first(timeline(optimizer, plateau, epochs=6, metric=lambda epoch: 1 / (1 + epoch))))) == 1


def test_lbfgs_and_no_scheduler():
    weight = nn.Parameter(torch.ones(2))
    optimizer = LBFGS([weight], lr=0.5)
    weight.grad = torch.ones(2)
    assert timeline(optimizer, epochs=2).rates == [[0.5], [0.5]]
    assert torch.equal(weight, torch.ones(2))


def test_what_cannot_be_run_is_refused():
    optimizer = two_groups()
    with pytest.raises(TypeError, match="belongs to another optimizer"):
        timeline(optimizer, L.StepLR(two_groups(), 2))
    with pytest.raises(ValueError, match="1 or more"):
        timeline(optimizer, epochs=0)
    with pytest.raises(ValueError, match="'epoch', 'batch', 'epoch first'"):
        timeline(optimizer, when="sometimes")
    with pytest.raises(ValueError, match="from 1 to 9"):
        timeline(optimizer, resume=(10, lambda state: None))
    with pytest.raises(ValueError, match="not a loop"):
        timeline(optimizer, resume=(1, lambda state: None), loop=lambda: None)

    with pytest.raises(TypeError, match="an epoch and a function"):
        timeline(optimizer, resume=3)
    with pytest.raises(TypeError, match="hand over its name"):
        timeline(optimizer, loop=3)


def test_a_loop_that_steps_another_optimizer_is_no_timeline():
    optimizer, other = two_groups(), two_groups()
    with pytest.raises(ValueError, match=r"never called optimizer.step\(\) of this optimizer"):
        timeline(optimizer, loop=other.step)
    assert len(timeline(optimizer, loop=optimizer.step).rates) == 1


@pytest.mark.parametrize(
    ("gives", "says"),
    [
        (lambda optimizer, scheduler: None, "in this order; not NoneType"),
        (lambda optimizer, scheduler: optimizer, "not SGD"),
        (lambda optimizer, scheduler: (scheduler, optimizer), "not StepLR, SGD"),
        (lambda optimizer, scheduler: (two_groups(), scheduler), "belongs to another optimizer"),
    ],
)
def test_what_a_resume_gives_is_judged(gives, says):
    optimizer = two_groups()
    scheduler = L.StepLR(optimizer, 2)

    def going_on(state):
        again = two_groups()
        return gives(again, L.StepLR(again, 2))

    with pytest.raises(TypeError, match=says):
        timeline(optimizer, scheduler, resume=(3, going_on))
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 1.0]
    assert scheduler.last_epoch == 0


def test_the_table_the_picture_and_the_data():
    optimizer = two_groups()
    found = timeline(optimizer, L.ExponentialLR(optimizer, 0.9), epochs=30)
    assert isinstance(found, Timeline)
    assert len(found.table()) == 12
    assert len(found.to_dict()["rates"]) == 30
    axes = found.plot().axes[0]
    assert [list(line.get_xdata()) for line in axes.lines] == [[*range(31)]] * 2  # the last step has its width
    assert "<table>" in found._repr_html_()


def test_a_single_step_is_a_line():
    (line, _) = timeline(two_groups(), epochs=1).plot().axes[0].lines
    assert list(line.get_xdata()) == [0, 1]


def test_marks_at_one_step_are_written_once_beside_each_other():
    optimizer = two_groups(momentum=0.9)
    scheduler = L.OneCycleLR(optimizer, 0.1, total_steps=10)
    found = timeline(optimizer, scheduler, epochs=10, batches=2, when="epoch first")
    assert set(found.kinds) == {"skipped", "same"}
    assert [text.get_text() for text in found.plot().axes[0].texts] == ["skipped, same"]


def test_many_groups_fit_into_table_sentence_and_picture():
    optimizer = two_groups(*(0.1 * 0.9**depth for depth in range(30)))
    found = timeline(optimizer, L.StepLR(optimizer, 3), epochs=6, when="epoch first")
    assert found.table().headers == [
        "steps", "group 0", "group 1", "group 2", "group 3", "...", "group 27", "group 28", "group 29",
    ]  # fmt: skip
    assert len(found.rates[0]) == 30
    assert found.marks[0].text.endswith("(0.1, 0.09, ..., 0.00471)")
    axes = found.plot().axes[0]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert (len(names), names[0], names[-1]) == (8, "group 0", "group 29")
    assert axes.get_legend().get_title().get_text() == "8 of 30 groups"
    colours = {tuple(line.get_color()) for line in axes.lines if len(line.get_xdata()) > 2}
    assert len(colours) == 30


def test_equal_rates_are_written_once():
    optimizer = two_groups(0.1, 0.1)
    found = timeline(optimizer, L.StepLR(optimizer, 3), epochs=6, when="epoch first")
    assert found.marks[0].text.endswith("(0.1)")


def test_a_group_at_rate_0_is_named_where_it_cannot_be_drawn():
    legend = timeline(two_groups(0.0, 0.1)).plot().axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["group 0: always 0", "group 1"]


def test_one_step_is_one_step():
    optimizer = two_groups()
    assert repr(timeline(optimizer, L.StepLR(optimizer, 3), epochs=1)).startswith(
        "1 optimizer step, 1 scheduler step"
    )


def test_a_list_of_equal_rates_is_not_called_a_single_number():
    """The scheduler does not keep which of both it was given: what is said holds for both."""
    for highest in (0.1, [0.1, 0.1]):
        optimizer = two_groups(0.1, 0.1, momentum=0.9)
        found = timeline(optimizer, L.OneCycleLR(optimizer, highest, total_steps=10))
        assert [mark.text.partition(". ")[0] for mark in found.marks] == ["all groups have the same rates"]


def test_a_resume_at_a_text_is_refused():
    with pytest.raises(TypeError, match="resume is an epoch and a function"):
        timeline(two_groups(), resume=("5", lambda state: state))
