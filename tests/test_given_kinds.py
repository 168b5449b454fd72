"""Wrong kinds of arguments: each function says what it was given and how it is called, and changes nothing."""

import copy
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import nn

from ftlab import freezing, learning_rates, modes, training
from ftlab.given import expect


def network():
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


MODEL = network()
OPTIMIZER = torch.optim.SGD(MODEL.parameters(), lr=0.1, momentum=0.9)
SCHEDULER = torch.optim.lr_scheduler.StepLR(OPTIMIZER, 2)
BATCHES = [(torch.ones(4, 4), torch.tensor([0, 1, 0, 1]))] * 2


def step():
    OPTIMIZER.zero_grad()
    MODEL(torch.randn(4, 4)).mean().backward()
    OPTIMIZER.step()


def test_the_right_kind_passes_and_several_kinds_are_named():
    expect(3, int, "the number", "call(number)")
    expect(None, (int, type(None)), "the number", "call(number)")
    with pytest.raises(
        TypeError, match=r"the number has to be of type int or float, and is of type str; .*call\(1\)"
    ):
        expect("3", (int, float), "the number", "call(1)")


WRONG = {  # what is called, and the words that the error has
    "audit of a function": (
        lambda: freezing.audit(step, MODEL),
        ("model", "Module", "function", "audit(model, step)"),
    ),
    "audit with a scheduler": (lambda: freezing.audit(MODEL, step, optimizer=SCHEDULER), ("Optimizer", "StepLR")),
    "audit with a list of models": (
        lambda: freezing.audit(MODEL, step, optimizer=[MODEL]),
        ("Optimizer", "Sequential"),
    ),
    "audit steps": (lambda: freezing.audit(MODEL, step, steps="2"), ("steps", "int", "str")),
    "freeze of a state dict": (lambda: freezing.freeze(MODEL.state_dict(), "0"), ("Module", "OrderedDict")),
    "cost of a batch": (
        lambda: freezing.cost(torch.ones(1), MODEL),
        ("Module", "Tensor", "cost(model, example)"),
    ),
    "xray turned round": (
        lambda: learning_rates.xray(OPTIMIZER, MODEL),
        ("Module", "SGD", "xray(model, optimizer)"),
    ),
    "xray with a scheduler": (lambda: learning_rates.xray(MODEL, SCHEDULER), ("Optimizer", "StepLR")),
    "ratio of a name": (lambda: learning_rates.update_ratio("model", step), ("Module", "str", "update_ratio(")),
    "timeline turned round": (lambda: learning_rates.timeline(SCHEDULER, OPTIMIZER), ("Optimizer", "StepLR")),
    "timeline of several": (lambda: learning_rates.timeline(OPTIMIZER, [SCHEDULER]), ("LRScheduler", "list")),
    "timeline of half an epoch": (
        lambda: learning_rates.timeline(OPTIMIZER, epochs=2.5),
        ("epochs", "int", "float"),
    ),
    "range test turned round": (
        lambda: learning_rates.range_test(MODEL, OPTIMIZER, BATCHES),
        ("Optimizer", "list", "range_test(model, batches, optimizer)"),
    ),
    "range test of a number": (
        lambda: learning_rates.range_test(MODEL, BATCHES, OPTIMIZER, loss=lambda *_: 1.0),
        ("loss", "Tensor", "float"),
    ),
    "modes of a function": (lambda: modes.mode_map(step), ("Module", "function", "mode_map(model)")),
    "kept modes of a name": (
        lambda: modes.keep_modes("model").__enter__(),
        ("Module", "str", "keep_modes(model)"),
    ),
    "who changed a name": (
        lambda: modes.who_changed("model").__enter__(),
        ("Module", "str", "who_changed(model)"),
    ),
    "evaluating nothing": (lambda: modes.evaluating(None).__enter__(), ("Module", "NoneType")),
    "the cost of a batch": (lambda: modes.forward_cost(torch.ones(1), MODEL), ("Module", "Tensor")),
    "targets in a list": (lambda: training.check_targets(torch.ones(2, 3), [0, 1]), ("Tensor", "list")),
    "rates in a list": (lambda: learning_rates.parameter_groups(MODEL, ["0", 0.1]), ("Mapping", "list")),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_error_names_what_was_given_and_nothing_changes(name):
    call, words = WRONG[name]
    before = state()
    with pytest.raises(TypeError) as raised:
        call()
    assert all(word in str(raised.value) for word in words), raised.value
    assert all(map(torch.equal, before, state()))


def state():
    """Return all that a call could change, as tensors."""
    flags = [float(module.training) for module in MODEL.modules()]
    flags += [float(parameter.requires_grad) for parameter in MODEL.parameters()]
    rates = [OPTIMIZER.param_groups[0]["lr"], float(SCHEDULER.last_epoch), float(len(OPTIMIZER.state))]
    return [*copy.deepcopy(MODEL.state_dict()).values(), torch.tensor(flags + rates), torch.get_rng_state()]


LAZY = nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
LAZY_OPTIMIZER = torch.optim.SGD(LAZY.parameters(), lr=0.1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: freezing.audit(LAZY, lambda: LAZY(torch.ones(4, 4))),
        lambda: freezing.cost(LAZY, torch.ones(4, 4)),
        lambda: learning_rates.update_ratio(LAZY, lambda: LAZY(torch.ones(4, 4)), LAZY_OPTIMIZER),
        lambda: learning_rates.range_test(LAZY, BATCHES, LAZY_OPTIMIZER),
    ],
)
def test_a_model_without_shapes_is_refused_and_stays_without(call):
    with pytest.raises(ValueError, match=r"'1\.weight' has no values yet.*run one batch"):
        call()
    assert nn.parameter.is_lazy(LAZY[1].weight)


def test_xray_shows_a_model_without_shapes():
    found = learning_rates.xray(LAZY, LAZY_OPTIMIZER)
    assert [tensor.values for tensor in found.tensors] == [0, 0]
    assert found.ok


class Once:
    """A loader that cannot be started a second time."""

    def __init__(self, batches):
        self.batches = iter(batches)

    def __iter__(self) -> Iterator:
        return self.batches


@pytest.mark.parametrize(
    ("batches", "error", "says"),
    [
        (Once(BATCHES), ValueError, "come only once"),
        ([{"image": torch.ones(2, 4), "label": torch.tensor([0, 1])}], TypeError, "a dict of 'image', 'label'"),
        ([torch.ones(2, 4)], TypeError, "a pair of images and targets, not a Tensor"),
        ([(torch.ones(2, 4), torch.tensor([0, 1]), "a.png")], TypeError, "a pair of images and targets"),
    ],
)
def test_batches_that_no_range_can_be_tested_on(batches, error, says):
    before = state()
    with pytest.raises(error, match=says):
        learning_rates.range_test(MODEL, batches, OPTIMIZER, steps=10)
    assert all(map(torch.equal, before, state()))


def test_a_range_test_that_could_not_train_is_refused():
    with pytest.raises(ValueError, match="none of the trainable parameters"):
        learning_rates.range_test(network(), BATCHES, OPTIMIZER)
    with pytest.raises(ValueError, match="no parameter of the model is trainable"):
        learning_rates.range_test(network().requires_grad_(False), BATCHES, OPTIMIZER)
    with pytest.raises(TypeError, match="closure"):
        learning_rates.range_test(MODEL, BATCHES, torch.optim.LBFGS(MODEL.parameters()))


def test_a_loss_that_is_never_finite_is_not_blamed_on_the_rate():
    found = learning_rates.range_test(
        MODEL, BATCHES, OPTIMIZER, steps=10, seeds=1, loss=lambda output, _: output.sum() * float("nan")
    )
    assert found.suggestion is None
    assert "before the first step" in found.curves[0].reason


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_the_cost_of_a_wrapped_model_is_that_of_the_model(wrap):
    model = network()
    model[0].requires_grad_(False)
    assert (
        freezing.cost(wrap(model), torch.ones(4, 4)).to_dict() == freezing.cost(model, torch.ones(4, 4)).to_dict()
    )


def test_a_loader_and_an_iterator_have_batches_enough():
    batches = list(torch.ones(6, 32, 256))
    careless = lambda some: sum(MODEL[0](x[:, :4]).exp().sum() for x in some)  # noqa: E731
    wanted = training.memory_growth(careless, batches).kept
    for others in (iter(batches), torch.utils.data.DataLoader(batches, batch_size=None)):
        assert training.memory_growth(careless, others).kept == wanted
    with pytest.raises(ValueError, match="4 batches are asked for, and 3 are there"):
        training.memory_growth(careless, iter(batches[:3]))


def forgetful(model, images, targets, optimizer):
    nn.functional.cross_entropy(model(images), targets).backward()
    optimizer.step()


def test_a_loop_with_some_arguments_set_is_watched():
    images, targets = BATCHES[0]
    told = partial(forgetful, optimizer=OPTIMIZER, model=MODEL)
    report = training.check_loop(told, images=images, targets=targets)
    assert report.kinds == ["no zero_grad"]
    assert report.watched.startswith("one run was watched")
    assert training.check_loop(partial(forgetful, MODEL, *BATCHES[0]), optimizer=OPTIMIZER).kinds == report.kinds
