"""Batch norm inside what is frozen: it holds, whatever the loop calls, and however the model travels."""

import copy
import io
import pickle
import types

import pytest
import torch
from torch import nn

from ftlab.freezing import freeze, unfreeze
from ftlab.freezing.norms import hold, is_held
from ftlab.modes import keep_modes


def moves(model, shape=(4, 3, 6, 6)):
    """Return whether a forward pass after `model.train()` moves a running statistic."""
    model.train()
    before = [buffer.clone() for buffer in model.buffers()]
    model(torch.randn(shape) + 3)
    return any(not torch.equal(one, other) for one, other in zip(before, model.buffers(), strict=True))


def small(norm=None):
    return nn.Sequential(nn.Conv2d(3, 4, 3), norm or nn.BatchNorm2d(4), nn.Dropout(0.5))


NORMS = {
    "BatchNorm1d": (lambda: nn.BatchNorm1d(3), (4, 3)),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(3), (4, 3, 2, 2)),
    "BatchNorm3d": (lambda: nn.BatchNorm3d(3), (4, 3, 2, 2, 2)),
    "SyncBatchNorm": (lambda: nn.SyncBatchNorm(3), (4, 3, 2, 2)),
    "BatchNorm2d without affine": (lambda: nn.BatchNorm2d(3, affine=False), (4, 3, 2, 2)),
    "InstanceNorm1d": (lambda: nn.InstanceNorm1d(3, track_running_stats=True), (4, 3, 5)),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(3, affine=True, track_running_stats=True), (4, 3, 2, 2)),
    "InstanceNorm3d": (lambda: nn.InstanceNorm3d(3, track_running_stats=True), (4, 3, 2, 2, 2)),
}


@pytest.mark.parametrize("name", NORMS)
def test_every_norm_with_running_statistics_is_held_and_let_go(name):
    make, shape = NORMS[name]
    model = nn.Sequential(nn.Identity(), make())
    if name == "SyncBatchNorm":  # outside of a process group it refuses to train on a CPU: the flag must do
        freeze(model)
        assert not model.train()[1].training
        unfreeze(model)
        assert model[1].training
        return
    assert moves(model, shape)
    freeze(model)
    assert not moves(model, shape)
    freeze(model, batch_norm="train")
    assert moves(model, shape)
    freeze(model)
    unfreeze(model)
    assert moves(model, shape)


def test_a_norm_without_statistics_is_left_alone():
    model = small(nn.InstanceNorm2d(4, affine=True))
    freeze(model)
    assert model.train()[1].training


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.train(),
        lambda model: model.eval().train(),
        lambda model: model[1].train(),
        lambda model: model.apply(lambda module: module.train()),
        lambda model: [module.train(True) for module in model.modules()],
    ],
)
def test_no_call_wakes_a_held_norm_and_the_rest_obeys(call):
    model = small()
    freeze(model, "0", "1")
    call(model)
    assert not model[1].training
    assert model[2].training
    assert model[1].train() is model[1], "train() still returns the module"


def test_a_held_norm_keeps_its_class_and_keys():
    model = small()
    keys = list(model.state_dict())
    norm = model[1]
    freeze(model)
    assert model[1] is norm
    assert type(norm) is nn.BatchNorm2d
    assert list(model.state_dict()) == keys


def save_and_load(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("travel", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), save_and_load])
def test_the_hold_travels_with_the_model_and_the_copy_can_be_unfrozen_alone(travel):
    model = small()
    freeze(model)
    other = travel(model)
    assert not moves(other)
    unfreeze(other)
    assert moves(other)
    assert not moves(model), "the original is still held"


def test_loading_a_state_dict_keeps_the_hold():
    model = small()
    freeze(model)
    model.load_state_dict(torch.load(io_of(small().state_dict()), weights_only=True))
    assert not moves(model)


def io_of(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("first", ["freeze", "compile"])
def test_the_hold_works_under_torch_compile(first):
    torch.compiler.reset()
    model = small()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    if first == "compile":
        assert moves(compiled)
    freeze(compiled)
    assert not moves(compiled)
    unfreeze(compiled)
    assert moves(compiled)


def compiled_before(way):
    """Return a model that was compiled and run before its norm was to be held."""
    torch.compiler.reset()
    model = small()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert moves(compiled)
    way(model[1])
    return compiled


def as_hook(module):
    module.register_forward_pre_hook(lambda module, args: setattr(module, "training", False))


def as_bound_method(module):
    def train(self, mode=True):
        return self

    module.eval()
    module.train = types.MethodType(train, module)


def as_class(module):
    held = type("Held", (type(module),), {"train": lambda self, mode=True: super(held, self).train(False)})
    module.__class__ = held
    module.eval()


def test_why_the_hold_is_an_object_in_place_of_train():
    """The other three ways fail in one place each; should one of these stop failing, look at it again."""
    assert moves(compiled_before(as_hook))

    model = small()
    as_bound_method(model[1])
    assert not moves(model)
    assert moves(pickle.loads(pickle.dumps(model)))

    model = small()
    as_class(model[1])
    assert type(model[1]) is not nn.BatchNorm2d
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(model)

    model = small()
    hold(model[1])
    assert not moves(model)
    assert not moves(compiled_before(hold))
    assert not moves(pickle.loads(pickle.dumps(model)))


def test_setting_the_flag_by_hand_still_gets_through():
    model = small()
    freeze(model)
    for module in model.modules():
        module.training = True
    before = model[1].running_mean.clone()
    model(torch.randn(4, 3, 6, 6))
    assert not torch.equal(before, model[1].running_mean)


def test_the_mode_after_unfreeze_is_that_of_the_module_around_it():
    model = small()
    freeze(model)
    model.eval()
    unfreeze(model)
    assert not model[1].training
    freeze(model)
    model.train()
    unfreeze(model)
    assert model[1].training


def test_a_mode_set_by_hand_comes_back_unless_train_was_called():
    model = small()
    model[1].eval()
    freeze(model)
    unfreeze(model)
    assert not model[1].training
    freeze(model)
    model.train()
    unfreeze(model)
    assert model[1].training


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_validation_that_puts_the_modes_back_does_not_leave_a_norm_in_eval_mode(by_hand):
    model = small()
    model[1].train(not by_hand)
    freeze(model)
    model.train()
    with keep_modes(model):
        model.eval()
    assert not model[1].training
    unfreeze(model)
    assert model[1].training


def test_a_norm_is_inside_only_if_all_of_its_parameters_are_frozen():
    model = small()
    freeze(model, "1.weight")
    assert not is_held(model[1])
    freeze(model, "1.bias")
    assert is_held(model[1])
    unfreeze(model, "1.bias")
    assert not is_held(model[1])


def test_a_norm_without_parameters_follows_the_module_around_it():
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False)), nn.Conv2d(4, 1, 1))
    freeze(model, "1")
    assert not is_held(model[0][1])
    unfreeze(model, "1")
    freeze(model, "0.0.*")
    assert is_held(model[0][1]), "the convolution beside it is frozen, the one outside does not count"
    unfreeze(model, "0.0.bias")
    assert not is_held(model[0][1])
    freeze(model, "0.1")  # by its own name, although it has no parameters
    assert not is_held(model[0][1]), "the convolution beside it is trainable in part"


def test_freezing_by_predicate_or_glob_holds_as_well():
    for pattern in ("*", lambda name, parameter: True):
        model = small()
        freeze(model, pattern)
        assert not moves(model)
