"""How far a step moves, and the range test that leaves nothing behind."""

import copy
from random import Random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, Adam, AdamW
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Subset, TensorDataset

from ftlab.exercises.behaviour import same_model
from ftlab.exercises.models import SmallResNet
from ftlab.learning_rates import parameter_groups, range_test, update_ratio

IMAGES, LABELS = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 2


def stepper(model, optimizer):
    def step():
        optimizer.zero_grad()
        F.cross_entropy(model(IMAGES), LABELS).backward()
        optimizer.step()

    return step


def everything(model, optimizer):
    gradients = [(p.grad, p.grad if p.grad is None else p.grad.clone()) for p in model.parameters()]
    return copy.deepcopy((model, optimizer.state_dict())), gradients, torch.get_rng_state()


def expect_as_before(model, optimizer, before):
    (old, state), gradients, random = before
    for parameter, copied, (gradient, values) in zip(
        model.parameters(), old.parameters(), gradients, strict=True
    ):
        assert parameter.grad is gradient
        assert gradient is None or torch.equal(gradient, values)
        copied.grad = gradient  # a deep copy has none
    assert same_model(model, old) == []
    assert str(optimizer.state_dict()) == str(state)
    assert torch.equal(random, torch.get_rng_state())


# --- update_ratio


def test_the_ratio_is_that_of_a_real_step():
    model = SmallResNet()
    optimizer = SGD(parameter_groups(model, {"fc": 0.1}, default=0.01), momentum=0.9)
    step = stepper(model, optimizer)
    step()
    before = everything(model, optimizer)
    found = update_ratio(model, step)
    copied = before[0][0]
    assert [p.tolist() for p in model.fc.parameters()] == [p.tolist() for p in copied.fc.parameters()]
    step()
    old, new = (torch.cat([p.detach().flatten() for p in m.fc.parameters()]) for m in (copied, model))
    assert found.groups[0].ratio == pytest.approx(((new - old).norm() / old.norm()).item(), rel=1e-4)
    assert [group.name for group in found.groups] == ["fc", "default"]
    assert len(found.tensors) == len(list(model.parameters()))


def test_rates_and_ratios_are_not_the_same():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    nn.init.normal_(model[0].weight, std=10.0)
    optimizer = SGD([{"params": part.parameters(), "lr": 0.1} for part in model])
    inputs = torch.randn(8, 4)

    def step():
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()

    ratios = [group.ratio for group in update_ratio(model, step).groups]
    assert max(ratios) > 10 * min(ratios)


def test_update_ratio_leaves_nothing_behind_also_after_an_error():
    model = SmallResNet()
    optimizer = AdamW(model.parameters())
    step = stepper(model, optimizer)
    before = everything(model, optimizer)
    update_ratio(model, step)
    expect_as_before(model, optimizer, before)

    def broken():
        step()
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        update_ratio(model, broken)
    expect_as_before(model, optimizer, before)


def test_update_ratio_says_what_it_needs():
    with pytest.raises(TypeError, match="a function to call"):
        update_ratio(nn.Linear(1, 1), 3)
    with pytest.raises(ValueError, match="no optimizer"):
        update_ratio(nn.Linear(1, 1), lambda: None)


def test_a_step_that_moves_nothing_is_named():
    model = nn.Linear(4, 2)
    assert "nothing moved" in repr(update_ratio(model, lambda: None, SGD(model.parameters())))
    optimizer = SGD(model.parameters(), lr=0.1)

    def step():
        model(torch.ones(1, 4)).sum().backward()
        optimizer.step()

    assert "nothing moved" not in repr(update_ratio(model, step, optimizer))


def test_zeros_have_no_ratio_and_the_results_can_be_shown():
    model = nn.Linear(2, 1)
    nn.init.zeros_(model.bias)
    optimizer = SGD([{"params": [model.weight], "lr": 0.1, "name": "w"}, {"params": [model.bias], "lr": 0.1}])

    def step():
        optimizer.zero_grad()
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()

    found = update_ratio(model, step)
    assert str(found.groups[1].ratio) == "nan"
    assert found.table(every=True).to_dict()[0]["tensor"] == "weight"
    assert found.to_dict()["groups"][0]["name"] == "w"
    assert len(found.plot().axes) == 2
    assert "<table>" in found._repr_html_()


# --- range_test


def data(shuffle=False, generator=None):
    return DataLoader(TensorDataset(IMAGES, LABELS), batch_size=8, shuffle=shuffle, generator=generator)


def test_range_test_leaves_nothing_behind():
    model = SmallResNet()
    model.layer1.eval().requires_grad_(False)
    optimizer = Adam(parameter_groups(model, {"fc": 0.1}, default=0.01))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    stepper(model, optimizer)()
    generator = torch.Generator().manual_seed(3)
    batches = data(shuffle=True, generator=generator)
    before, drawn, scheduled = everything(model, optimizer), generator.get_state(), scheduler.state_dict()
    range_test(model, batches, optimizer, steps=10, seeds=2)
    expect_as_before(model, optimizer, before)
    assert torch.equal(drawn, generator.get_state())
    assert scheduler.state_dict() == scheduled

    def broken(logits, targets):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        range_test(model, batches, optimizer, steps=10, loss=broken)
    expect_as_before(model, optimizer, before)


class Noisy(TensorDataset):
    """A data set with generators of its own."""

    def __init__(self):
        super().__init__(IMAGES, LABELS)
        self.noise, self.choice = np.random.default_rng(1), Random(2)

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image + 0.01 * self.noise.random() + 0.01 * self.choice.random(), label


def test_a_range_test_puts_back_the_generators_of_samplers_and_data_sets():
    model, generator = SmallResNet(), torch.Generator().manual_seed(3)
    inner, drawn = Noisy(), []
    subset = Subset(inner, range(len(inner)))
    sampler = BatchSampler(RandomSampler(subset, generator=generator), 8, drop_last=False)
    batches = DataLoader(subset, batch_sampler=sampler)
    for _ in range(2):
        drawn.append(
            (generator.get_state().tolist(), str(inner.noise.bit_generator.state), inner.choice.getstate())
        )
        range_test(model, batches, Adam(model.parameters()), steps=10, seeds=1)
    assert drawn[0] == drawn[1]
    next(iter(batches))
    assert str(inner.noise.bit_generator.state) != drawn[0][1]  # it does draw from them


def separable(count=64):
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=16, shuffle=True)


def test_a_suggestion_that_trains():
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    found = range_test(model, separable(), SGD(model.parameters()), low=1e-4, high=1e3, seeds=3)
    assert found.suggestion
    assert "steepest" in found.curves[0].reason
    losses = {}
    for rate in (1e-4, found.suggestion):
        trained = copy.deepcopy(model)
        optimizer = SGD(trained.parameters(), lr=rate)
        for _ in range(5):
            for images, labels in separable():
                optimizer.zero_grad()
                value = F.cross_entropy(trained(images), labels)
                value.backward()
                optimizer.step()
        losses[rate] = value.item()
    assert losses[found.suggestion] < 0.8 * losses[1e-4]


def test_nothing_to_learn_gives_no_suggestion():
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    batches = [(part, torch.randint(0, 2, (16,))) for part in x.split(16)]
    model = nn.Linear(4, 2)
    found = range_test(model, batches, SGD(model.parameters()), low=1e-9, high=1e-7, steps=20)
    assert found.suggestion is None
    assert "does not tell" in found.curves[0].reason


def test_rates_keep_their_ratio_and_a_sleeping_group_sleeps():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    optimizer = SGD(
        [{"params": part.parameters(), "lr": rate} for part, rate in zip(model, (0.0, 0.1, 1.0), strict=True)]
    )
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append([g["lr"] for g in optimizer.param_groups]))
    range_test(model, separable(), optimizer, low=1e-3, high=1.0, steps=10, seeds=1)
    assert seen[0] == pytest.approx([0.0, 1e-4, 1e-3])
    assert seen[-1][0] == 0.0
    assert seen[-1][2] == pytest.approx(10 * seen[-1][1])


def test_each_group_alone():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    optimizer = SGD(
        [{"params": part.parameters(), "lr": 0.01, "name": name} for name, part in zip("ab", model, strict=True)]
    )
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append([g["lr"] for g in optimizer.param_groups]))
    found = range_test(model, separable(), optimizer, low=1e-3, high=0.1, steps=10, seeds=1, per_group=True)
    assert [curve.name for curve in found.curves] == ["a", "b"]
    assert {rates[1] for rates in seen[:10]} == {0.01}
    assert {rates[0] for rates in seen[10:]} == {0.01}
    assert len(found.plot().axes[0].lines) >= 2
    assert [row["swept"] for row in found.table().to_dict()] == ["a", "b"]
    assert len(found.to_dict()) == 2
    assert "<table>" in found._repr_html_()


def test_a_rate_in_a_tensor_stays_that_tensor():
    model = nn.Linear(4, 2)
    rate = torch.tensor(0.01)
    optimizer = Adam(model.parameters(), lr=rate)
    range_test(model, separable(), optimizer, steps=10, seeds=1)
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.01)


def test_a_loss_that_runs_away_ends_the_sweep():
    model = nn.Linear(4, 2)
    found = range_test(model, separable(), SGD(model.parameters()), low=1e4, high=1e9, steps=20, seeds=1)
    assert found.suggestion is None
    assert "begin lower" in found.curves[0].reason


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"low": 1, "high": 0.1}, ValueError, "rise from low to high"),
        ({"low": 0}, ValueError, "rise from low to high"),
        ({"steps": 3}, ValueError, "10 steps"),
        ({"seeds": 0}, ValueError, "1 seed"),
        ({"batches": iter([])}, TypeError, "used up by a test"),
        ({"batches": []}, ValueError, "no batches"),
        ({"batches": separable().dataset}, TypeError, r"hand over DataLoader\(dataset"),
        ({"low": "1e-3"}, TypeError, "low has to be of type int or float"),
        ({"steps": 20.5}, TypeError, "steps has to be of type int"),
        ({"seeds": [1, 2]}, TypeError, "seeds has to be of type int"),
        ({"loss": "cross entropy"}, TypeError, "the loss has to be of type Callable"),
        ({"loss": nn.CrossEntropyLoss}, TypeError, r"call it, CrossEntropyLoss\(\)"),
        (
            {"loss": nn.CrossEntropyLoss(reduction="none")},
            ValueError,
            r"one number .* not a tensor of shape \(\d+,\)",
        ),
    ],
)
def test_what_cannot_be_tested_is_refused(arguments, error, says):
    model = nn.Linear(4, 2)
    arguments = {"model": model, "batches": separable(), "optimizer": SGD(model.parameters())} | arguments
    with pytest.raises(error, match=says):
        range_test(**arguments)
