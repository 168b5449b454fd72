"""The training loop: it trains what was asked, in the modes it finds, and ends cleanly whatever happens."""

import warnings

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR
from torch.utils.data import TensorDataset

from ftlab.modes import keep_modes
from ftlab.random_state import keep_random_state
from ftlab.training import Evaluation, evaluate, fit, loader


def task(images=48, classes=3):
    """Return images whose class is written in their first channel: learnable in a few steps."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(images) % classes
    pictures = torch.randn(images, 3, 4, 4, generator=generator) * 0.3
    pictures[:, 0] += labels.view(-1, 1, 1)
    return TensorDataset(pictures, labels)


def network(classes=3):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(32, classes)
    )


def run(model, **arguments):
    arguments = {"epochs": 2, "progress": False, "optimizer": SGD(model.parameters(), lr=0.05), **arguments}
    return fit(model, loader(task(), batch_size=12, shuffle=True), loader(task(), batch_size=12), **arguments)


def state(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(one, two):
    return all(torch.equal(one[key], two[key]) for key in one)


def test_it_learns():
    history = run(network(), epochs=8)
    assert history.rows[-1]["val accuracy"] > 0.9 > history.rows[0]["train accuracy"]


def test_the_numbers_of_the_history_are_those_of_pytorch():
    model = network()
    history = run(model)
    model.eval()
    pictures, labels = task().tensors
    with torch.no_grad():
        logits = model(pictures)
    last = history.rows[-1]
    assert last["val loss"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), abs=1e-5)
    assert last["val accuracy"] == pytest.approx((logits.argmax(1) == labels).float().mean().item())


def test_one_epoch_is_the_plain_loop():
    ours, plain = network(), network()
    optimizer = SGD(plain.parameters(), lr=0.05, momentum=0.9)
    with keep_random_state(seed=5):
        for pictures, labels in loader(task(), batch_size=12, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(plain(pictures), labels).backward()
            optimizer.step()
    fit(
        ours,
        loader(task(), batch_size=12, shuffle=True),
        epochs=1,
        optimizer=SGD(ours.parameters(), lr=0.05, momentum=0.9),
        seed=5,
        progress=False,
    )
    assert same(ours.state_dict(), plain.state_dict())


def test_same_seed_same_numbers_and_another_seed_other_numbers():
    first, second, other = run(network(), seed=1), run(network(), seed=1), run(network(), seed=2)
    assert first.rows == second.rows != other.rows


def test_a_seed_leaves_the_random_state_outside_alone():
    model = network()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    run(model, seed=1)
    assert torch.rand(1) == expected


def test_a_batch_norm_in_eval_mode_stays_there():
    model = network()
    model[1].eval()
    before = state(model[1])
    run(model)
    assert [module.training for module in model] == [True, False, True, True, True, True]
    assert torch.equal(model[1].running_mean, before["running_mean"])


def test_a_batch_norm_in_train_mode_moves():  # the partner
    model = network()
    before = state(model[1])
    run(model)
    assert not torch.equal(model[1].running_mean, before["running_mean"])


def test_a_model_in_eval_mode_is_said():
    with pytest.warns(UserWarning, match="whole model is in eval mode"):
        run(network().eval())


def test_the_best_weights_are_kept_by_value():
    model = network()
    history = run(model, epochs=4)
    model.load_state_dict(history.best_state_dict)
    measured = evaluate(model, loader(task()), progress=False)
    assert measured.accuracy == pytest.approx(history.best["val accuracy"])
    run(model)
    assert not same(history.best_state_dict, model.state_dict())


@pytest.mark.parametrize("how", ["ctrl-c", "should_stop"])
def test_a_stop_keeps_the_history_and_the_modes(how):
    model = network()
    model[1].eval()
    asked = []

    def stop():
        asked.append(1)
        if how == "ctrl-c" and len(asked) == 13:  # in the validation of the second epoch
            raise KeyboardInterrupt
        return how == "should_stop" and len(asked) == 13

    history = run(model, epochs=5, should_stop=stop)
    assert history.epochs == 1
    assert history.stopped == "stopped by hand"
    assert "ended early: stopped by hand" in repr(history)
    assert [module.training for module in model] == [True, False, True, True, True, True]


def test_a_loss_that_is_no_number_ends_the_training_before_it_reaches_the_parameters():
    model = network()
    history = run(model, optimizer=SGD(model.parameters(), lr=1e30), epochs=3)
    assert "loss became" in history.stopped
    assert "smaller learning rate" in history.stopped
    poisoned = network()
    before = state(poisoned)
    history = fit(
        poisoned.eval().train(),
        loader(TensorDataset(torch.full((4, 3, 4, 4), torch.nan), torch.zeros(4, dtype=torch.long))),
        epochs=1,
        optimizer=SGD(poisoned.parameters()),
        progress=False,
    )
    assert "nan" in history.stopped
    assert same({k: v for k, v in before.items() if "running" not in k and "num" not in k}, poisoned.state_dict())


def test_schedulers_are_stepped_once_per_epoch():
    model = network()
    optimizer = SGD(model.parameters(), lr=1.0)
    history = run(model, epochs=3, optimizer=optimizer, scheduler=StepLR(optimizer, 1, gamma=0.1))
    assert [row["lr"] for row in history.rows] == pytest.approx([1.0, 0.1, 0.01])
    plateau = ReduceLROnPlateau(SGD(model.parameters(), lr=0.0), patience=0)  # at rate 0 nothing gets better
    run(model, epochs=3, optimizer=plateau.optimizer, scheduler=plateau)
    assert plateau.num_bad_epochs + plateau.last_epoch >= 3


def test_hooks_are_called_with_the_epoch_before_it_begins():
    seen = []
    run(network(), epochs=3, on_epoch_start=[seen.append, lambda epoch: seen.append(-epoch)])
    assert seen == [0, 0, 1, -1, 2, -2]


def frozen(model):
    return model.requires_grad_(False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: (frozen(network()), SGD(network().parameters())), "every parameter of the model is frozen"),
        (lambda: (network(), SGD(network().parameters())), "owns none of the 6 trainable.*built before the head"),
        (
            lambda: ((model := network(2)), SGD(model.parameters())),
            "values from 0 to 2.*knows the classes 0 to 1",
        ),
    ],
)
def test_what_cannot_train_is_refused_and_nothing_has_changed(make, message):
    model, optimizer = make()
    before = state(model)
    with pytest.raises(ValueError, match=message):
        run(model, optimizer=optimizer)
    assert same({k: v for k, v in before.items() if "1." not in k}, model.state_dict())


def test_parameters_that_the_optimizer_does_not_own_are_named():
    model = network()
    with pytest.warns(
        UserWarning, match="4 trainable parameters are in no group.*0.weight, 0.bias, 1.weight, ..."
    ):
        run(model, optimizer=SGD(model[5].parameters()))


def test_an_empty_dataset_is_named():
    with pytest.raises(ValueError, match="TensorDataset has no images"):
        loader(TensorDataset(torch.zeros(0, 3, 4, 4), torch.zeros(0)))


# evaluate: looking never changes the model


def test_evaluate_changes_nothing():
    model = network()
    model[3].eval()
    run(model, epochs=1)
    before, modes = state(model), [module.training for module in model.modules()]
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    torch.manual_seed(9)
    random_before = torch.get_rng_state()
    measured = evaluate(model, loader(task()), progress=False)
    assert same(before, model.state_dict())
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(a, p.grad) for a, p in zip(gradients, model.parameters(), strict=True))
    assert not measured.probabilities.requires_grad
    assert torch.equal(torch.get_rng_state(), random_before)


def test_keep_modes_puts_back_after_an_error_too():
    model = network()
    model[1].eval()

    def fails():
        with keep_modes(model):
            model.eval()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert [module.training for module in model] == [True, False, True, True, True, True]


def test_the_confusion_matrix_counts():
    targets = torch.tensor([0, 0, 1, 2])
    probabilities = torch.tensor([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.3, 0.7, 0], [0.6, 0, 0.4]])
    measured = Evaluation(0.5, targets, probabilities, ["a", "b", "c"])
    assert measured.confusion.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert measured.worst() == [1, 3]
    assert measured.accuracy == 0.5
    assert repr(measured) == "accuracy 50.0% and loss 0.500 on 4 images"


def test_the_bar_is_shown_and_goes_away(capsys):
    run(network(), epochs=1, progress=True)
    shown = capsys.readouterr().err
    assert "0/4" in shown
    assert shown.endswith(" \r")  # the line was wiped


def test_no_warning_in_an_ordinary_run():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(network())


def test_a_validation_does_not_change_the_numbers_of_the_training():
    with_val, without = network(), network()
    run(with_val, seed=1)
    batches = loader(task(), batch_size=12, shuffle=True)
    fit(without, batches, epochs=2, optimizer=SGD(without.parameters(), lr=0.05), seed=1, progress=False)
    assert same(with_val.state_dict(), without.state_dict())


SLOW = """
import time, torch
from torch import nn
from torch.utils.data import TensorDataset
from ftlab.training import fit, loader

class Slow(nn.Linear):
    def forward(self, x):
        if not self.training:
            print("validating", flush=True)
        time.sleep(0.05)
        return super().forward(x)

model = Slow(3, 2)
batches = loader(TensorDataset(torch.randn(8, 3), torch.arange(8) % 2), batch_size=4)
history = fit(model, batches, batches, epochs=1000, optimizer=torch.optim.SGD(model.parameters()), progress=False)
print("ended:", history.stopped, history.epochs >= 1, model.training)
"""


def test_the_stop_button_of_a_real_kernel_ends_it_with_the_history():
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(startup_timeout=240)
    try:
        client.execute(SLOW)
        seen, pressed = "", False
        while "ended:" not in seen:
            message = client.get_iopub_msg(timeout=240)
            seen += message["content"].get("text", "")
            assert message["msg_type"] != "error", message["content"]
            if seen.count("validating") >= 4 and not pressed:  # from the second epoch on
                manager.interrupt_kernel()
                pressed = True
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert "ended: stopped by hand True True" in seen
