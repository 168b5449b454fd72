"""A stopped training goes on bit by bit: optimizers, schedulers, randomness, accumulation, mixed precision."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, RMSprop
from torch.optim import lr_scheduler as schedulers

from ftlab import checkpoints
from ftlab.checkpoints import Run, ablate, verify_resume

OPTIMIZERS = {
    "SGD": lambda parameters: SGD(parameters, lr=0.05, momentum=0.9, weight_decay=0.01),
    "AdamW": lambda parameters: AdamW(parameters, lr=0.01),
    "RMSprop": lambda parameters: RMSprop(parameters, lr=0.01, momentum=0.9, centered=True),
}
SCHEDULERS = {
    "none": lambda optimizer: None,
    "LambdaLR": lambda optimizer: schedulers.LambdaLR(optimizer, lambda step: 0.9**step),
    "MultiplicativeLR": lambda optimizer: schedulers.MultiplicativeLR(optimizer, lambda step: 0.9),
    "StepLR": lambda optimizer: schedulers.StepLR(optimizer, 2),
    "MultiStepLR": lambda optimizer: schedulers.MultiStepLR(optimizer, [1, 4]),
    "ConstantLR": lambda optimizer: schedulers.ConstantLR(optimizer, 0.5, total_iters=4),
    "LinearLR": lambda optimizer: schedulers.LinearLR(optimizer, 0.1, total_iters=5),
    "ExponentialLR": lambda optimizer: schedulers.ExponentialLR(optimizer, 0.8),
    "PolynomialLR": lambda optimizer: schedulers.PolynomialLR(optimizer, 7),
    "CosineAnnealingLR": lambda optimizer: schedulers.CosineAnnealingLR(optimizer, 4),
    "CosineAnnealingWarmRestarts": lambda optimizer: schedulers.CosineAnnealingWarmRestarts(optimizer, 2),
    "CyclicLR": lambda optimizer: schedulers.CyclicLR(
        optimizer, 0.001, 0.1, 2, cycle_momentum=_has_momentum(optimizer)
    ),
    "OneCycleLR": lambda optimizer: schedulers.OneCycleLR(optimizer, 0.1, total_steps=9),
    "ReduceLROnPlateau": lambda optimizer: schedulers.ReduceLROnPlateau(optimizer, patience=0),
    "SequentialLR": lambda optimizer: schedulers.SequentialLR(
        optimizer,
        [schedulers.LinearLR(optimizer, 0.1, total_iters=2), schedulers.CosineAnnealingLR(optimizer, 5)],
        [2],
    ),
    "ChainedScheduler": lambda optimizer: schedulers.ChainedScheduler(
        [schedulers.ConstantLR(optimizer, total_iters=4), schedulers.ExponentialLR(optimizer, 0.9)]
    ),
}


def _has_momentum(optimizer):
    return "momentum" in optimizer.defaults or "betas" in optimizer.defaults


def maker(optimizer="SGD", scheduler="none", *, accumulate=1, autocast=False, dropout=0.3, scaler=False):
    """Return a `make_run`: batch norm, dropout, a shuffled order, and three kinds of random augmentation."""
    make_optimizer, make_scheduler = OPTIMIZERS[optimizer], SCHEDULERS[scheduler]

    def make_run():
        data = torch.Generator().manual_seed(7)
        images, targets = torch.randn(12, 5, generator=data), torch.randint(3, (12,), generator=data)
        model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))
        optimizer = make_optimizer(model.parameters())
        scheduler = make_scheduler(optimizer)
        grad_scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=2) if scaler else None

        def step(number):
            epoch, batch = divmod(number, 3)
            order = torch.randperm(12, generator=torch.Generator().manual_seed(epoch))  # shuffled anew each epoch
            chosen = order[4 * batch : 4 * batch + 4]
            noisy = images[chosen] + 0.1 * torch.randn(4, 5)
            noisy = noisy + random.gauss(0, 0.1) + np.random.normal(0, 0.1)  # noqa: NPY002
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                loss = nn.functional.cross_entropy(model(noisy), targets[chosen]) / accumulate
            (grad_scaler.scale(loss) if scaler else loss).backward()
            if (number + 1) % accumulate:
                return
            if scaler:
                grad_scaler.step(optimizer)
                grad_scaler.update()
            else:
                optimizer.step()
            optimizer.zero_grad()
            if isinstance(scheduler, schedulers.ReduceLROnPlateau):
                scheduler.step(loss.detach())
            elif scheduler is not None:
                scheduler.step()

        return Run(step, model, optimizer, scheduler, grad_scaler, gradients=accumulate > 1)

    return make_run


def test_every_scheduler_of_torch_is_here():
    abstract = {"LRScheduler"}
    assert set(schedulers.__all__) - abstract == set(SCHEDULERS) - {"none"}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resuming_is_bit_exact(optimizer, scheduler):
    assert verify_resume(maker(optimizer, scheduler), stop_at=3, steps=7, fresh=False).exact


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_in_the_middle_of_an_accumulation_and_with_mixed_precision(optimizer):
    make_run = maker(optimizer, "CosineAnnealingLR", accumulate=4, autocast=True)
    assert verify_resume(make_run, stop_at=6, steps=11, fresh=False).exact


def test_with_a_gradient_scaler():
    assert verify_resume(maker(scaler=True), stop_at=3, steps=7, fresh=False).exact


@pytest.mark.parametrize("stop_at", [0, 1, 6, 7])
def test_stopped_at_any_moment(stop_at):
    assert verify_resume(maker(), stop_at=stop_at, steps=7, fresh=False).exact


@pytest.mark.parametrize(
    "arguments",
    [
        {"optimizer": "SGD", "scheduler": "OneCycleLR", "scaler": True},
        {"optimizer": "AdamW", "scheduler": "ReduceLROnPlateau", "accumulate": 3, "autocast": True},
    ],
    ids=str,
)
def test_in_a_fresh_process(arguments):
    result = verify_resume(maker(**arguments), stop_at=4, steps=8)
    assert result.exact, result
    assert "in a fresh process: bit-exact" in repr(result)


def test_leaving_out_a_part_is_seen_each_time():
    make_run = maker("AdamW", "CosineAnnealingLR", accumulate=2, scaler=True)
    result = ablate(make_run, stop_at=3, steps=8, fresh=False)
    parts = {"parameters", "buffers", "optimizer", "scheduler", "scaler", "gradients"}
    parts |= {"random torch", "random numpy", "random python"}
    assert set(result.results) == {"nothing", *parts}
    assert result.results["nothing"].exact
    for part in parts - {"scaler"}:
        assert result.results[part].difference > 0, part
    rows = result.to_dict()
    assert rows["optimizer"]["step"] == 3  # the first step after resuming that moves
    assert rows["parameters"]["step"] == 2  # as soon as it is loaded
    assert "left out" in repr(result)
    assert ", optimizer: " in repr(result.plot())
    assert result.plot()._repr_png_()
    assert "<table" in result._repr_html_()


def test_no_dropout_no_need_for_torch_s_random_state():
    def make_run():
        model = nn.Linear(2, 1)
        optimizer = SGD(model.parameters(), lr=0.1)

        def step(number):
            optimizer.zero_grad()
            model(torch.full((3, 2), float(number))).square().mean().backward()
            optimizer.step()

        return Run(step, model, optimizer)

    results = ablate(make_run, stop_at=2, steps=4, fresh=False).results
    assert [part for part, result in results.items() if not result.exact] == ["parameters"]


def test_a_schedule_that_goes_by_the_last_rate_needs_no_state_of_its_own():
    results = ablate(maker("SGD", "ExponentialLR"), stop_at=3, steps=8, fresh=False).results
    assert results["scheduler"].exact  # the rate stands in the optimizer
    assert not results["optimizer"].exact


def test_own_saving_that_forgets_the_optimizer_is_caught_with_step_and_tensor():
    complete = maker("AdamW")

    def make_run():
        run = complete()
        run.save = lambda path: torch.save(run.model.state_dict(), path)
        run.load = lambda path: run.model.load_state_dict(torch.load(path))
        return run

    result = verify_resume(make_run, stop_at=3, steps=6, fresh=False)
    assert not result.exact
    assert result.step == 2
    assert result.difference > 0
    assert "it parts as soon as it is loaded, in optimizer 0.weight step" in repr(result)


def test_own_saving_in_the_wrong_order_is_caught():
    complete = maker("SGD", "LinearLR")

    def make_run():
        run = complete()
        run.save = lambda path: checkpoints.save(path, **run.parts())

        def load(path):
            saved = checkpoints.restore(path, model=run.model, optimizer=run.optimizer)
            scheduler = schedulers.LinearLR(
                run.optimizer, 0.1, total_iters=5
            )  # built after the optimizer was loaded
            scheduler.load_state_dict(saved["scheduler"])

        run.load = load
        return run

    result = verify_resume(make_run, stop_at=3, steps=6, fresh=False)
    assert result.names[0] == "optimizer group 0 lr"


def test_a_run_that_does_not_repeat_itself_is_told_so():
    counter = iter(range(1000))
    complete = maker()

    def make_run():
        run = complete()
        run.model[0].bias.data.fill_(next(counter))
        return run

    result = verify_resume(make_run, stop_at=2, steps=3, fresh=False)
    assert not result.reproducible
    assert "does not even repeat itself" in repr(result)
    assert not ablate(make_run, stop_at=2, steps=3, fresh=False).results["nothing"].exact


def test_verifying_leaves_the_random_state_alone():
    torch.manual_seed(3)
    states = torch.get_rng_state(), random.getstate()
    verify_resume(maker(), stop_at=1, steps=2, fresh=False)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="stop_at must be between 0 and the 3 steps, not 4"):
        verify_resume(maker(), stop_at=4, steps=3)
    with pytest.raises(TypeError, match="make_run must return a Run, not a Linear"):
        verify_resume(lambda: nn.Linear(1, 1), stop_at=1, steps=3)
    with pytest.raises(ValueError, match="give both save and load"):
        Run(print, nn.Linear(1, 1), save=print)


def test_what_a_fresh_process_says_is_passed_on():
    def fails_there():
        if torch.initial_seed() == 1:
            raise KeyError("no such data")
        model = nn.Linear(1, 1)
        return Run(lambda number: None, model)

    with pytest.raises(RuntimeError, match=r"exit code 1\)(.|\n)*KeyError: 'no such data'"):
        verify_resume(fails_there, stop_at=1, steps=2)


@pytest.mark.parametrize("wrong", ["another optimizer", "other parameters", "another model", "missing", "scaler"])
def test_what_does_not_fit_changes_nothing(tmp_path, wrong):
    run = maker("AdamW", "StepLR")()
    for number in range(3):
        run.step(number)
    checkpoints.save(tmp_path / "x.pt", **run.parts(), scaler=torch.amp.GradScaler("cpu", enabled=False))
    other = maker("AdamW", "StepLR")()
    other.step(0)
    parts, says = other.parts(), "Nothing was changed"
    if wrong == "another optimizer":
        parts["optimizer"], says = SGD(other.model.parameters()), "belongs to another optimizer"
    elif wrong == "other parameters":
        parts["optimizer"] = AdamW(reversed(list(other.model.parameters())))
        parts.pop("scheduler")
        says = "number 0 was '0.weight' and is '4.bias'.*remap_optimizer"
    elif wrong == "another model":
        other.model[4] = nn.Linear(8, 4)
        parts = {"model": other.model}
    elif wrong == "missing":
        checkpoints.save(tmp_path / "x.pt", model=run.model)
        says = "there is no 'optimizer' in this checkpoint; it has model, extra, torch"
    else:
        parts["scaler"] = torch.amp.GradScaler("cpu")
        says = r"scaler .* does not fit.*Nothing was changed. A scaler that was off"
    before = {name: str(value) for name, value in other.state().items()} if wrong != "another model" else {}
    weights = {name: value.clone() for name, value in other.model.state_dict().items()}
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match=says):
        checkpoints.restore(tmp_path / "x.pt", **parts)
    assert all(torch.equal(value, weights[name]) for name, value in other.model.state_dict().items())
    assert all(str(value) == before[name] for name, value in (other.state() if before else {}).items())
    assert torch.equal(state, torch.get_rng_state())


def test_an_interrupt_leaves_nothing_half_restored(tmp_path, monkeypatch):
    run, other = maker("AdamW", "StepLR")(), maker("AdamW", "StepLR")()
    run.step(0)
    checkpoints.save(tmp_path / "x.pt", **run.parts())
    before = {name: str(value) for name, value in other.state().items()}

    def interrupt(self, state):
        raise KeyboardInterrupt

    monkeypatch.setattr(schedulers.StepLR, "load_state_dict", interrupt)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.restore(tmp_path / "x.pt", **other.parts())
    assert {name: str(value) for name, value in other.state().items()} == before


def test_a_stale_optimizer_is_not_saved(tmp_path):
    run = maker("AdamW")()
    run.model[4] = nn.Linear(8, 4)
    with pytest.raises(
        ValueError, match=r"2 of the optimizer's 6 parameters are not in the model.*Build it again"
    ):
        checkpoints.save(tmp_path / "x.pt", **run.parts())
    assert list(tmp_path.iterdir()) == []


def test_a_state_dict_alone_is_recognised(tmp_path):
    model = nn.Linear(1, 1)
    torch.save(model.state_dict(), tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"looks like a state_dict alone: model.load_state_dict"):
        checkpoints.restore(tmp_path / "x.pt", model=model)
