"""What Python code in and around a model may do: `fit` gives the same, computed once or not."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrizations
from torch.optim import SGD
from torch.utils.checkpoint import checkpoint
from torch.utils.data import TensorDataset

from ftlab.training import cached, fit, loader
from tests import trained


def pictures(count=6):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, 6, 6, generator=generator, dtype=torch.float64)
    return TensorDataset(images, torch.arange(count) % 2)


def network(*frozen, top=()):
    torch.manual_seed(0)
    start = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), *frozen)
    start.requires_grad_(False).eval()
    return nn.Sequential(start, nn.Sequential(nn.Conv2d(4, 4, 3), *top), nn.Flatten(), nn.Linear(16, 2)).double()


def train(cache, make=network, hook=None, loss=F.cross_entropy, epochs=4):
    """Train, and return the model and what happened; every random state begins at the same place."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - the state that layers of other people draw from
    random.seed(0)
    model = make()
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    history = fit(
        model,
        loader(pictures(), batch_size=3, shuffle=True),
        epochs=epochs,
        optimizer=optimizer,
        seed=1,
        progress=False,
        cache=cache,
        loss=lambda logits, targets: (
            loss(logits, targets) if loss is F.cross_entropy else loss(model, logits, targets)
        ),
        on_epoch_start=lambda epoch: hook and epoch == 2 and hook(model, optimizer),
    )
    return model, history


def assert_same(plain, quick):
    trained.assert_same(plain, quick)
    for one, other in zip(plain[0].modules(), quick[0].modules(), strict=True):
        assert vars(one).keys() == vars(other).keys()
        assert getattr(one, "calls", 0) == getattr(other, "calls", 0)


class Scaled(nn.Module):
    """A container whose forward asks for an attribute and a parameter of its own."""

    def __init__(self, inside):
        super().__init__()
        self.inside, self.factor = inside, 1.0
        self.gain = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, images):
        return self.inside(images) * self.factor * self.gain


def with_scaled(place):
    def make():
        model = network()
        model[place] = Scaled(model[place])
        model[0].requires_grad_(False)
        return model

    return make


def another_head(model, optimizer):
    torch.manual_seed(5)
    model[3] = nn.Linear(16, 2).double()
    optimizer.param_groups[0]["params"] = list(model.parameters())


def another_gain(model, optimizer):
    model[1].gain = nn.Parameter(torch.full((1,), 2.0, dtype=torch.float64))
    optimizer.param_groups[0]["params"] = list(model.parameters())


def attribute_of(place):
    return lambda model, _: setattr(model[place], "factor", 3.0)


def another_eps(model, _):
    model[0][1].eps = 1.0


def listen(*path):
    def hook(model, _):
        model.get_submodule(".".join(path)).register_forward_hook(lambda module, args, output: output * 2)

    return hook


def another_forward(*path):
    def hook(model, _):
        model.get_submodule(".".join(path)).forward = lambda images: images.tanh()

    return hook


class Around(nn.Module):
    """A forward in Python around the parts of a network."""

    def __init__(self, inside):
        super().__init__()
        self.inside, self.calls, self.features, self.seen = inside, 0, None, []

    def forward(self, images):
        return self.inside(images)


class Counts(Around):
    def forward(self, images):
        self.calls += 1
        return self.inside(images) * (1 + 0.1 * self.calls)


class CountsInABuffer(Around):
    def __init__(self, inside):
        super().__init__(inside)
        self.register_buffer("total", torch.zeros((), dtype=torch.float64))

    def forward(self, images):
        self.total += 1
        return self.inside(images) * (1 + 0.1 * self.total)


class CountsInANewBuffer(CountsInABuffer):
    def forward(self, images):
        self.total = self.total + 1
        return self.inside(images) * (1 + 0.1 * self.total)


class AsksABuffer(CountsInABuffer):
    def forward(self, images):
        return self.inside(images + self.total)


class Checkpoints(Around):
    def forward(self, images):
        features = checkpoint(self.inside[1], self.inside[0](images), use_reentrant=False)
        return self.inside[3](self.inside[2](features))


class Remembers(Around):
    def forward(self, images):
        self.features = self.inside[1](self.inside[0](images))
        return self.inside[3](self.inside[2](self.features))


class Gathers(Around):
    def forward(self, images):
        self.seen.append(len(self.seen))
        return self.inside(images)


class MakesATensor(Around):
    def forward(self, images):
        return self.inside(images + torch.ones(3, 1, 1, dtype=torch.float64))


class Skips(Around):
    """Leaves a layer out at random, as LayerDrop does."""

    def __init__(self, inside, draw):
        super().__init__(inside)
        self.draw, self.extra = draw, nn.Conv2d(4, 4, 1).double()

    def forward(self, images):
        features = self.inside[0](images)
        if self.draw() > 0.3:
            features = features + self.extra(features)
        return self.inside[3](self.inside[2](self.inside[1](features)))


BETWEEN = {
    "another head": (network, another_head),
    "another parameter of a container": (with_scaled(1), another_gain),
    "an attribute behind the cut": (with_scaled(1), attribute_of(1)),
    "an attribute before the cut": (with_scaled(0), attribute_of(0)),
    "a buffer": (lambda: AsksABuffer(network()), lambda model, _: model.total.fill_(3)),
    "another buffer": (lambda: AsksABuffer(network()), lambda model, _: setattr(model, "total", torch.ones(1))),
    "another eps": (network, another_eps),
    "a hook before the cut": (network, listen("0", "2")),
    "a hook behind the cut": (network, listen("1")),
    "another forward before the cut": (network, another_forward("0", "2")),
    "another forward behind the cut": (lambda: network(top=[nn.Identity()]), another_forward("1", "1")),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_what_somebody_does_to_the_model_between_epochs(name):
    make, hook = BETWEEN[name]
    plain, quick = (train(cache, make, hook, epochs=5) for cache in (False, True))
    assert_same(plain, quick)
    assert "computed once" in quick[1].cached
    assert train(True, make, epochs=5)[1].rows[-1] != pytest.approx(plain[1].rows[-1])  # it made a difference


class CountsInALayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        return images * (1 + 0.1 * self.calls)


class NoiseOfNumPy(nn.Module):
    def forward(self, images):
        return images * (2 if np.random.rand() < 0.2 else 1)  # noqa: NPY002


def in_one_memory():
    model = network(nn.Conv2d(4, 4, 3, padding=1, dtype=torch.float64))
    model[1][0].weight = nn.Parameter(model[0][3].weight.data)
    model[0].requires_grad_(False)
    return model


def lazy():
    model = network()
    model[3] = nn.LazyLinear(2, dtype=torch.float64)
    return model


def normed(kind, training):
    def make():
        model = network()
        kind(model[0][0])
        model[0].requires_grad_(False)
        model[0][0].train(training)
        return model

    return make


def spectral_top():
    model = network()
    parametrizations.spectral_norm(model[1][0])
    return model


# a model, and what `cached` says about it
REFUSED = {
    "counts": (lambda: Counts(network()), "the forward writes 'calls' in each batch"),
    "counts in a buffer": (lambda: CountsInABuffer(network()), "the forward writes a buffer in each batch"),
    "counts in a new buffer": (lambda: CountsInANewBuffer(network()), "writes|makes a tensor of its own"),
    "checkpoints": (
        lambda: Checkpoints(network(top=[nn.BatchNorm2d(4)])),
        "the forward of 'the model' runs parts twice",
    ),
    "remembers": (lambda: Remembers(network()), "the forward writes 'features' in each batch"),
    "gathers": (lambda: Gathers(network()), "the forward writes 'seen' in each batch"),
    "makes a tensor": (lambda: MakesATensor(network()), "the forward makes a tensor of its own"),
    "torch": (lambda: Skips(network(), lambda: torch.rand(1).item()), "draws random numbers in Python"),
    "numpy": (lambda: Skips(network(), np.random.rand), "draws random numbers in Python"),
    "python": (lambda: Skips(network(), random.random), "draws random numbers in Python"),
    "numpy in a layer": (lambda: network(NoiseOfNumPy()), "a frozen layer draws random numbers of NumPy"),
    "in one memory": (in_one_memory, r"'0.3.weight' is frozen, but lies in the memory of '1.0.weight'"),
    "lazy": (lazy, "'3.weight' has no shape yet: call the model once"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_would_be_another_one_is_refused_and_is_not_changed(name):
    make, why = REFUSED[name]
    plain, quick = train(False, make), train(True, make)
    assert_same(plain, quick)
    assert bool(quick[1].cached) == (name == "lazy")  # the first epoch gives it its shape
    with pytest.raises(ValueError, match=why):
        cached(make(), loader(pictures(), batch_size=3), progress=False)


# a model, and where `cached` cuts it
CUT = {
    "counts in a frozen layer": (lambda: network(CountsInALayer()), "0.2"),
    "counts in a layer that learns": (lambda: network(top=[CountsInALayer()]), "0.2"),
    "spectral norm that learns": (spectral_top, "0.2"),
    "noise behind the cut": (lambda: network(top=[NoiseOfNumPy()]), "0.2"),
}


@pytest.mark.parametrize("name", CUT)
def test_a_layer_that_does_more_than_it_should_is_left_to_the_training(name):
    make, after = CUT[name]
    plain, quick = train(False, make), train(True, make)
    assert_same(plain, quick)
    assert quick[1].cached == f"frozen part computed once, up to {after}"


@pytest.mark.parametrize("kind", [parametrizations.weight_norm, parametrizations.spectral_norm])
@pytest.mark.parametrize("training", [True, False])
def test_weights_that_are_worked_out_in_each_forward(kind, training):
    make = normed(kind, training)
    assert_same(train(False, make), train(True, make))


def test_a_loss_that_looks_into_the_model():
    def loss(model, logits, targets):
        return F.cross_entropy(logits, targets) + model.features.square().mean()

    def make():
        return Remembers(network())

    assert_same(train(False, make, loss=loss), train(True, make, loss=loss))


def test_a_hook_on_all_modules_is_still_called():
    called = []
    with register_module_forward_hook(lambda module, args, output: called.append(type(module))):
        train(False, epochs=2)
        plain = len(called)
        train(True, epochs=2)
        with pytest.raises(ValueError, match="a hook on all modules"):
            cached(network(), loader(pictures(), batch_size=3), progress=False)
    assert len(called) == 2 * plain > 0


def test_autocast_around_the_training():
    images = TensorDataset(pictures().tensors[0].float(), pictures().tensors[1])
    rows = []
    for cache in (False, True):
        model = network().float()
        optimizer = SGD(model.parameters(), lr=0.05)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            batches = loader(images, batch_size=3)
            history = fit(model, batches, batches, epochs=2, optimizer=optimizer, progress=False, cache=cache)
            rows.append(history.rows)
            with pytest.raises(ValueError, match="autocast is on"):
                cached(model, batches, progress=False)
    assert rows[0] == rows[1]


class AcrossTheBatch(nn.Module):
    def forward(self, images):
        return images - images.mean(0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_in_half_precision_too_other_images_of_the_batch_are_noticed(dtype):
    images = TensorDataset(pictures().tensors[0].to(dtype), pictures().tensors[1])
    model = network(AcrossTheBatch()).to(dtype)
    assert cached(model, loader(images, batch_size=3), progress=False).after == ["0.2"]
