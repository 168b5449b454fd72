"""The state of an optimizer by name: frozen, thawed, in another order, with a new head."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD, Adadelta, Adafactor, Adagrad, Adam, AdamW, NAdam, RAdam, RMSprop, Rprop

from ftlab import checkpoints
from ftlab.checkpoints import remap_optimizer


def model_of(classes=2):
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, classes))


def stepped(model, parameters, kind=Adam, **options):
    optimizer = kind(parameters, **options)
    model(torch.randn(5, 3)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


def moments(optimizer, model, key="exp_avg"):
    return {
        name: optimizer.state[p][key] for name, p in model.named_parameters() if key in optimizer.state.get(p, {})
    }


def test_thawing_keeps_the_head_s_moments_and_starts_the_rest_fresh(tmp_path):
    model = model_of()
    old = stepped(model, model[2].parameters(), lr=0.1)
    checkpoints.save(tmp_path / "x.pt", model=model, optimizer=old)
    new = Adam(model.parameters(), lr=0.001)
    with pytest.raises(ValueError, match="doesn't match the size"):
        new.load_state_dict(old.state_dict())
    result = remap_optimizer(new, checkpoints.load(tmp_path / "x.pt"), model=model)
    assert (len(result.kept), len(result.fresh), len(result.dropped)) == (2, 4, 0)
    assert moments(new, model).keys() == {"2.weight", "2.bias"}
    assert new.param_groups[0]["lr"] == 0.001
    new.step()


def test_freezing_drops_what_nobody_trains():
    model = model_of()
    old = stepped(model, model.named_parameters())
    new = Adam(model[2].parameters())
    result = remap_optimizer(new, old.state_dict(), model=model)
    assert result.dropped == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert result.to_dict()["kept"] == ["2.weight", "2.bias"]


def test_another_order_is_matched_by_name_where_torch_mixes_the_moments_silently():
    model = model_of(classes=3)  # every weight has the same shape
    old = stepped(model, model.named_parameters())
    reverse = list(model.named_parameters())[::-1]
    reverse = [pair for i in range(0, 6, 2) for pair in (reverse[i + 1], reverse[i])]
    silent, new = Adam(reverse), Adam(reverse)
    silent.load_state_dict(old.state_dict())
    remap_optimizer(new, old.state_dict(), model=model)
    wanted = moments(old, model)
    assert all(torch.equal(value, wanted[name]) for name, value in moments(new, model).items())
    assert not torch.equal(moments(silent, model)["0.weight"], wanted["0.weight"])


def test_a_new_head_of_another_size_is_fresh_and_the_reason_is_given():
    model = model_of()
    old = stepped(model, model.named_parameters())
    model[2] = nn.Linear(3, 7)
    result = remap_optimizer(Adam(model.parameters()), old.state_dict(), model=model)
    assert result.fresh == ["2.weight", "2.bias"]
    assert "exp_avg was 2 x 3, the parameter is 7 x 3" in repr(result)
    assert "4 kept, 2 fresh, 0 dropped" in result._repr_html_()


def test_other_groups_and_rates_stay_as_they_were_built():
    model = model_of()
    old = stepped(model, model.named_parameters(), lr=0.1)
    new = Adam([{"params": model[2].parameters(), "lr": 0.01}, {"params": model[0].parameters()}], lr=0.001)
    remap_optimizer(new, old.state_dict(), model=model)
    assert [group["lr"] for group in new.param_groups] == [0.01, 0.001]


def test_wrapped_models_have_the_same_names():
    model = nn.DataParallel(model_of())
    old = stepped(model, model.named_parameters())
    plain = model.module
    assert len(remap_optimizer(Adam(plain.parameters()), old.state_dict(), model=plain).kept) == 6
    assert len(remap_optimizer(Adam(model.parameters()), old.state_dict(), model=model).kept) == 6


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW, RMSprop, Adagrad, Adadelta, NAdam, RAdam, Rprop, Adafactor])
def test_the_next_step_is_the_same_as_if_nothing_had_happened(kind):
    options = {"momentum": 0.9} if kind is SGD else {}
    model = model_of()
    old = stepped(model, model.named_parameters(), kind, **options)
    twin = copy.deepcopy(model)
    new = kind(list(twin.parameters())[::-1], **options)
    result = remap_optimizer(new, old.state_dict(), model=twin)
    assert len(result.kept) == 6
    batch = torch.randn(4, 3)
    for one, optimizer in ((model, old), (twin, new)):
        one(batch).square().mean().backward()
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize(
    ("new", "says"),
    [
        (
            lambda p: SGD(p, momentum=0.9),
            "has exp_avg, exp_avg_sq, step, and SGD with these options keeps momentum_buffer",
        ),
        (lambda p: Adam(p, amsgrad=True), "another kind of optimizer"),
        (lambda p: SGD(p), "keeps nothing"),
    ],
)
def test_the_state_of_another_optimizer_is_refused_and_nothing_changed(new, says):
    model = model_of()
    old = stepped(model, model.named_parameters())
    optimizer = new(model.parameters())
    with pytest.raises(ValueError, match=says):
        remap_optimizer(optimizer, old.state_dict(), model=model)
    assert len(optimizer.state) == 0


def test_states_without_names_ask_for_them():
    model = model_of()
    old = stepped(model, model.parameters())
    with pytest.raises(ValueError, match=r"has 6 parameters and 0 names; give names="):
        remap_optimizer(Adam(model.parameters()), old.state_dict(), model=model)
    names = [name for name, _ in model.named_parameters()]
    assert len(remap_optimizer(Adam(model.parameters()), old.state_dict(), model=model, names=names).kept) == 6
    wrong = [f"x.{name}" for name in names]
    with pytest.raises(ValueError, match=r"none of the saved names is in the model: 'x.0.weight'; the nearest"):
        remap_optimizer(Adam(model.parameters()), old.state_dict(), model=model, names=wrong)
    with pytest.raises(ValueError, match="no state of an optimizer; its keys are a"):
        remap_optimizer(Adam(model.parameters()), {"a": 1}, model=model)


def test_an_optimizer_of_another_model_is_named():
    model = model_of()
    old = stepped(model, model.named_parameters())
    with pytest.raises(ValueError, match="6 of the optimizer's 6 parameters are not in the model"):
        remap_optimizer(Adam(model_of().parameters()), old.state_dict(), model=model)


def test_the_saved_state_and_the_model_stay_as_they_are():
    model = model_of()
    old = stepped(model, model.named_parameters())
    saved = copy.deepcopy(old.state_dict())
    weights = [p.clone() for p in model.parameters()]
    new = Adam(model.parameters())
    remap_optimizer(new, saved, model=model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = str(saved)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    new.step()
    assert str(saved) == before  # copies: the new optimizer does not write into the saved state


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_two_choices_and_orders_of_parameters(data):
    model = model_of(classes=3)
    names = [name for name, _ in model.named_parameters()]
    named = dict(model.named_parameters())
    before = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    after = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    old = stepped(model, [(name, named[name]) for name in before])
    new = Adam([named[name] for name in after])
    result = remap_optimizer(new, old.state_dict(), model=model)
    assert set(result.kept) == set(before) & set(after)
    assert set(result.fresh) == set(after) - set(before)
    assert set(result.dropped) == set(before) - set(after)
    wanted = moments(old, model)
    assert all(torch.equal(value, wanted[name]) for name, value in moments(new, model).items())
