"""Gradual unfreezing: what thaws when, and what the optimizer knows of it."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW
from torch.optim import lr_scheduler as schedulers
from torch.utils.data import DataLoader, TensorDataset

from ftlab.freezing import audit, phases
from ftlab.training import fit

X, Y = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2


def net():
    torch.manual_seed(0)
    block = lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.BatchNorm1d(4))  # noqa: E731
    return nn.Sequential(block(), block(), nn.Linear(4, 2))


def trainable(model):
    return {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}


def stepper(model, optimizer):
    def step():
        model.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X), Y).backward()
        optimizer.step()

    return step


def owned(optimizer):
    return [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]


PLAN = {0: "2", 2: "1", 3: ["0", "1.0"]}


def test_each_epoch_thaws_its_part_and_the_audit_agrees():
    model = net()
    optimizer = SGD(model[2].parameters(), lr=0.1, momentum=0.9)
    plan = phases(model, optimizer, PLAN)
    for epoch, expected in enumerate([{"2"}, {"2"}, {"1", "2"}, {"0", "1", "2"}, {"0", "1", "2"}]):
        plan(epoch)
        assert trainable(model) == expected
        found = audit(model, stepper(model, optimizer))
        assert {name.split(".")[0] for name in found.moved} == expected, "norms in frozen parts hold as well"
        assert found.stuck == {}
        stepper(model, optimizer)()


def test_the_order_and_number_of_calls_do_not_matter():
    model = net()
    plan = phases(model, SGD(model[2].parameters(), lr=0.1), PLAN)
    for epoch, expected in [
        (3, {"0", "1", "2"}),
        (3, {"0", "1", "2"}),
        (0, {"2"}),
        (7, {"0", "1", "2"}),
        (2, {"1", "2"}),
    ]:
        plan(epoch)
        assert trainable(model) == expected
        norms = [module.training for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
        assert norms == ["0" in expected, "1" in expected]


@pytest.mark.parametrize("parts", ["head", "everything", "groups"])
def test_every_parameter_is_in_the_optimizer_once_with_its_own_rate(parts):
    model = net()
    given = {
        "head": model[2].parameters(),
        "everything": model.parameters(),
        "groups": [{"params": model[2].parameters(), "lr": 0.1}, {"params": model[0].parameters(), "lr": 0.01}],
    }[parts]
    optimizer = Adam(given, lr=0.1, weight_decay=0.3)
    plan = phases(model, optimizer, PLAN, lr={3: 0.007}, lr_factor=0.5)
    assert sorted(owned(optimizer)) == sorted(id(parameter) for parameter in model.parameters())
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == {"2": 0.1, "1": 0.05, "0": 0.007}[name[0]]
    assert [phase.lr for phase in plan.phases] == [0.1, 0.05, 0.007]
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.3}


def test_without_rates_what_the_optimizer_owns_stays_where_it_is():
    model = net()
    optimizer = SGD([{"params": model[2].parameters(), "lr": 0.1}, {"params": model[1].parameters(), "lr": 0.02}])
    groups = [list(map(id, group["params"])) for group in optimizer.param_groups]
    plan = phases(model, optimizer, {0: "2", 1: "1"})
    assert [list(map(id, group["params"])) for group in optimizer.param_groups] == groups
    assert [phase.lr for phase in plan.phases] == [0.1, 0.02]


def test_tied_parameters_are_there_once():
    model = net()
    model[1][0].weight = model[0][0].weight
    optimizer = SGD(model[2].parameters(), lr=0.1)
    plan = phases(model, optimizer, {0: "2", 1: "1", 2: "0"})
    assert len(owned(optimizer)) == len(set(owned(optimizer))) == len(list(model.parameters()))
    assert id(model[0][0].weight) in {id(p) for p in plan.phases[1].parameters}
    plan(2)
    assert audit(model, stepper(model, optimizer)).stuck == {}


def test_state_and_names_of_the_optimizer_are_kept():
    model = net()
    optimizer = AdamW(model.named_parameters(), lr=0.1)
    stepper(model, optimizer)()
    moments = {id(p): state["exp_avg"].clone() for p, state in optimizer.state.items()}
    phases(model, optimizer, PLAN, lr_factor=0.1)
    assert {id(p) for p in optimizer.state} == moments.keys()
    assert all(torch.equal(state["exp_avg"], moments[id(p)]) for p, state in optimizer.state.items())
    by_name = dict(model.named_parameters())
    for group in optimizer.param_groups:
        assert [id(by_name[name]) for name in group["param_names"]] == [id(p) for p in group["params"]]


def test_what_waits_costs_no_state_and_the_checkpoint_fits_at_every_epoch():
    model = net()
    optimizer = Adam(model[2].parameters(), lr=0.1)
    plan = phases(model, optimizer, PLAN)
    stepper(model, optimizer)()
    assert len(optimizer.state) == 2
    early = copy.deepcopy(optimizer.state_dict())
    plan(3)
    stepper(model, optimizer)()
    assert len(optimizer.state) == len(list(model.parameters()))
    optimizer.load_state_dict(early)  # raises if the groups do not fit


SCHEDULERS = {
    "LambdaLR": lambda o: schedulers.LambdaLR(o, lambda epoch: 0.5**epoch),
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, max_lr=0.1, total_steps=20),
    "CosineAnnealingWarmRestarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 3),
    "LinearLR": lambda o: schedulers.LinearLR(o),
    "StepLR": lambda o: schedulers.StepLR(o, 1),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_made_after_the_phases_works(name):
    model = net()
    optimizer = SGD(model[2].parameters(), lr=0.1)
    plan = phases(model, optimizer, PLAN)
    scheduler = SCHEDULERS[name](optimizer)
    for epoch in range(4):
        plan(epoch)
        stepper(model, optimizer)()
        scheduler.step()
    assert len({group["lr"] for group in optimizer.param_groups}) == 1, "one course for all groups"
    assert trainable(model) == {"0", "1", "2"}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_made_before_is_an_error_and_nothing_is_changed(name):
    model = net()
    optimizer = SGD(model[2].parameters(), lr=0.1)
    scheduler = SCHEDULERS[name](optimizer)
    with pytest.raises(ValueError, match="make the phases first, then the scheduler"):
        phases(model, optimizer, PLAN)
    assert trainable(model) == {"0", "1", "2"}
    assert len(optimizer.param_groups) == 1
    del scheduler  # it had to be alive until here


def test_a_scheduler_is_no_hindrance_if_the_optimizer_owns_everything():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    scheduler = schedulers.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
    plan = phases(model, optimizer, PLAN)
    for epoch in range(4):
        plan(epoch)
        stepper(model, optimizer)()
        scheduler.step()
    with pytest.raises(ValueError, match="then the scheduler"):
        phases(model, optimizer, PLAN, lr_factor=0.5)


def test_with_fit():
    model = net()
    optimizer = SGD(model[2].parameters(), lr=0.1)
    plan = phases(model, optimizer, {0: "2", 1: "1"})
    seen = []
    before = copy.deepcopy(model.state_dict())
    data = DataLoader(TensorDataset(X, Y), batch_size=4)
    model.train()
    spy = lambda epoch: seen.append(trainable(model))  # noqa: E731
    fit(model, data, epochs=2, optimizer=optimizer, on_epoch_start=[plan, spy], progress=False)
    assert seen == [{"2"}, {"1", "2"}]
    changed = {n.split(".")[0] for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    assert changed == {"1", "2"}


@pytest.mark.parametrize(
    ("plan", "options", "says"),
    [
        ({1: "2"}, {}, "starts at epoch 1: at epoch 0 nothing would be trainable"),
        ({}, {}, "at epoch 0 nothing would be trainable"),
        ({0: "2", 1: "2.weight"}, {}, "epoch 1 thaws nothing new: 2.weight thaws earlier"),
        ({0: "2", 1: "3"}, {}, "'3' matches none"),
        ({0: "2", 1: "1"}, {"lr": {2: 0.1}}, r"lr has the epochs \[2\], at which nothing thaws"),
    ],
)
def test_a_plan_that_makes_no_sense_is_an_error_and_nothing_is_changed(plan, options, says):
    model = net()
    optimizer = SGD(model[2].parameters(), lr=0.1)
    with pytest.raises(ValueError, match=says):
        phases(model, optimizer, plan, **options)
    assert trainable(model) == {"0", "1", "2"}
    assert len(optimizer.param_groups) == 1


def test_the_plan_shows_itself():
    model = net()
    plan = phases(model, SGD(model[2].parameters(), lr=0.1), PLAN, lr_factor=0.5)
    rows = plan.to_dict()
    assert [row["epoch"] for row in rows] == [0, 2, 3]
    assert [row["thaws"] for row in rows] == ["2", "1", "0, 1.0"]
    assert rows[-1]["values trainable from then on"] == sum(p.numel() for p in model.parameters())
    assert "3 phases; 100.0% of the model is trainable at the end" in repr(plan)
    assert "<table>" in plan._repr_html_()
    axes = plan.plot().axes[0]
    frozen, free = axes.patches[0::2], axes.patches[1::2]
    assert [bar.get_width() for bar in frozen] == [0, 2, 3]
    assert [bar.get_x() for bar in free] == [0, 2, 3]
    assert [text.get_text() for text in axes.texts] == ["lr 0.1", "lr 0.05", "lr 0.025"]
