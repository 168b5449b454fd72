"""Clipping: one norm over what the optimizer owns, a record of it, and nothing spoilt."""

import math

import pytest
import torch
from torch import nn
from torch.optim import SGD

from ftlab.training import GradientClip
from ftlab.training.clipping import share_above


def with_gradients(*values):
    parameters = [nn.Parameter(torch.zeros(2, 2)) for _ in values]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.grad = torch.full((2, 2), float(value))
    return parameters


def test_it_does_what_pytorch_does():
    ours, theirs = with_gradients(1, 5, -3), with_gradients(1, 5, -3)
    norm = GradientClip(SGD(ours), max_norm=2.0)()
    assert norm == pytest.approx(nn.utils.clip_grad_norm_(theirs, 2.0).item())
    for own, other in zip(ours, theirs, strict=True):
        assert torch.equal(own.grad, other.grad)


@pytest.mark.parametrize("limit", [100.0, math.inf])
def test_gradients_below_the_limit_are_left_alone(limit):
    parameters = with_gradients(1, 5)
    clip = GradientClip(SGD(parameters), max_norm=limit)
    clip()
    assert [p.grad[0, 0].item() for p in parameters] == [1, 5]
    assert clip.clipped == 0


def test_what_no_optimizer_owns_does_not_count():
    owned, other = with_gradients(1, 1000)
    assert GradientClip(SGD([owned]), max_norm=5.0)() == pytest.approx(2)
    assert owned.grad[0, 0] == 1
    assert other.grad[0, 0] == 1000


def test_all_groups_make_one_norm():
    first, second = with_gradients(3, 4)
    clip = GradientClip(SGD([{"params": [first]}, {"params": [second]}]), max_norm=1.0)
    assert clip() == pytest.approx(10)
    assert first.grad.norm() ** 2 + second.grad.norm() ** 2 == pytest.approx(1, abs=1e-4)


def test_a_gradient_that_is_no_number_is_refused_and_nothing_is_changed():
    parameters = with_gradients(1, math.nan, math.inf)
    with pytest.raises(FloatingPointError, match="2 of 3 tensors have a gradient that is no number"):
        GradientClip(SGD(parameters), max_norm=1.0)()
    assert parameters[0].grad[0, 0] == 1


def test_a_scaler_unscales_first_and_skips_what_is_no_number():
    (parameter,) = with_gradients(0)
    optimizer, scaler = SGD([parameter], lr=1.0), torch.amp.GradScaler("cpu", init_scale=1024.0)
    clip = GradientClip(optimizer, max_norm=1.0, scaler=scaler)
    for loss in (parameter.sum(), (parameter * math.inf).sum()):
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        clip()
        scaler.step(optimizer)
        scaler.update()
    assert clip.norms[0] == pytest.approx(2)  # of four ones, not of four times 1024
    assert not math.isfinite(clip.norms[1])
    assert parameter.detach().norm() == pytest.approx(1, abs=1e-4)  # one step of norm 1, the other skipped
    assert clip.clipped == 1


def test_without_a_gradient_there_is_nothing_to_clip():
    with pytest.raises(RuntimeError, match="after backward"):
        GradientClip(SGD([nn.Parameter(torch.zeros(1))]), max_norm=1.0)()


@pytest.mark.parametrize("limit", [0, -1, math.nan])
def test_a_limit_that_makes_no_sense_is_refused(limit):
    with pytest.raises(ValueError, match="must be above 0"):
        GradientClip(SGD(with_gradients(1)), max_norm=limit)


def test_the_record_is_a_table_a_picture_and_numbers():
    parameters = with_gradients(1)
    clip = GradientClip(SGD(parameters), max_norm=3.0)
    assert "not called yet" in repr(clip)
    for value in (1, 2, 4):
        parameters[0].grad.fill_(value)
        clip()
    assert clip.norms == [2, 4, 8]
    assert clip.to_dict() == {"max_norm": 3.0, "norms": [2, 4, 8], "clipped": pytest.approx(2 / 3)}
    assert "67%" in repr(clip)
    assert "<table>" in clip._repr_html_()
    assert clip.plot().says == "3 gradient norms, 67% of them above 3"
    assert clip.plot()._repr_png_()[:4] == b"\x89PNG"


@pytest.mark.parametrize("norms", [[], [0.0, 1.0], [1.0, math.inf, 300.0], [math.nan, 2.0]], ids=str)
def test_any_record_can_be_drawn(norms):
    clip = GradientClip(SGD(with_gradients(1)), max_norm=2.0)
    clip.norms = norms
    assert clip.plot()._repr_png_()[:4] == b"\x89PNG"


def test_the_share_of_nothing_is_zero():
    assert share_above([], 1.0) == 0
