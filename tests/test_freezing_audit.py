"""The audit on small models: each reason, and that nothing stays changed."""

import copy
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, Adam, AdamW, RMSprop

from ftlab.freezing import audit, freeze, unfreeze

X = torch.linspace(-1, 1, 24).reshape(6, 4)


class Curved(nn.Linear):
    """A linear layer with a curve after it: right before a batch norm, a bias would have no effect."""

    def forward(self, x):
        return super().forward(x).tanh()


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(Curved(4, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 2))


def stepper(model, optimizer, set_to_none=True, forward=None):
    def step():
        model.train()
        optimizer.zero_grad(set_to_none=set_to_none)
        (forward or model)(X).square().mean().backward()
        optimizer.step()

    return step


def only(*names):
    """Return a predicate for parameters that belong to none of these modules."""
    return lambda name, parameter: name.split(".")[0] not in names


# what moves


def test_normal_training_is_gradient_statistics_and_counter():
    model = net()
    found = audit(model, stepper(model, SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)), steps=3)
    reasons = {name: "gradient" for name, _ in model.named_parameters()}
    reasons |= {"1.running_mean": "batch norm statistics", "1.running_var": "batch norm statistics"}
    assert found.moved == reasons | {"1.num_batches_tracked": "a counter"}
    assert (found.stuck, found.held, found.leaks) == ({}, [], {})


def test_frozen_parts_with_norms_that_drift_are_leaks_and_held_ones_are_not():
    model = net()
    freeze(model, only("4"), batch_norm="train")
    step = stepper(model, SGD(model.parameters(), lr=0.1))
    found = audit(model, step)
    assert found.leaks == {
        "1.running_mean": "batch norm statistics",
        "1.running_var": "batch norm statistics",
        "1.num_batches_tracked": "a counter",
    }
    assert set(found.moved) == {*found.leaks, "4.weight", "4.bias"}
    freeze(model, only("4"))
    assert audit(model, step).leaks == {}
    assert audit(model, step).held == [n for n in model.state_dict() if not n.startswith("4.")]


STALE = {  # how a parameter that was frozen by its flag alone moves on zeros
    "momentum": (lambda p: SGD(p, lr=0.1, momentum=0.9), "momentum left from before the freeze"),
    "decay": (lambda p: SGD(p, lr=0.1, weight_decay=0.1), "weight decay"),
    "both": (
        lambda p: SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
        "momentum left from before the freeze; weight decay",
    ),
    "Adam": (lambda p: Adam(p, lr=0.1), "Adam's moments left from before the freeze"),
    "AdamW": (
        lambda p: AdamW(p, lr=0.1, weight_decay=0.1),
        "Adam's moments left from before the freeze; weight decay",
    ),
    "AdamW, fused": (
        lambda p: AdamW(p, lr=0.1, weight_decay=0, fused=True),
        "Adam's moments left from before the freeze",
    ),
    "SGD, foreach": (lambda p: SGD(p, lr=0.1, weight_decay=0.1, foreach=True), "weight decay"),
    "NAdam": (lambda p: torch.optim.NAdam(p, lr=0.1), "Adam's moments left from before the freeze"),
    "RMSprop": (
        lambda p: RMSprop(p, lr=0.1, momentum=0.9, weight_decay=0.1),
        "momentum left from before the freeze; weight decay",
    ),
    "ASGD": (lambda p: torch.optim.ASGD(p, lr=0.1, lambd=0.1), "the optimizer's own state"),
}


@pytest.mark.parametrize("name", STALE)
def test_frozen_by_flag_after_training_with_gradients_of_zeros(name):
    make, reason = STALE[name]
    model = net()
    optimizer = make(model.parameters())
    step = stepper(model, optimizer, set_to_none=False)
    step()
    model[0].requires_grad_(False)
    found = audit(model, step, steps=3)
    assert {n: found.moved[n] for n in ("0.weight", "0.bias")} == {"0.weight": reason, "0.bias": reason}
    assert set(found.leaks) == {"0.weight", "0.bias"}
    model[0].weight.grad = model[0].bias.grad = None  # the cure
    assert audit(model, step, steps=3).leaks == {}


@pytest.mark.parametrize("name", ["momentum", "Adam"])
def test_without_training_before_there_is_nothing_left_to_move_it(name):
    """The partner of the test above: the same model, flags and zeros, but no history."""
    model = net()
    model[0].requires_grad_(False)
    optimizer = STALE[name][0](model.parameters())
    for parameter in model[0].parameters():
        parameter.grad = torch.zeros_like(parameter)
    assert audit(model, stepper(model, optimizer, set_to_none=False), steps=3).leaks == {}


def test_momentum_that_weight_decay_itself_has_filled_is_not_from_before():
    model = net()
    model[0].requires_grad_(False)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for parameter in model[0].parameters():
        parameter.grad = torch.zeros_like(parameter)
    found = audit(model, stepper(model, optimizer, set_to_none=False), steps=3)
    assert found.leaks == {"0.weight": "weight decay", "0.bias": "weight decay"}


def test_frozen_between_backward_and_step():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        model(X).square().mean().backward()
        model[0].requires_grad_(False)
        optimizer.step()

    assert audit(model, step).leaks == dict.fromkeys(
        ["0.weight", "0.bias"], "a gradient left from before the freeze"
    )
    assert model[0].weight.requires_grad, "the flag that the step cleared is back"

    def right():
        optimizer.zero_grad()
        model(X).square().mean().backward()
        freeze(model, "0")
        optimizer.step()

    assert audit(model, right).leaks == {}
    assert model[0].weight.requires_grad


def test_trainable_but_driven_by_momentum_alone():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    stepper(model, optimizer)()

    def step():
        optimizer.zero_grad(set_to_none=False)
        (model(X) * 0).mean().backward()
        optimizer.step()

    assert audit(model, step).moved["4.weight"] == "momentum left from earlier steps"


def test_several_steps_with_different_reasons_are_told_in_order():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(X).square().mean().backward()
    model[0].requires_grad_(False)

    def step():
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    found = audit(model, step, steps=2)
    assert found.moved["0.weight"] == (
        "a gradient left from before the freeze; momentum left from before the freeze"
    )
    assert found.moved["4.weight"] == "gradient; momentum left from earlier steps"


class Twins(nn.Module):
    def __init__(self, share):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.second.weight = share(self.first.weight)

    def forward(self, x):
        return self.second(self.first(x).tanh())


def test_a_tie_by_identity_freezes_and_moves_as_one():
    model = Twins(lambda weight: weight)
    step = stepper(model, SGD(model.parameters(), lr=0.1))
    assert audit(model, step).moved == {"first.weight": "gradient", "second.weight": "a tie to first.weight"}
    model.extra = nn.Linear(1, 1)
    freeze(model, "second")
    assert audit(model, lambda: None).held == ["first.weight", "second.weight"]


@pytest.mark.parametrize("all_in_optimizer", [True, False])
def test_a_tie_by_memory_moves_the_end_that_is_frozen(all_in_optimizer):
    model = Twins(lambda weight: nn.Parameter(weight.detach(), requires_grad=False))
    optimizer = SGD([p for p in model.parameters() if all_in_optimizer or p.requires_grad], lr=0.1)
    found = audit(model, stepper(model, optimizer))
    assert found.moved == {"first.weight": "gradient", "second.weight": "a tie to first.weight"}
    assert found.leaks == {"second.weight": "a tie to first.weight"}
    assert model.second.weight.data_ptr() == model.first.weight.data_ptr()


def test_neighbours_in_one_piece_of_memory_are_no_tie():
    flat = torch.randn(32)
    model = Twins(lambda weight: weight)
    model.first.weight = nn.Parameter(flat[:16].view(4, 4))
    model.second.weight = nn.Parameter(flat[16:].view(4, 4), requires_grad=False)
    inner = stepper(model, SGD(model.parameters(), lr=0.1))

    def step():
        inner()
        model.second.weight.data.add_(1)

    assert audit(model, inner).moved == {"first.weight": "gradient"}
    assert audit(model, step).moved == {"first.weight": "gradient", "second.weight": "written directly"}


def test_a_norm_shared_by_memory_is_a_tie_as_well():
    model = net()
    model.other = nn.BatchNorm1d(4)
    model.other.running_mean = model[1].running_mean
    model.view = nn.Module()
    model.view.register_buffer("mean", model[1].running_mean[:2])
    model.forward = lambda x: model[4](model[1](model[0](x)))
    found = audit(model, stepper(model, SGD(model.parameters(), lr=0.1)))
    assert found.moved["1.running_mean"] == "batch norm statistics"
    assert found.moved["other.running_mean"] == "a tie to 1.running_mean"
    assert found.moved["view.mean"] == "a tie to 1.running_mean"


@pytest.mark.parametrize(
    "write",
    [
        lambda model: model[0].weight.data.add_(1),
        lambda model: model.load_state_dict({k: v + 1 for k, v in model.state_dict().items()}),
        lambda model: setattr(model[0].weight, "data", model[0].weight.data + 1),
    ],
)
def test_what_the_step_writes_itself(write):
    model = net()
    freeze(model, only("4"))
    inner = stepper(model, SGD(model.parameters(), lr=0.1))

    def step():
        inner()
        write(model)

    before, address = model[0].weight.clone(), model[0].weight.data_ptr()
    assert audit(model, step).leaks["0.weight"] == "written directly"
    assert torch.equal(before, model[0].weight)
    assert model[0].weight.data_ptr() == address


def test_statistics_that_are_also_written_have_both_reasons():
    model = net()
    inner = stepper(model, SGD(model.parameters(), lr=0.1))

    def step():
        inner()
        model[1].running_mean.zero_()

    found = audit(model, step, steps=2)
    assert found.moved.get("1.running_mean") is None, "zeroed at the end of each step: nothing has moved"
    model[1].running_mean.fill_(3.0)
    assert audit(model, step, steps=2).moved["1.running_mean"] == "batch norm statistics; written directly"
    assert audit(model, step).moved["1.running_var"] == "batch norm statistics"


def test_a_manual_update_is_written_directly():
    model = net()

    def step():
        model.zero_grad()
        model(X).square().mean().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad

    assert audit(model, step).moved["4.bias"] == "written directly"


def test_a_buffer_that_its_own_forward_writes():
    model = net()
    model[0] = nn.utils.parametrizations.spectral_norm(model[0])
    found = audit(model, stepper(model, SGD(model.parameters(), lr=0.1)))
    assert found.moved["0.parametrizations.weight.0._u"] == "written in its module's forward"


def test_replaced_added_and_removed_tensors():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    head, norm = model[4], model[1]

    def step():
        stepper(model, optimizer)()
        model[4] = nn.Linear(4, 3)
        model[1] = nn.Identity()
        model.register_buffer("seen", torch.ones(1))

    found = audit(model, step)
    assert found.moved["4.weight"] == "replaced by another object"
    assert found.moved["1.running_mean"] == found.moved["1.weight"] == "removed during the step"
    assert found.moved["seen"] == "added during the step"
    assert model[4] is head
    assert model[1] is norm
    assert "seen" not in dict(model.named_buffers())


def test_nan_is_a_change_once_and_not_for_ever():
    model = net()
    step = stepper(model, SGD(model.parameters(), lr=float("nan")))
    assert audit(model, step, keep=True).moved["0.weight"] == "gradient"
    model[0].requires_grad_(False)
    assert "0.weight" in audit(model, step).held


def test_lbfgs_makes_its_gradients_inside_of_step():
    model = net()
    model[0].requires_grad_(False)
    optimizer = torch.optim.LBFGS([p for p in model.parameters() if p.requires_grad], lr=0.1, max_iter=2)

    def closure():
        optimizer.zero_grad()
        loss = model(X).square().mean()
        loss.backward()
        return loss

    before = copy.deepcopy(optimizer.state_dict())
    found = audit(model, lambda: optimizer.step(closure), steps=2)
    assert found.moved["4.weight"] == "gradient"
    assert "0.weight" in found.held
    assert str(optimizer.state_dict()) == str(before)


def test_moments_that_the_optimizer_does_not_use_are_no_reason():
    model = net()
    optimizer = AdamW(model.parameters(), lr=0.1, betas=(0.0, 0.9), weight_decay=0.1)
    step = stepper(model, optimizer, set_to_none=False)
    step()
    model[0].requires_grad_(False)
    assert audit(model, step).moved["0.weight"] == "weight decay"


def test_sparse_gradients():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(6, 3, sparse=True), nn.Flatten(), nn.Linear(6, 2))
    tokens = torch.tensor([[0, 1], [2, 3]])
    optimizers = torch.optim.SparseAdam([model[0].weight], lr=0.1), SGD(model[2].parameters(), lr=0.1)

    def step():
        for optimizer in optimizers:
            optimizer.zero_grad()
        model(tokens).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()

    step()
    before = model[0].weight.clone(), model[0].weight.grad.to_dense()
    assert audit(model, step).moved == dict.fromkeys(["0.weight", "2.weight", "2.bias"], "gradient")
    assert torch.equal(before[0], model[0].weight)
    assert torch.equal(before[1], model[0].weight.grad.to_dense())


# what does not move


def stuck(model, optimizer, **more):
    return audit(model, stepper(model, optimizer, **more)).stuck


def test_in_no_group_and_the_tensors_that_are_there_instead():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    model[4] = nn.Linear(4, 2)
    found = audit(model, stepper(model, optimizer))
    assert found.stuck == dict.fromkeys(["4.weight", "4.bias"], "in no optimizer group")
    assert found.strangers == 2
    assert "holds 2 tensors that are not in this model: was a part replaced" in repr(found)
    optimizer.add_param_group({"params": model[4].parameters()})
    assert audit(model, stepper(model, optimizer)).stuck == {}


def test_learning_rate_zero_alone_and_with_another_reason():
    model = net()
    optimizer = SGD([{"params": model[0].parameters(), "lr": 0.0}, {"params": model[4].parameters(), "lr": 0.1}])
    assert stuck(model, optimizer)["0.weight"] == "learning rate 0"
    assert stuck(model, optimizer)["3.weight"] == "in no optimizer group"

    def forward(x):
        with torch.no_grad():
            x = model[0](x)
        return model[4](x)

    assert (
        stuck(model, optimizer, forward=forward)["0.weight"] == "no gradient: cut off by no_grad; learning rate 0"
    )


@pytest.mark.parametrize(
    ("cut", "reason"),
    [
        (lambda x: x.detach(), "no gradient: cut off by detach"),
        (lambda x: x.data, "no gradient: cut off by detach"),
        (lambda x: torch.detach(x), "no gradient: cut off by detach"),
        (lambda x: x.sign().clone(), None),  # a gradient of zeros goes through
        (lambda x: torch.tensor(x.tolist()), "no gradient: used, but backward did not reach it"),
    ],
)
def test_where_the_way_back_is_cut(cut, reason):
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    found = stuck(model, optimizer, forward=lambda x: model[3:](cut(model[:3](x))))
    names = ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert found == dict.fromkeys(names, reason or "its gradient is exactly zero")


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_no_grad_around_a_middle_block_cuts_off_what_lies_before(guard):
    model = net()
    model[3].requires_grad_(False)
    optimizer = SGD(model.parameters(), lr=0.1)

    def forward(x):
        x = model[:3](x)
        with guard():
            x = model[3](x)
        return model[4](x.clone())

    names = ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert stuck(model, optimizer, forward=forward) == dict.fromkeys(names, "no gradient: cut off by no_grad")
    assert stuck(model, optimizer) == {}, "the flag alone lets gradients through"


def test_never_used_and_used_without_effect_on_the_loss():
    model = net()
    model.spare = nn.Linear(4, 4)
    model.auxiliary = nn.Linear(4, 2)
    optimizer = SGD(model.parameters(), lr=0.1)

    def forward(x):
        x = model[0](x)
        model.auxiliary(x)
        return model[4](model[3](model[1](x)))

    found = stuck(model, optimizer, forward=forward)
    assert found["spare.weight"] == "no gradient: never used in the forward"
    assert found["auxiliary.bias"] == "no gradient: used, but backward did not reach it"
    assert len(found) == 4


def test_a_gradient_of_exactly_zero():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    nn.init.constant_(model[0].bias, -100.0)
    found = stuck(model, SGD(model.parameters(), lr=0.1))
    assert found["0.weight"] == found["0.bias"] == "its gradient is exactly zero"


@pytest.mark.parametrize("set_to_none", [True, False])
def test_a_gradient_that_is_cleared_too_early(set_to_none):
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)

    def step():
        model(X).square().mean().backward()
        optimizer.zero_grad(set_to_none=set_to_none)
        optimizer.step()

    assert audit(model, step).stuck["4.weight"] == "its gradient was cleared before the optimizer stepped"


def test_reasons_that_change_from_step_to_step_are_all_told():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.0)
    parts = iter([model, model[4]])

    def step():
        optimizer.zero_grad()
        next(parts)(X).square().mean().backward()
        optimizer.step()

    assert audit(model, step, steps=2).stuck["0.weight"] == (
        "learning rate 0; no gradient: used, but backward did not reach it"
    )


def test_no_step_at_all_and_a_step_that_a_scaler_leaves_out():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    found = audit(model, lambda: model(X).square().mean().backward())
    assert found.stuck["4.weight"] == "its optimizer did not step"

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)

    def step():
        optimizer.zero_grad()
        scaler.scale(model(X * float("inf")).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()

    found = audit(model, step)
    assert found.stuck["4.weight"] == "its optimizer did not step; its gradient is not finite"


def test_an_optimizer_left_over_from_an_earlier_try_is_not_taken_for_the_one_in_use():
    model = net()
    left_over = SGD(model.parameters(), lr=0.1)
    step = stepper(model, SGD(model[4].parameters(), lr=0.1))
    assert audit(model, step).stuck["0.weight"] == "in no optimizer group"
    assert audit(model, step, optimizer=left_over).stuck["0.weight"] == "its optimizer did not step"


def test_an_update_that_is_too_small_for_bfloat16():
    model = nn.Linear(4, 2, bias=False).bfloat16()
    nn.init.ones_(model.weight)
    optimizer = SGD(model.parameters(), lr=1e-6)

    def step():
        optimizer.zero_grad()
        model(X.bfloat16()).sum().backward()
        optimizer.step()

    assert set(audit(model, step).stuck.values()) <= {
        "the update is too small for its precision",
        "its gradient is exactly zero",
    }
    assert "too small" in audit(model, step).stuck["weight"]
    optimizer.param_groups[0]["lr"] = 1.0
    assert audit(model, step).moved == {"weight": "gradient"}


def test_moved_and_put_back():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    saved = copy.deepcopy(model.state_dict())

    def step():
        stepper(model, optimizer)()
        model.load_state_dict(saved)

    assert audit(model, step).stuck["4.weight"] == "it moved and was put back"


def test_gradients_gathered_over_several_steps():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    calls = []

    def step():
        calls.append(1)
        model(X).square().mean().backward()
        if len(calls) % 4 == 0:
            optimizer.step()
            optimizer.zero_grad()

    assert "0.weight" in audit(model, step, steps=4).moved
    assert audit(model, step).stuck["0.weight"] == "its optimizer did not step"


def test_two_optimizers_each_with_its_part():
    model = net()
    first, second = SGD(model[0].parameters(), lr=0.1), Adam(model[4].parameters(), lr=0.1)

    def step():
        for optimizer in (first, second):
            optimizer.zero_grad()
        model(X).square().mean().backward()
        first.step()
        second.step()

    found = audit(model, step)
    assert found.moved["0.weight"] == found.moved["4.weight"] == "gradient"
    assert found.stuck == dict.fromkeys(["1.weight", "1.bias", "3.weight", "3.bias"], "in no optimizer group")
    assert found.strangers == 0


# what stays as it was


def everything(model, optimizer, *more):
    """Return all that an audit must not change, by value and by identity."""
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {
        "values": {n: t.detach().clone().tolist() for n, t in tensors},
        "identity": {n: (id(t), t.data_ptr()) for n, t in tensors},
        "flags": {n: (t.requires_grad, id(t.grad), str(t.grad)) for n, t in tensors},
        "modules": {n: (id(m), m.training, sorted(vars(m))) for n, m in model.named_modules()},
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "tensor hooks": [len(p._post_accumulate_grad_hooks or {}) for _, p in tensors],
        "optimizer": str(optimizer.state_dict()),
        "others": [str(one.state_dict()) for one in more],
        "random": (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()),  # noqa: NPY002
    }


def busy():
    """Return a model in the middle of training, with everything around it, and a step that touches it all."""
    model = net()
    model.other = nn.Linear(4, 4)
    model.other.weight = model[3].weight
    model.drop = nn.Dropout(0.5)
    freeze(model, "0", "1")
    optimizer = AdamW(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    scaler = torch.amp.GradScaler("cpu")

    def step():
        unfreeze(model)
        model.train()
        optimizer.zero_grad(set_to_none=False)
        out = model.drop(model[:5](X + random.random() + np.random.rand()))  # noqa: NPY002
        scaler.scale(out.square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        model.eval()
        model[4] = nn.Linear(4, 4)
        model.other.weight = nn.Parameter(torch.zeros(4, 4))
        optimizer.add_param_group({"params": model[4].parameters()})
        model.half()

    model[:5](X).sum().backward()
    optimizer.step()
    scheduler.step()
    return model, optimizer, scheduler, scaler, step


@pytest.mark.parametrize("given", [True, False])
def test_everything_is_as_before(given):
    model, optimizer, scheduler, scaler, step = busy()
    before = everything(model, optimizer, scheduler, scaler)
    found = audit(model, step, optimizer=optimizer if given else None)
    after = everything(model, optimizer, scheduler, scaler)
    for what in before:
        assert before[what] == after[what], what
    assert found.moved["4.weight"] == "replaced by another object"


def test_everything_is_as_before_when_the_step_raises():
    model, optimizer, scheduler, scaler, step = busy()
    before = everything(model, optimizer, scheduler, scaler)

    def fails():
        step()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit(model, fails)
    after = everything(model, optimizer, scheduler, scaler)
    for what in before:
        assert before[what] == after[what], what


def test_with_keep_it_is_as_if_the_steps_had_been_run():
    model, twin = net(), net()
    optimizers = [AdamW(m.parameters(), lr=0.1) for m in (model, twin)]
    audit(model, stepper(model, optimizers[0]), steps=2, keep=True)
    for _ in range(2):
        stepper(twin, optimizers[1])()
    assert everything(model, optimizers[0])["values"] == everything(twin, optimizers[1])["values"]
    assert str(optimizers[0].state_dict()) == str(optimizers[1].state_dict())
    assert everything(model, optimizers[0])["hooks"] == [0] * len(list(model.modules()))
    assert not any(everything(model, optimizers[0])["tensor hooks"])


def test_an_optimizer_that_also_trains_something_else_leaves_that_alone_too():
    model, other = net(), net()
    optimizer = SGD([*model.parameters(), *other.parameters()], lr=0.1)
    before = other[0].weight.clone()
    audit(model, stepper(model, optimizer, forward=lambda x: model(x) + other(x)))
    assert torch.equal(before, other[0].weight)


def test_a_compiled_model_is_audited_and_stays_compiled():
    torch.compiler.reset()
    model = net()
    compiled = torch.compile(model, backend="eager")
    optimizer = SGD(compiled.parameters(), lr=0.1)
    step = stepper(compiled, optimizer)
    step()
    freeze(compiled, lambda name, parameter: not name.startswith("4"), batch_norm="train")
    found = audit(compiled, step)
    assert found.leaks == {
        "_orig_mod.1.running_mean": "batch norm statistics",
        "_orig_mod.1.running_var": "batch norm statistics",
        "_orig_mod.1.num_batches_tracked": "a counter",
    }
    assert found.moved["_orig_mod.4.weight"] == "gradient"
    before = model[4].weight.clone()
    step()
    assert not torch.equal(before, model[4].weight)


# errors


def test_everything_frozen_is_explained():
    model = net()
    freeze(model)
    with pytest.raises(RuntimeError, match="does not require grad") as caught:
        audit(model, stepper(model, SGD(model.parameters(), lr=0.1)))
    assert caught.value.__notes__ == [
        "ftlab: none of the 8 parameters is trainable, so backward has nothing to do; "
        "unfreeze the head, which is probably '4'"
    ]


def test_bad_arguments_say_the_next_step():
    model = net()
    with pytest.raises(TypeError, match=r"not a NoneType: write audit\(model, step\)"):
        audit(model, stepper(model, SGD(model.parameters(), lr=0.1))())
    with pytest.raises(ValueError, match="1 or more, not 0"):
        audit(model, lambda: None, steps=0)
    with pytest.warns(FutureWarning, match="deprecated"):
        scripted = torch.jit.script(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="audit the model that it was made from"):
        audit(scripted, lambda: None)
    with pytest.raises(TypeError, match="freeze first, then script"):
        freeze(scripted)
    with pytest.raises(ValueError, match=r"'1\.weight' has no values yet"):
        audit(nn.Sequential(nn.Identity(), nn.LazyLinear(2)), lambda: None)


# the report


def test_the_table_adds_up_and_gives_advice():
    model = net()
    freeze(model, only("4"), batch_norm="train")
    found = audit(model, stepper(model, SGD(model.parameters(), lr=0.1)))
    text = repr(found)
    assert text.startswith("After 1 step 5 of 11 tensors have moved (3 of the 9 frozen ones); 0 trainable ones")
    assert "batch norm statistics (2), a counter (1)" in text
    assert "hold the norms in eval mode: ftlab.freezing.freeze" in text
    rows = found.table().to_dict()
    for verdict in ("moved", "stuck", "held"):
        assert sum(row[verdict] for row in rows) == len(getattr(found, verdict))
    assert sum(row[v] for row in rows for v in ("moved", "stuck", "held")) == len(model.state_dict())
    assert "<table>" in found._repr_html_()
    assert len(found.to_dict()["tensors"]) == 11


def test_the_change_is_measured():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.5)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    found = audit(model, stepper(model, optimizer), keep=True)
    for tensor in found.tensors:
        if tensor.kind == "parameter":
            now = dict(model.named_parameters())[tensor.name]
            assert tensor.change == (now - before[tensor.name]).abs().max().item() > 0


def test_the_picture_shows_every_tensor_and_says_what_it_shows():
    model = net()
    freeze(model, only("4"), batch_norm="train")
    found = audit(model, stepper(model, SGD(model.parameters(), lr=0.1)))
    picture = found.plot()
    assert sum(len(bars.patches) for bars in picture.axes[0].containers) == len(found.tensors)
    labels = [text.get_text() for text in picture.legends[0].get_texts()]
    assert labels == ["moved as meant (2)", "moved though frozen (3)", "held (6)"]
    assert repr(picture) == found.table().title
    assert picture._repr_png_()[:4] == b"\x89PNG"


def test_functional_use_of_a_parameter_is_seen():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.spare = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))

        def forward(self, x):
            return F.linear(x, self.scale.detach().expand(2, 4)) + self.scale.sum() * 0

    model = Bare()
    found = stuck(model, SGD(model.parameters(), lr=0.1))
    assert found == {"scale": "its gradient is exactly zero", "spare": "no gradient: never used in the forward"}
