"""Modes: what is seen, kept, found out and measured, and that looking changes nothing."""

import contextlib
import random
import warnings

import numpy as np
import pytest
import torch
import torchinfo
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ftlab import pretrained, training
from ftlab.freezing import freeze
from ftlab.modes import evaluating, forward_cost, keep_modes, mode_map, who_changed
from ftlab.modes.mapping import effect_of
from ftlab.modes.measuring import memory_of


def small():
    """A model with two norms, one of them held by hand, and dropout."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4).eval())
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 2))


IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def state(model):
    """Everything that a look must not change."""
    return {
        "tensors": [tensor.clone() for tensor in model.state_dict().values()],
        "flags": [p.requires_grad for p in model.parameters()],
        "gradients": [p.grad for p in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "hooks": [len(module._forward_hooks) for module in model.modules()],
        "random": (torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()),  # noqa: NPY002
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "setattr": nn.Module.__setattr__,
    }


def assert_same(one, other):
    torch.testing.assert_close(one.pop("tensors"), other.pop("tensors"), rtol=0, atol=0)
    assert one == other


def modes(model):
    return [module.training for module in model.modules()]


# -- keeping ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [keep_modes, evaluating])
def test_every_flag_comes_back_whoever_changed_it(context):
    model = small()
    before = modes(model)
    with context(model):
        model.train()
        model[0].eval()
        model[4].training = False
    assert modes(model) == before


@pytest.mark.parametrize("context", [keep_modes, evaluating])
def test_every_flag_comes_back_after_an_error(context):
    model = small()
    before = state(model)
    with pytest.raises(RuntimeError, match="expected input"), context(model):
        model.eval()(torch.ones(1, 7, 8, 8))
    assert_same(before, state(model))


def test_evaluating_is_eval_without_a_graph_and_leaves_no_trace():
    model = small()
    before = state(model)
    with evaluating(model) as same_model:
        assert not any(modes(model))
        output = same_model(IMAGES)
    assert_same(before, state(model))
    assert not output.requires_grad
    nn.Linear(2, 1)(output).sum().backward()  # and a head can learn from it


def test_evaluating_in_evaluating_and_in_no_grad():
    model = small()
    before = modes(model)
    with torch.no_grad(), evaluating(model):
        with evaluating(model):
            assert not any(modes(model))
        assert not any(modes(model))
        assert not torch.is_grad_enabled()
    assert modes(model) == before
    assert torch.is_grad_enabled()


def test_evaluating_a_frozen_model_keeps_its_norms_held():
    model = small()
    freeze(model, "0")
    before = modes(model)
    with evaluating(model):
        pass
    assert modes(model) == before
    assert not model.train()[0][1].training


def test_evaluate_of_the_training_loop_leaves_no_trace():
    model = small()
    before = state(model)
    batches = training.loader(torch.utils.data.TensorDataset(IMAGES, torch.tensor([0, 1, 0, 1])))
    training.evaluate(model, batches, progress=False)
    assert_same(before, state(model))


# -- the map ---------------------------------------------------------------------------------------


def test_the_map_says_what_the_mode_does_and_changes_nothing():
    model = small()
    before = state(model)
    found = mode_map(model)
    assert {module.name: module.effect for module in found.matter} == {
        "0.1": "statistics move", "0.3": "statistics held", "3": "drops at random"
    }  # fmt: skip
    assert [module.name for module in found.against] == ["0.3"]
    assert_same(before, state(model))


def changes_with_the_mode(module, example):
    """Whether a module gives another output, or keeps other statistics, in train mode than in eval mode."""
    module.reset_running_stats() if hasattr(module, "reset_running_stats") else None
    outputs = []
    for mode in (True, False):
        torch.manual_seed(3)
        outputs.append(module.train(mode)(*example))
    first, second = (output[0] if isinstance(output, tuple) else output for output in outputs)
    return not torch.equal(first, second)


X = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(2)) + 3
KINDS = {
    "BatchNorm1d": (nn.BatchNorm1d(6), (X,)),
    "BatchNorm1d without statistics": (nn.BatchNorm1d(6, track_running_stats=False), (X,)),
    "InstanceNorm1d": (nn.InstanceNorm1d(6), (X,)),
    "InstanceNorm1d with statistics": (nn.InstanceNorm1d(6, track_running_stats=True), (X,)),
    "LayerNorm": (nn.LayerNorm(8), (X,)),
    "GroupNorm": (nn.GroupNorm(2, 6), (X,)),
    "Dropout": (nn.Dropout(0.5), (X,)),
    "Dropout of nothing": (nn.Dropout(0.0), (X,)),
    "AlphaDropout": (nn.AlphaDropout(0.5), (X,)),
    "StochasticDepth": (torchvision.ops.StochasticDepth(0.5, "row"), (X,)),
    "RReLU": (nn.RReLU(), (X - 3,)),
    "ReLU": (nn.ReLU(), (X,)),
    "MultiheadAttention": (nn.MultiheadAttention(8, 2, dropout=0.5), (X, X, X)),
    "MultiheadAttention without dropout": (nn.MultiheadAttention(8, 2), (X, X, X)),
    "LSTM of two layers": (nn.LSTM(8, 4, num_layers=2, dropout=0.5), (X,)),
    "LSTM": (nn.LSTM(8, 4), (X,)),
    "FrozenBatchNorm2d": (torchvision.ops.FrozenBatchNorm2d(4), (X[None].transpose(1, 2)[:, :4],)),
}


@pytest.mark.parametrize("name", KINDS)
def test_an_effect_is_named_exactly_where_the_mode_changes_something(name):
    module, example = KINDS[name]
    assert bool(effect_of(module)) == changes_with_the_mode(module, example)


def test_a_module_of_ones_own_that_reads_its_mode_is_found():
    class Noisy(nn.Module):
        def forward(self, x):
            return x + torch.randn_like(x) if self.training else x

    assert effect_of(Noisy()) == "computes as in train mode"
    assert effect_of(nn.Sequential(Noisy())) == ""


@pytest.mark.parametrize(
    ("setting", "value"), [("momentum", 0), ("momentum", 0.0), ("track_running_stats", False)]
)
def test_a_norm_that_keeps_its_statistics_and_uses_the_batch_is_told_from_a_held_one(setting, value):
    norm = nn.BatchNorm1d(6)
    setattr(norm, setting, value)
    before = norm.running_mean.clone()
    assert norm(X).mean().abs() < 0.1
    assert torch.equal(before, norm.running_mean)
    assert effect_of(norm) == "uses the batch, statistics stay"
    assert effect_of(norm.eval()) == "statistics held"


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "inception_v3", "vit_b_16", "efficientnet_lite0"])
def test_real_networks_have_a_map_whose_parts_add_up(name):
    with torch.device("meta"):
        model = pretrained.catalogue.builder_of(name)(
            **({"init_weights": False} if "tion" in name or name == "googlenet" else {})
        )
    found = mode_map(model)
    assert len(found.modules) == len(list(model.modules()))
    leaves = [module for module in model.modules() if not list(module.children())]
    rows = found.table().rows
    assert all(row[1] == "train" for row in rows)
    assert sum(sum(int(part.rpartition(": ")[2]) for part in row[2].split(", ") if part) for row in rows) == sum(
        bool(effect_of(leaf)) for leaf in leaves
    )


def test_a_scripted_model_has_a_map():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.script is on its way out
        scripted = torch.jit.script(nn.Sequential(nn.Dropout()))
    assert mode_map(scripted.eval()).modules[1].training is False


def test_a_single_layer_and_a_model_without_any_mode_have_a_map():
    assert "statistics move: 1" in repr(mode_map(nn.BatchNorm1d(2)))
    assert "matters to 0 modules" in repr(mode_map(nn.Linear(1, 1)))


# -- who changed it ---------------------------------------------------------------------------------


def wake(model):
    model.train()


def test_the_line_of_the_change_is_named_and_nothing_else_is_changed():
    model = small()
    before = state(model)
    with who_changed(model) as log:
        wake(model)
    (change,) = log.changes
    assert (change.modules, change.training, change.where) == (("0.3",), True, "line 2 of wake")
    assert change.source == "model.train()"
    assert log.woken == ["0.3"]
    model[0][3].eval()
    assert_same(before, state(model))


@pytest.mark.parametrize(
    "flip",
    [
        lambda model: model.eval(),
        lambda model: [module.eval() for module in model.modules()],
        lambda model: [setattr(module, "training", False) for module in model.modules()],
        lambda model: model.apply(lambda module: module.train(False)),
    ],
)
def test_every_way_to_change_a_mode_is_seen_as_one_change(flip):
    model = small()
    with who_changed(model) as log:
        flip(model)
    assert len(log.changes) == 1
    assert len(log.changes[0].modules) == len(
        modules_in_train_mode := [m for m in small().modules() if m.training]
    )
    assert modules_in_train_mode


def test_what_changes_nothing_is_no_change():
    model = small().train()
    with who_changed(model) as log:
        model.train()
        nn.Linear(1, 1).eval()  # of another model
    assert log.changes == []
    assert "Every module ends in the mode in which it began." in repr(log)


def test_a_library_is_named_beside_the_line_that_called_it():
    model = small()
    with who_changed(model) as log:
        torchinfo.summary(model, (4, 3, 8, 8), verbose=0)
    assert log.changes
    assert all(change.library.startswith("torchinfo: ") for change in log.changes)
    assert all("torchinfo.summary(model" in change.source for change in log.changes)


def test_ftlab_itself_is_named_and_puts_the_modes_back():
    model = small()
    with who_changed(model) as log, evaluating(model):
        model(IMAGES)
    assert [change.library for change in log.changes] == ["ftlab: evaluating", "ftlab: keep_modes"]
    assert not log.left


def test_the_forward_passes_are_counted_with_their_modes():
    model = small()
    with who_changed(model) as log:
        model(IMAGES)
        model.eval()
        model(IMAGES)
        with contextlib.suppress(RuntimeError):
            model(torch.ones(1, 7, 8, 8))  # counts as well
    assert [flags["3"] for flags in log.forwards] == [True, False, False]
    assert log.changes[0].after == 1
    assert {row["part"]: row["forward passes"] for row in log.strip().to_dict()} == {
        "0.1": "Tee",
        "0.3": "eee",
        "3": "Tee",
    }
    assert repr(log.plot()) == "0.1: Tee; 0.3: eee; 3: Tee"
    assert log.plot()._repr_png_().startswith(b"\x89PNG")


def test_a_module_that_is_added_is_watched_too():
    model = small()
    with who_changed(model) as log:
        model.append(nn.Dropout())
        model[5].eval()
    assert log.changes[0].modules == ("5",)


def test_an_error_passes_through_and_the_watch_ends():
    model = small()
    with contextlib.suppress(ZeroDivisionError), who_changed(model) as log:
        model.eval()
        raise ZeroDivisionError
    assert len(log.changes) == 1
    model.train()
    assert len(log.changes) == 1
    assert "_forward_hooks_always_called" in vars(model)
    assert not model._forward_hooks


def test_two_watches_see_their_own_model_and_end_in_any_order():
    one, other = small(), small()
    first, second = who_changed(one), who_changed(other)
    log_one, log_other = first.__enter__(), second.__enter__()
    one.eval()
    first.__exit__(None, None, None)
    other.eval()
    second.__exit__(None, None, None)
    assert (len(log_one.changes), len(log_other.changes)) == (1, 1)
    assert "_set_and_tell" not in repr(nn.Module.__setattr__)


def test_a_watched_model_computes_the_same():
    model = torchvision.models.VisionTransformer(16, 8, 1, 2, 8, 16, num_classes=3).eval()
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = model(images)
        with who_changed(model):
            assert torch.equal(model(images), expected)


OPERATIONS = st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["train", "eval", "on", "off"])), max_size=12)


def apply(model, operations):
    modules = list(model.modules())
    for number, operation in operations:
        module = modules[number]
        if operation in ("train", "eval"):
            getattr(module, operation)()
        else:
            module.training = operation == "on"


@given(OPERATIONS, OPERATIONS)
@settings(max_examples=50, deadline=None)
def test_the_changes_replayed_give_the_modes_at_the_end_and_evaluating_undoes_all(before, inside):
    model = small()
    apply(model, before)
    flags = {name: module.training for name, module in model.named_modules()}
    with evaluating(model), who_changed(model) as log:
        apply(model, inside)
    replayed = dict(log.started)
    for change in log.changes:
        assert all(replayed[name] != change.training for name in change.modules)
        replayed.update(dict.fromkeys(change.modules, change.training))
    assert replayed == log.ended
    assert flags == {name: module.training for name, module in model.named_modules()}


# -- the cost ---------------------------------------------------------------------------------------


def test_memory_is_counted_exactly():
    layer = nn.Sequential(nn.Linear(8, 16, bias=False), nn.Tanh(), nn.Tanh(), nn.Linear(16, 2, bias=False))
    rows = torch.ones(4, 8)
    kept, peak = memory_of(layer, rows)
    assert (
        kept == 2 * 4 * 16 * 4
    )  # the outputs of both Tanh, which Tanh and Linear share; that of Linear is let go
    assert peak == kept + 4 * 2 * 4
    assert memory_of(layer, rows, torch.no_grad) == (0, 2 * 4 * 16 * 4)


def test_the_cost_changes_nothing():
    model = small()
    before = state(model)
    found = forward_cost(model, IMAGES, repeat=1)
    assert_same(before, state(model))
    assert len(found.passes) == 6
    assert all(each.seconds > 0 for each in found.passes)
    assert "time" in repr(found)
    assert (
        found["eval", "grad"].kept > 0 == found["eval", "no_grad"].kept == found["train", "inference_mode"].kept
    )


def test_a_model_that_returns_a_dictionary_is_measured():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return {"a": self.layer(x), "b": [self.layer(x).exp()]}

    assert memory_of(Two(), torch.ones(2, 4)) == (0, 2 * 2 * 4 * 4 + 2 * 4 * 4)
