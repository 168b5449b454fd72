"""The forward pass of `fit` and `evaluate`: channels last where it gives the same, and nothing else noticed."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parameters_to_vector
from torch.utils.data import TensorDataset
from torchvision.models import get_model

from ftlab import pretrained
from ftlab.training import evaluate, fit, loader
from ftlab.training.caching.memory_format import in_format, takes_channels_last
from ftlab.training.forward import Forward


def pictures(count=6, pixels=32):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, pixels, pixels, generator=generator)
    return TensorDataset(images, torch.arange(count) % 2)


def network(name):
    torch.manual_seed(0)
    return pretrained.load(name, weights=None, num_classes=2)


def small():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout2d(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4, 2))


class Own(nn.Sequential):
    """A class of the user's own, that counts and has a `view`."""

    calls = 0

    def forward(self, images):
        self.calls += 1
        return self[1](self[0](images).view(len(images), -1))


def own():
    return Own(nn.Conv2d(3, 2, 3), nn.Linear(2 * 30 * 30, 2))


@pytest.mark.parametrize("kind", ["float64", "float32, statistics held"])  # else batch norm enlarges rounding
@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "mobilenet_v3_small"])
def test_fit_gives_what_a_plain_loop_gives(name, kind):
    model = network(name).train()
    if kind == "float64":
        model.double()
    for module in model.modules():
        module.training &= kind == "float64" or not isinstance(module, nn.BatchNorm2d)
    other, dtype = copy.deepcopy(model), next(model.parameters()).dtype
    images, targets = pictures(16, 64).tensors
    batches = loader(TensorDataset(images.to(dtype), targets), batch_size=8)
    assert Forward(model).channels_last(batches.dataset.tensors[0])
    start = parameters_to_vector(model.parameters()).detach().clone()
    steps = [torch.optim.SGD(each.parameters(), lr=1e-3) for each in (model, other)]
    torch.manual_seed(1)  # for the dropout of the head
    history = fit(model, batches, epochs=2, optimizer=steps[0], progress=False)
    torch.manual_seed(1)
    loss = [plain_epoch(other, batches.dataset.tensors, steps[1]) for _ in range(2)][-1]
    assert history.rows[-1]["train loss"] == pytest.approx(loss, rel=1e-4)
    moved, moved_too = (parameters_to_vector(each.parameters()).detach() - start for each in (model, other))
    assert (moved - moved_too).norm() < 1e-3 * moved_too.norm()
    assert moved_too.norm() > 0


def plain_epoch(model, tensors, optimizer):
    torch.empty((), dtype=torch.int64).random_()  # as a DataLoader does when an epoch begins
    losses = []
    for images, targets in zip(*(part.split(8) for part in tensors), strict=True):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


@pytest.mark.parametrize("training", [True, False])
def test_looking_changes_nothing(training):
    model = network("efficientnet_lite0").train(training)
    model.features[3].train(not training)
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    random = torch.get_rng_state()
    images = pictures().tensors[0]
    given = images.clone()
    assert takes_channels_last(model, model, images)
    assert all(
        torch.equal(one, two) for one, two in zip(before.values(), model.state_dict().values(), strict=True)
    )
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(random, torch.get_rng_state())
    assert torch.equal(images, given)
    assert images.is_contiguous()
    assert all(p.grad is None and p.is_contiguous() for p in model.parameters())


def test_the_batches_really_come_with_the_channels_last(monkeypatch):
    seen = []
    plain = nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, images: (seen.append(images), plain(self, images))[1])
    model = small()
    evaluate(model, loader(pictures(), batch_size=6), progress=False)
    assert seen[-1].shape[0] == 6
    assert seen[-1].is_contiguous(memory_format=torch.channels_last)
    fit(
        model,
        loader(pictures(), batch_size=6),
        epochs=1,
        optimizer=torch.optim.SGD(model.parameters()),
        progress=False,
    )
    assert seen[-1].shape[0] == 6
    assert seen[-1].is_contiguous(memory_format=torch.channels_last)


def test_a_class_of_the_users_own_is_called_once_per_batch():
    model = own()
    evaluate(model, loader(pictures(), batch_size=2), progress=False)
    assert model.calls == 3
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    fit(model, loader(pictures(), batch_size=2), epochs=1, optimizer=optimizer, progress=False)
    assert model.calls == 6


def test_a_hook_is_called_once_per_batch():
    model, called = small(), []
    model[0].register_forward_hook(lambda *_: called.append(1))
    evaluate(model, loader(pictures(), batch_size=2), progress=False)
    assert len(called) == 3


def test_a_hook_on_all_modules_is_called_once_per_batch_and_module():
    model, called = small(), []
    handle = register_module_forward_hook(lambda *_: called.append(1))
    try:
        evaluate(model, loader(pictures(), batch_size=2), progress=False)
    finally:
        handle.remove()
    assert len(called) == 3 * len(list(model.modules()))


def compiled_as_a_whole():
    return torch.compile(small(), backend=COUNTED)


def compiled_inside():
    model = small()
    model[0].compile(backend=COUNTED)
    return model


class Counted:
    """A backend of torch.compile that counts what it is given to compile."""

    graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


COUNTED = Counted()


@pytest.mark.parametrize("build", [compiled_as_a_whole, compiled_inside])
def test_what_is_compiled_is_not_compiled_for_a_look(build):
    torch.compiler.reset()
    COUNTED.graphs = 0
    model = build().eval()
    evaluate(model, loader(pictures(), batch_size=6), progress=False)
    found, COUNTED.graphs = COUNTED.graphs, 0
    torch.compiler.reset()
    with torch.no_grad():
        build().eval()(pictures().tensors[0])
    assert found == COUNTED.graphs > 0


def test_a_scripted_model_and_a_wrapper_are_left_alone():
    images = pictures().tensors[0]
    plain = small().eval()
    assert Forward(plain).channels_last(images)
    with pytest.warns(FutureWarning, match="deprecated"):
        traced = torch.jit.trace(plain, images)
    assert not Forward(traced).channels_last(images)
    assert not Forward(nn.DataParallel(plain)).channels_last(images)


def test_a_lazy_layer_is_made_by_the_first_batch_with_the_random_numbers_of_the_user(monkeypatch):
    def made():
        torch.manual_seed(3)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(2))
        evaluate(model, loader(pictures(), batch_size=6), progress=False)
        return model[3].weight

    weight = made()
    monkeypatch.setattr(Forward, "channels_last", lambda *_: False)
    assert torch.equal(weight, made())


def test_a_view_and_dropout_by_element_keep_the_channels_first():
    images = pictures(pixels=96).tensors[0]
    mine = pictures().tensors[0]
    model = own()
    assert not takes_channels_last(model, model, mine)  # its view refuses them
    squeeze = get_model("squeezenet1_1", num_classes=2)  # drops single numbers of a map, in the order of memory
    assert not takes_channels_last(squeeze, squeeze, images)
    forward = Forward(squeeze)
    assert not forward.channels_last(images)
    squeeze.eval()
    assert forward.channels_last(images)
    assert not takes_channels_last(nn.Flatten(), torch.sin, images)  # no convolution: nothing to win


def test_what_the_forward_raises_is_raised_by_the_real_call():
    broken = nn.Sequential(nn.Conv2d(4, 2, 3), nn.Flatten())
    with pytest.raises(RuntimeError, match=r"expected input.* to have 4 channels"):
        evaluate(broken, loader(pictures()), progress=False)


def test_no_numbers_agree_with_no_numbers():
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten())
    with torch.no_grad():
        model[0].weight.fill_(float("nan"))
    assert takes_channels_last(model, model, pictures().tensors[0])  # as the real call, which says what is wrong


def test_rows_of_numbers_stay_as_they_are():
    rows = torch.zeros(2, 5)
    assert in_format(rows) is rows
    assert not Forward(nn.Linear(5, 2)).channels_last(rows)
