"""The options of `fit`: clipping, accumulation, precision, and schedules per step."""

import copy
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import ExponentialLR, OneCycleLR, ReduceLROnPlateau, StepLR
from torch.utils.data import TensorDataset

from ftlab.training import fit, loader
from ftlab.training.stepping import Stepper, fused


def task(images=20):
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(images, 6, generator=generator), torch.arange(images) % 3)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


class Counting(SGD):
    """SGD that notes the norm of the gradients and the rate at each step."""

    def step(self, closure=None):
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        self.rates = [*getattr(self, "rates", []), self.param_groups[0]["lr"]]
        self.norms = [*getattr(self, "norms", []), nn.utils.get_total_norm(grads).item()]
        return super().step(closure)


def run(model, optimizer, *, batch_size=4, images=20, epochs=1, **options):
    return fit(
        model, loader(task(images), batch_size=batch_size), epochs=epochs, optimizer=optimizer, progress=False,
        **options,
    )  # fmt: skip


def largest_difference(one, other):
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


# --- clip


def test_no_step_is_made_with_more_than_the_limit():
    model = network()
    optimizer = Counting(model.parameters(), lr=0.1)
    history = run(model, optimizer, clip=0.1)
    assert max(optimizer.norms) == pytest.approx(0.1, abs=1e-4)
    assert history.rows[0]["clipped"] == 1
    assert history.rows[0]["grad norm"] > 0.1


def test_without_a_clip_the_history_says_nothing_of_norms():
    model = network()
    assert "grad norm" not in run(model, SGD(model.parameters(), lr=0.1)).rows[0]


def test_the_norms_of_an_epoch_are_its_own():
    model = network()
    history = run(model, SGD(model.parameters(), lr=1.0), clip=1e9, epochs=3)
    assert len({row["grad norm"] for row in history.rows}) == 3


def test_gradients_that_are_no_numbers_end_the_training_before_the_step():
    model = network()
    before = copy.deepcopy(model.state_dict())
    model[0].weight.register_hook(lambda grad: grad * float("nan"))
    history = run(model, SGD(model.parameters(), lr=0.1), clip=1.0)
    assert "a gradient that is no number" in history.stopped
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# --- accumulate


@pytest.mark.parametrize(("images", "small", "every"), [(24, 4, 2), (20, 4, 3), (22, 4, 3), (5, 2, 8)], ids=str)
def test_a_window_is_one_large_batch(images, small, every):
    one, many = network(), network()
    large = Counting(one.parameters(), lr=0.5)
    run(one, large, batch_size=small * every, images=images, epochs=2)
    optimizer = Counting(many.parameters(), lr=0.5)
    run(many, optimizer, batch_size=small, images=images, accumulate=every, epochs=2)
    assert len(optimizer.norms) == len(large.norms)
    assert largest_difference(one, many) < 1e-5


@settings(max_examples=15, deadline=None)
@given(images=st.integers(1, 30), small=st.integers(1, 7), every=st.integers(1, 5))
def test_every_window_of_any_sizes_is_one_large_batch(images, small, every):
    one, many = network(), network()
    run(one, SGD(one.parameters(), lr=0.5), batch_size=small * every, images=images)
    run(many, SGD(many.parameters(), lr=0.5), batch_size=small, images=images, accumulate=every)
    assert largest_difference(one, many) < 1e-5


def test_accumulating_over_one_batch_is_the_plain_loop_bit_for_bit():
    plain, ours = network(), network()
    optimizer = SGD(plain.parameters(), lr=0.5, momentum=0.9)
    for x, y in loader(task(), batch_size=4):
        optimizer.zero_grad()
        F.cross_entropy(plain(x), y).backward()
        optimizer.step()
    run(ours, SGD(ours.parameters(), lr=0.5, momentum=0.9), accumulate=1)
    assert largest_difference(plain, ours) == 0


def test_the_clip_sees_the_window_not_the_batch():
    model = network()
    optimizer = Counting(model.parameters(), lr=0.1)
    history = run(model, optimizer, images=16, accumulate=4, clip=1e9)
    assert len(optimizer.norms) == 1
    assert history.rows[0]["grad norm"] == pytest.approx(optimizer.norms[0])


def test_a_stop_in_the_middle_of_a_window_leaves_no_gradient_for_the_next_training():
    model, other = network(), network()
    calls = iter([False, True])
    run(model, SGD(model.parameters(), lr=0.0), accumulate=4, should_stop=lambda: next(calls))
    for one in (model, other):
        run(one, SGD(one.parameters(), lr=0.5), accumulate=4)
    assert largest_difference(model, other) == 0


# --- precision


def test_bfloat16_is_used_in_training_only_and_parameters_stay():
    model, seen = network(), []
    model[0].register_forward_hook(lambda module, args, output: seen.append((module.training, output.dtype)))
    fit(
        model, loader(task()), loader(task()), epochs=1, optimizer=SGD(model.parameters(), lr=0.1),
        precision="bfloat16", progress=False,
    )  # fmt: skip
    assert set(seen) == {(True, torch.bfloat16), (False, torch.float32)}
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_learns_nearly_the_same(precision):
    full, mixed = network(), network()
    run(full, SGD(full.parameters(), lr=0.2), epochs=3)
    run(mixed, SGD(mixed.parameters(), lr=0.2), epochs=3, precision=precision)
    assert 0 < largest_difference(full, mixed) < 0.05


def test_float16_is_clipped_at_its_real_norm():
    model = network()
    optimizer = Counting(model.parameters(), lr=0.1)
    history = run(model, optimizer, precision="float16", clip=0.1)
    assert max(optimizer.norms) == pytest.approx(0.1, abs=1e-3)
    assert history.rows[0]["grad norm"] < 100  # the scale is 65536


def test_a_schedule_does_not_count_a_step_that_the_scaler_skips():
    weight = nn.Parameter(torch.ones(1))
    optimizer = SGD([weight], lr=1.0)
    stepper = Stepper(
        optimizer, torch.device("cpu"), precision="float16", scheduler=ExponentialLR(optimizer, 0.1)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PyTorch warns of a scheduler that is stepped before the optimizer
        for loss in ((weight * 1e38).sum(), weight.sum()):
            stepper.begin()
            stepper.add(loss, 1)
    assert weight.item() == 0  # one step, at the first rate
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


def test_an_unknown_precision_is_refused():
    model = network()
    with pytest.raises(ValueError, match=r"no precision 'float61'.*float16"):
        run(model, SGD(model.parameters()), precision="float61")


# --- schedules


def test_a_schedule_per_step_counts_steps_not_batches():
    model = network()
    optimizer = SGD(model.parameters(), lr=1.0)
    run(model, optimizer, accumulate=2, scheduler=ExponentialLR(optimizer, 0.5), scheduler_per="step")
    assert optimizer.param_groups[0]["lr"] == 0.5**3  # 5 batches are 3 windows


def test_a_schedule_per_epoch_is_stepped_once():
    model = network()
    optimizer = SGD(model.parameters(), lr=1.0)
    run(model, optimizer, epochs=2, scheduler=ExponentialLR(optimizer, 0.5))
    assert optimizer.param_groups[0]["lr"] == 0.25


def test_a_cycle_that_fits_ends_low():
    model = network()
    optimizer = Counting(model.parameters(), lr=1.0, momentum=0.9)
    cycle = OneCycleLR(optimizer, 1.0, total_steps=6)
    run(model, optimizer, epochs=2, accumulate=2, scheduler=cycle, scheduler_per="step")
    assert len(optimizer.rates) == 6
    assert optimizer.rates[-1] < 0.001 < 0.5 < max(optimizer.rates)


@pytest.mark.parametrize(
    ("make", "options", "says"),
    [
        (
            lambda o: OneCycleLR(o, 1.0, total_steps=4),
            {"scheduler_per": "step"},
            r"made for 4 steps.*total_steps=5",
        ),
        (lambda o: ReduceLROnPlateau(o), {"scheduler_per": "step"}, "step it per epoch"),
        (lambda o: StepLR(o, 1), {"scheduler_per": "batch"}, "per 'epoch' or per 'step', not per 'batch'"),
        (lambda o: None, {"accumulate": 0}, "at least 1, not 0"),
        (lambda o: None, {"clip": -1.0}, "max_norm must be above 0"),
    ],
    ids=["short", "plateau", "per batch", "accumulate", "clip"],
)
def test_what_does_not_fit_is_refused_before_anything_is_trained(make, options, says):
    model = network()
    before = copy.deepcopy(model.state_dict())
    optimizer = SGD(model.parameters(), lr=1.0)
    with pytest.raises(ValueError, match=says):
        run(model, optimizer, scheduler=make(optimizer), **options)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Noting(AdamW):
    """AdamW of a class of its own, which may do something else in its step."""


@pytest.mark.parametrize("kind", [Adam, AdamW])
@pytest.mark.parametrize("options", [{}, {"amsgrad": True, "weight_decay": 0.1}, {"foreach": True}])
def test_fit_makes_the_steps_of_a_plain_loop_with_adam(kind, options):
    model, other = network(), network()
    optimizers = [kind(each.parameters(), lr=0.01, **options) for each in (model, other)]
    run(model, optimizers[0], epochs=3)
    batches = loader(task(), batch_size=4)
    for _ in range(3):
        for images, targets in batches:
            optimizers[1].zero_grad()
            F.cross_entropy(other(images), targets).backward()
            optimizers[1].step()
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two)
    run(model, optimizers[0])  # and its state is one to go on with
    optimizers[0].step()


def test_steps_are_fused_inside_only_and_a_choice_stays():
    def flags(optimizer):
        return [group["fused"] for group in optimizer.param_groups]

    model = network()
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "fused": False}]
    optimizer = AdamW(groups)
    with fused(optimizer):
        assert flags(optimizer) == [True, False]
    assert flags(optimizer) == [None, False]

    def fails():
        with fused(optimizer):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    assert flags(optimizer) == [None, False]
    double, rate = network().double(), torch.tensor(0.1)
    alone = [
        Noting(model.parameters()),
        Adam(model.parameters(), foreach=True),
        Adam(double.parameters()),
        Adam(model.parameters(), lr=rate),
    ]
    for other in alone:
        with fused(other):
            assert flags(other) == [None]


def test_a_group_that_comes_while_fit_runs_is_trained_too():
    model = network()
    model[0].requires_grad_(False)
    optimizer = Adam(model[2].parameters(), lr=0.01)
    before = model[0].weight.clone()

    def thaw(epoch):
        if epoch == 1:
            model[0].requires_grad_(True)
            optimizer.add_param_group({"params": model[0].parameters()})

    run(model, optimizer, epochs=2, on_epoch_start=thaw)
    assert not torch.equal(before, model[0].weight)
    assert [group["fused"] for group in optimizer.param_groups] == [None, None]
