"""Loops of many kinds of people, each read as a text: every slip is named in its line, and nothing else is."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import LBFGS, SGD

from ftlab.training import check_loop
from ftlab.training.linter.arguments import small_model
from tests.people.right import RIGHT
from tests.people.slips import SLIPS

LOOP = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.act = nn.Softmax(1)
    def forward(self, x):
{forward}
    def predict(self, x):
        return self.act(self.forward(x))
net = Net().to(device)
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(net.parameters(), 0.1)
for x, y in loader:
    optimizer.zero_grad()
    out = {out}
    loss = criterion(out, {targets})
    loss.backward()
    optimizer.step()
"""


def named(source):
    """Return the slips of a source, each with the text of its line."""
    lines = source.splitlines()
    return [(one.kind, lines[one.line - 1].strip()) for one in check_loop(source).slips]


def loop(forward="return self.fc(x)", out="net(x)", targets="y"):
    """Return a source with a model of its own."""
    body = "\n".join(f"        {line}" for line in forward.splitlines())
    return LOOP.format(forward=body, out=out, targets=targets)


@pytest.mark.parametrize("name", RIGHT)
def test_nothing_is_wrong(name):
    assert named(RIGHT[name]) == []


@pytest.mark.parametrize("name", SLIPS)
def test_the_slip_is_named_in_its_line(name):
    slips, source = SLIPS[name]
    assert named(source) == slips


@pytest.mark.parametrize(
    "forward",
    [
        "return F.softmax(self.fc(x), dim=1)",
        "x = self.fc(x)\nreturn x.softmax(-1)",
        "if self.deep:\n    x = self.more(x)\nx = self.fc(x)\nreturn torch.softmax(x, 1)",
    ],
)
def test_a_softmax_at_the_end_of_the_models_own_forward_is_found(forward):
    line = next(line.strip() for line in forward.splitlines() if "softmax" in line)
    assert named(loop(forward)) == [("softmax before cross_entropy", line)]


@pytest.mark.parametrize(
    "forward",
    [
        "return self.fc(x)",
        "x = self.fc(x)\nif self.training:\n    return x\nreturn x.softmax(1)",
        "x = self.fc(x)\nif not self.training:\n    x = x.softmax(1)\nreturn x",
        "x = self.fc(x)\nif self.probabilities:\n    x = self.act(x)\nreturn x",
        "x = self.fc(x)\nreturn self.act(x) if self.probabilities else x",
        "x = self.fc(x)\nreturn x, self.act(x)",
        "x = self.fc(x)\nreturn {'logits': x, 'probabilities': F.softmax(x, 1)}",
        "w = F.softmax(self.gate(x), 1)\nreturn torch.einsum('be,bec->bc', w, self.experts(x))",
        "w = F.softmax(self.q(x) @ self.k(x).T, -1)\nreturn w @ x",
        "w = F.softmax(self.gate(x), 1)\nreturn w.matmul(self.experts(x))",
        "x = self.fc(x)\nself.last = x.softmax(1)\nreturn x",
    ],
)
def test_a_softmax_elsewhere_in_a_model_is_none(forward):
    assert named(loop(forward)) == []


@pytest.mark.parametrize(
    "out",
    [
        "net.predict_logits(x).squeeze()",
        "torch.squeeze(net(x))",
        "torch.squeeze(input=net(x))",
    ],
)
def test_a_squeeze_of_what_comes_from_a_model_is_found(out):
    assert named(loop(out=out)) == [("squeeze without a dimension", f"out = {out}")]


def test_a_squeeze_through_its_own_name_is_found():
    report = check_loop(loop(out="net(x)\n    squeeze = out.squeeze\n    out = squeeze()"))
    assert [(one.kind, one.repair) for one in report.slips] == [
        ("squeeze without a dimension", "out.squeeze(1)  # name the dimension")
    ]


def test_a_squeeze_at_the_end_of_the_models_own_forward_is_found():
    forward = "return self.fc(x).squeeze()"
    assert named(loop(forward)) == [("squeeze without a dimension", forward)]


@pytest.mark.parametrize(
    ("out", "targets"),
    [
        ("net(x).squeeze(1)", "y"),
        ("torch.squeeze(net(x), 1)", "y"),
        ("net(x.squeeze())", "y"),
        ("other(x.squeeze())", "y"),
        ("net(x).squeeze().view(-1, 3)", "y"),
        ("net(x).squeeze()", "y.squeeze()"),  # of one image, both are without a batch
    ],
)
def test_a_squeeze_that_takes_no_batch_away_is_none(out, targets):
    assert named(loop(out=out, targets=targets)) == []


SET = 'os.environ["CUDA_VISIBLE_DEVICES"] = "1"'


@pytest.mark.parametrize(
    "starts",
    [
        'device = "cuda" if torch.cuda.is_available() else "cpu"',
        "print(torch.cuda.get_device_name(0))",
        'x = torch.zeros(1, device="cuda:0")',
        "model = model.cuda()",
    ],
)
def test_the_variable_after_the_start_of_cuda_is_too_late(starts):
    report = check_loop(f"import os, torch\n{starts}\n{SET}\n")
    assert [(one.kind, one.line) for one in report.slips] == [("CUDA_VISIBLE_DEVICES too late", 3)]
    assert "line 2" in report.slips[0].why
    assert check_loop(f"import os, torch\n{SET}\n{starts}\n").ok


@pytest.mark.parametrize(
    "first",
    [
        "import torch",
        'device = torch.device("cuda")',
        "print(torch.cuda.device_count(), torch.version.cuda)",
        "torch.cuda.manual_seed_all(0)",
        'print("cuda")',
    ],
)
def test_what_does_not_start_cuda_is_in_time(first):
    assert check_loop(f"{first}\n{SET}\nmodel.cuda()\n").ok


def test_the_variable_of_a_function_that_is_called_again_is_in_time():
    step = "optimizer.zero_grad()\n    criterion(model(x), y).backward()\n    optimizer.step()"
    assert check_loop(f"def step(model, x, y):\n    {SET}\n    model.cuda()\n    {step}\n").ok


@pytest.mark.parametrize("product", ["feats @ weight", "F.linear(feats, weight)", "torch.matmul(feats, weight)"])
def test_a_product_with_a_parameter_has_a_graph_again(product):
    source = f"""
for x, y in loader:
    with torch.no_grad():
        feats = backbone(x)
    optimizer.zero_grad()
    loss = F.cross_entropy({product}, y)
    loss.backward()
    optimizer.step()
"""
    assert named(source) == []
    assert named(source.replace(product, "torch.tanh(feats)")) == [
        ("no_grad around the forward", "feats = backbone(x)")
    ]


# functions that are run: what they call stands elsewhere, or in a closure


class Trainer:
    def __init__(self, model, every=2):
        self.model, self.every = model, every
        self.optimizer = SGD(model.parameters(), lr=0.01)

    def step(self, batch):
        images, targets = batch
        return F.cross_entropy(self.model(images), targets)

    def fit(self, train_loader):
        self.model.train()
        for i, batch in enumerate(train_loader):
            window = min(self.every, len(train_loader) - i // self.every * self.every)
            loss = self.step(batch) / window
            loss.backward()
            if (i + 1) % self.every == 0 or i + 1 == len(train_loader):
                self.optimizer.step()
                self.optimizer.zero_grad()

    def fit_undivided(self, train_loader):
        for i, batch in enumerate(train_loader):
            loss = self.step(batch)
            loss.backward()
            if (i + 1) % self.every == 0 or i + 1 == len(train_loader):
                self.optimizer.step()
                self.optimizer.zero_grad()


def with_a_moving_average(model, optimizer, loader, epochs=2):
    average = copy.deepcopy(model).eval()
    for _ in range(epochs):
        model.train()
        for images, targets in loader:
            loss = F.cross_entropy(model(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for own, other in zip(average.parameters(), model.parameters(), strict=True):
                    own.lerp_(other, 0.1)
        with torch.no_grad():
            print(sum((average(x).argmax(1) == y).sum().item() for x, y in loader))


def with_a_closure(model, images, targets):
    optimizer = LBFGS(model.parameters(), lr=0.1, max_iter=3)
    for _ in range(2):

        def closure():
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), targets)
            loss.backward()
            return loss

        optimizer.step(closure)


def with_a_frozen_body_and_a_late_head(model, loader):
    model.requires_grad_(False)
    optimizer = SGD(model.parameters(), lr=0.1)
    model.fc = nn.Linear(model.fc.in_features, 3)
    for images, targets in loader:
        optimizer.zero_grad()
        F.cross_entropy(model(images), targets).backward()
        optimizer.step()


@pytest.mark.parametrize("function", [Trainer(small_model()).fit, with_a_moving_average, with_a_closure])
def test_nothing_is_wrong_with_what_runs(function):
    report = check_loop(function)
    assert report.ok, report
    assert report.steps


@pytest.mark.parametrize(
    ("function", "kind", "line"),
    [
        (Trainer(small_model()).fit_undivided, "accumulation not divided", 4),
        (with_a_frozen_body_and_a_late_head, "optimizer before the head", 3),
    ],
)
def test_one_slip_of_what_runs_is_named_once(function, kind, line):
    assert [(one.kind, one.line) for one in check_loop(function).slips] == [(kind, line)]
