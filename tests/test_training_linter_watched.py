"""check_loop watches a run: what is seen, with which words, and that whatever is given is looked at safely."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import clip_grad_norm_

from ftlab import runner
from ftlab.training import check_loop
from ftlab.training.linter.arguments import small_model


def forget(model, images, targets, optimizer):
    loss = F.cross_entropy(model(images), targets)
    loss.backward()
    optimizer.step()


def clear_too_late(model, images, targets, optimizer):
    loss = F.cross_entropy(model(images), targets)
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()


def step_first(model, images, targets, optimizer):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images), targets)
    optimizer.step()
    loss.backward()


def no_step(model, images, targets, optimizer):
    optimizer.zero_grad()
    F.cross_entropy(model(images), targets).backward()


def clip_last(model, images, targets, optimizer):
    optimizer.zero_grad()
    F.cross_entropy(model(images), targets).backward()
    optimizer.step()
    clip_grad_norm_(model.parameters(), 1.0)


def clip_an_empty_filter(model, images, targets, optimizer):
    params = filter(lambda p: p.requires_grad, model.parameters())
    sum(p.numel() for p in params)
    optimizer.zero_grad()
    F.cross_entropy(model(images), targets).backward()
    clip_grad_norm_(params, 1.0)
    optimizer.step()


def clip_scaled(model, images, targets, optimizer, scaler):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images), targets)
    scaler.scale(loss).backward()
    clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()


def no_scale(model, images, targets, optimizer, scaler):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images), targets)
    loss.backward()
    scaler.step(optimizer)
    scaler.update()


def schedule_first(model, images, targets, optimizer, scheduler):
    scheduler.step()
    optimizer.zero_grad()
    F.cross_entropy(model(images), targets).backward()
    optimizer.step()


def keep_graphs(model, loader, optimizer, criterion):
    total = 0
    for images, targets in loader:
        optimizer.zero_grad()
        loss = criterion(model(images), targets)
        loss.backward()
        optimizer.step()
        total += loss
    return total


def double_softmax(model, images, targets, optimizer, criterion):
    optimizer.zero_grad()
    scores = model(images)
    loss = criterion(scores.exp() / scores.exp().sum(1, keepdim=True), targets)
    loss.backward()
    optimizer.step()


def logits_as_log(model, images, targets, optimizer):
    optimizer.zero_grad()
    loss = F.nll_loss(model(images) * 1, targets)
    loss.backward()
    optimizer.step()


def left_in_eval(model, loader, val_loader, optimizer, criterion, epochs):
    for _ in range(epochs):
        for images, targets in loader:
            optimizer.zero_grad()
            criterion(model(images), targets).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            for images, _targets in val_loader:
                model(images)


def graphs_in_validation(model, loader, val_loader, optimizer, criterion):
    model.train()
    for images, targets in loader:
        optimizer.zero_grad()
        criterion(model(images), targets).backward()
        optimizer.step()
    model.eval()
    for images, targets in val_loader:
        print(criterion(model(images), targets).item())


def new_head(model, images, targets, optimizer):
    if model.fc.out_features == 3:
        model.fc = nn.Linear(4, 5)
    optimizer.zero_grad()
    F.cross_entropy(model(images), targets).backward()
    optimizer.step()


def wrong_model(images, targets):
    model, other = small_model(), small_model()
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(model(images), targets).backward()
        optimizer.step()


def rate_zero(model, images, targets):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(model(images), targets).backward()
        optimizer.step()


def without_recording(model, images, targets, optimizer):
    optimizer.zero_grad()
    with torch.no_grad():
        outputs = model(images)
    loss = F.cross_entropy(outputs, targets)
    loss.backward()
    optimizer.step()


def a_number(model, images, targets, optimizer):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images), targets).item()
    loss.backward()
    optimizer.step()


def in_autocast(model, images, targets, optimizer):
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = F.cross_entropy(model(images), targets)
        loss.backward()
    optimizer.step()


WATCHED = [
    (forget, "no zero_grad", 3, "still contain those of the step before"),
    (clear_too_late, "zero_grad between backward and step", 4, "in this order"),
    (step_first, "step before backward", 4, "in this order"),
    (no_step, "no step", 3, "in this order"),
    (clip_last, "clip after step", 5, "in this order"),
    (clip_an_empty_filter, "exhausted generator", 6, "no parameter at all"),
    (clip_scaled, "clip before unscale", 5, "in this order"),
    (no_scale, "loss not scaled", 4, "_scale is None"),
    (schedule_first, "scheduler before optimizer", 2, "in this order"),
    (keep_graphs, "total keeps graphs", 8, "earlier batches are still there"),
    (double_softmax, "softmax before cross_entropy", 4, "adds up to 1"),
    (logits_as_log, "nll_loss of logits", 3, "not to 1"),
    (left_in_eval, "eval left on", 7, "in this order"),
    (graphs_in_validation, "validation without no_grad", 9, "in this order"),
    (new_head, "optimizer before the head", 6, "in no optimizer"),
    (wrong_model, "optimizer of other parameters", 7, "has none of them"),
    (rate_zero, "step never moves anything", 6, "no parameter has moved"),
    (without_recording, "no_grad around the forward", 4, "does not require grad"),
    (a_number, "number instead of loss", 3, "has no attribute 'backward'"),
    (in_autocast, "backward in autocast", 5, "in this order"),
]


@pytest.mark.parametrize(
    ("function", "kind", "line", "says"), WATCHED, ids=lambda one: getattr(one, "__name__", "")
)
@pytest.mark.filterwarnings("ignore")
def test_the_run_shows_the_slip(function, kind, line, says):
    report = check_loop(function)
    assert report.kinds == [kind], report
    assert report.slips[0].line == line
    assert report.slips[0].seen
    assert says in report.slips[0].evidence


def test_a_clip_of_what_nobody_steps_is_seen():
    model = small_model()
    head = torch.optim.SGD(model.fc.parameters(), lr=0.1)

    def step(model, images, targets, optimizer):
        optimizer.zero_grad()
        F.cross_entropy(model(images), targets).backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    assert check_loop(step, model=model, optimizer=head).kinds == ["clip of other parameters"]
    model.requires_grad_(False)
    model.fc.requires_grad_(True)
    assert check_loop(step, model=model, optimizer=head).ok


def test_globals_and_objects_are_put_back():
    model, losses, calls = small_model(), [], 0
    optimizer = torch.optim.Adam(model.parameters())
    images, targets = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0])
    before = copy.deepcopy(model.state_dict())

    def step():
        nonlocal calls
        calls += 1
        model.eval()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        optimizer.param_groups[0]["lr"] = 5.0

    report = check_loop(step)
    assert report.steps == 5
    assert calls == 0
    assert losses == []
    assert optimizer.param_groups[0]["lr"] == 1e-3
    assert not optimizer.state
    assert model.training
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_nothing_stays_patched():
    kept = torch.autograd.backward, torch.optim.Optimizer.zero_grad, nn.Module.train, nn.utils.clip_grad_norm_
    scheduler_step = torch.optim.lr_scheduler.LRScheduler.step
    check_loop(forget)
    check_loop(a_number)
    assert kept == (
        torch.autograd.backward, torch.optim.Optimizer.zero_grad, nn.Module.train, nn.utils.clip_grad_norm_,
    )  # fmt: skip
    assert torch.optim.lr_scheduler.LRScheduler.step is scheduler_step
    assert clip_grad_norm_ is nn.utils.clip_grad_norm_
    assert "LinearLR" not in vars(torch.optim.lr_scheduler.LinearLR)
    assert "step" not in vars(torch.optim.lr_scheduler.LinearLR)


def forever(model, images):
    while True:
        model(images)


def caught_forever(model):
    while True:
        try:
            model.train()
        except Exception:
            continue


@pytest.mark.parametrize("function", [forever, caught_forever])
def test_what_does_not_end_is_ended(function, monkeypatch):
    monkeypatch.setattr(runner, "GRACE", 120.0)  # a busy machine may take its time
    report = check_loop(function, seconds=2)
    assert report.kinds == ["does not end"]
    assert report.slips[0].line
    assert "stopped after 2 seconds" in report.slips[0].evidence


def test_a_long_training_on_ones_own_data_is_no_slip():
    def train(model, loader):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        while True:
            for images, targets in loader:
                optimizer.zero_grad()
                F.cross_entropy(model(images), targets).backward()
                optimizer.step()

    data = [(torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0]))] * 3
    report = check_loop(train, model=small_model(), loader=data, seconds=1.5)
    assert report.ok, report
    assert "stopped after 1.5 seconds" in report.watched


async def awaited(model, images):
    model(images)


def yielding(model, images):
    yield model(images)


def strange(model, images, gizmo):
    gizmo(model(images))


class Callable:
    def __call__(self, model, images):
        return model(images)


NOT_RUN = [
    (print, "no function written in Python"),
    (len, "no function written in Python"),
    (awaited, "async"),
    (yielding, "generator"),
    (strange, "what is `gizmo`"),
    (Callable(), "no function written in Python"),
]


@pytest.mark.parametrize(("function", "says"), NOT_RUN, ids=[says for _, says in NOT_RUN])
def test_what_cannot_be_run_is_said(function, says):
    report = check_loop(function)
    assert says in report.watched
    assert not report.slips


def test_an_iterator_is_not_used_up():
    def train(model, loader, optimizer, criterion):
        for images, targets in loader:
            optimizer.zero_grad()
            criterion(model(images), targets).backward()
            optimizer.step()

    data = iter([1, 2, 3])
    assert "would use up" in check_loop(train, loader=data).watched
    assert list(data) == [1, 2, 3]


def test_a_function_without_source_is_watched():
    space = {"F": F}
    exec("def step(model, images, targets, optimizer):\n  F.cross_entropy(model(images), targets).backward()\n"
         "  optimizer.step()", space)  # fmt: skip
    report = check_loop(space["step"])
    assert report.kinds == ["no zero_grad"]
    assert report.slips[0].line == 2
    assert not report.was_read


def test_a_decorated_function_and_a_lambda_are_watched():
    @torch.enable_grad()
    def step(model, images, targets, optimizer):
        F.cross_entropy(model(images), targets).backward()
        optimizer.step()

    report = check_loop(step)
    assert [(one.kind, one.line) for one in report.slips] == [("no zero_grad", 3)]
    report = check_loop(lambda model, images, targets, optimizer: (
        F.cross_entropy(model(images), targets).backward(), optimizer.step(),
    ))  # fmt: skip
    assert report.kinds == ["no zero_grad"]


def test_an_error_is_passed_on_where_everything_was_given():
    def step(model, images):
        return model(images.view(-1))

    given = {"model": small_model(), "images": torch.randn(2, 3, 16, 16)}
    report = check_loop(step, **given)
    assert report.kinds == ["raises"]
    assert report.slips[0].line == 2
    assert check_loop(step).kinds == []  # it may be our batch that it cannot take
    assert "ended in line 2" in check_loop(step).watched


def test_wrong_things_are_refused_with_the_next_step():
    with pytest.raises(TypeError, match="the text of a cell"):
        check_loop(3)
    with pytest.raises(TypeError, match="its parameters are model, images, targets, optimizer"):
        check_loop(forget, modle=small_model())


@pytest.mark.parametrize(
    "text", ["", "   \n", "# nothing", "'just a string'", "x = 1", "lambda: 0", "...", "pass"]
)
def test_texts_without_a_loop_have_no_slips(text):
    assert check_loop(text).slips == []
    assert bool(check_loop(text)) is bool(text.strip())


def test_what_only_a_notebook_understands_is_left_out():
    cell = "%matplotlib inline\n!pip list\nfor x, y in loader:\n    %time loss = F.cross_entropy(model(x), y)\n"
    assert check_loop(cell).ok
    report = check_loop(
        "%%time\n" + "for x, y in loader:\n    F.cross_entropy(model(x), y).backward()\n    o.step()\n"
    )
    assert [(one.kind, one.line) for one in report.slips] == []  # nobody knows what `o` is
    report = check_loop(
        "%%time\nfor x, y in loader:\n    F.cross_entropy(model(x), y).backward()\n    opt.step()\n"
    )
    assert [(one.kind, one.line) for one in report.slips] == [("no zero_grad", 3)]


def test_a_free_variable_without_a_value_is_no_trouble():
    def step(model, images):
        return later(model(images))

    report = check_loop(step)
    assert report.kinds == ["raises"]
    assert "NameError" in report.slips[0].evidence
    later = len


@pytest.mark.parametrize("text", ["x = (", "for", "\0", "def f(:\n", "  x\n y", "(" * 500])
def test_what_is_no_python_is_said(text):
    assert check_loop(text).kinds == ["syntax error"]


def test_the_report_shows_the_source_with_marks():
    report = check_loop(forget)
    assert not report
    html = report._repr_html_()
    assert html.count("<mark") == 1
    assert "← no zero_grad" in html
    assert (
        "&lt;" in check_loop("if a < b: optimizer.step").to_dict()["source"]
        or "&lt;" in check_loop("if a < b: optimizer.step")._repr_html_()
    )
    assert "no zero_grad" in repr(report)
    assert report.to_dict()["slips"][0]["line"] == 3
    assert repr(check_loop("x = 1")).startswith("no slip")
    assert repr(check_loop("")).startswith("there was nothing")
