"""Where activations computed once would change the result, `cached` says why and changes nothing."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from torchvision.ops import StochasticDepth
from torchvision.transforms import v2

from ftlab.training import cached, fit, loader


def pictures(count=6):
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(count, 3, 8, 8, generator=generator), torch.arange(count) % 2)


def network(*extra):
    torch.manual_seed(0)
    start = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), *extra)
    start.requires_grad_(False).eval()
    return nn.Sequential(start, nn.Flatten(), nn.Linear(4 * 36, 2))


class Changed(Dataset):
    """The pictures with something done to each of them when it is asked for."""

    def __init__(self, change, count=6):
        self.images, self.change = pictures(count), change

    def __len__(self):
        return len(self.images)

    def __getitem__(self, place):
        image, target = self.images[place]
        return self.change(image), target


def quick(model, dataset=None, **settings):
    return cached(model, loader(dataset or pictures(), batch_size=2), progress=False, **settings)


def test_the_partner_nothing_is_refused_without_a_reason():
    assert quick(network()).after == ["1"]
    assert quick(network(), Changed(v2.CenterCrop(8))).after == ["1"]


AUGMENTATIONS = {
    "a flip": v2.RandomHorizontalFlip(),
    "an erasing that seldom happens": v2.RandomErasing(p=1e-6),
    "numpy": lambda image: image + float(np.random.rand()),  # noqa: NPY002 - the state that is watched
    "python": lambda image: image * (1 + 1e-9 * random.random()),
}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_random_augmentation_is_refused(name):
    with pytest.raises(ValueError, match=r"draws random numbers .* views=4"):
        quick(network(), Changed(AUGMENTATIONS[name]))


def test_an_augmentation_that_nobody_can_see_into_is_refused():
    numbers = iter(range(1000))
    with pytest.raises(ValueError, match="item 0 of the dataset was another one"):
        quick(network(), Changed(lambda image: image + next(numbers)))


def test_views_keep_several_versions_of_each_image_one_for_each_epoch():
    torch.manual_seed(0)
    found = quick(network(), Changed(lambda image: image + torch.rand(1)), views=3)
    epochs = [torch.cat([activations for activations, _ in found.train]) for _ in range(6)]
    assert "3 views" in repr(found)
    for first, second, third in zip(epochs[:3], epochs[1:4], epochs[3:], strict=True):
        assert not torch.equal(first, second)
        assert torch.equal(first, third)


def test_without_augmentation_all_views_are_the_same():
    found = quick(network(), views=2)
    assert torch.equal(*found.train.dataset.values)
    for views in (0, 1.5, "2"):
        with pytest.raises(ValueError, match=f"views must be at least 1, not {views!r}"):
            quick(network(), views=views)


def test_a_folder_is_none_of_fit():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(TypeError, match=r"cache is True or False, not 'here'; training\.cached\(\.\.\., folder="):
        fit(model, loader(pictures()), epochs=2, optimizer=optimizer, cache="here", progress=False)


def test_the_validation_images_are_named_and_views_would_not_help_them():
    shaken, model = loader(Changed(lambda image: image + torch.rand(1))), network()
    with pytest.raises(ValueError, match=r"^val: the dataset draws random .* give val other transforms$"):
        cached(model, loader(pictures()), shaken, views=3, progress=False)
    with pytest.raises(
        ValueError, match=r"^val: the loader has its own collate_fn, which may mix or change the images$"
    ):
        cached(model, loader(pictures()), DataLoader(pictures(), collate_fn=list), progress=False)


@pytest.mark.parametrize("given", [None, nn.Linear, {}])
def test_what_is_no_model_is_told_so(given):
    with pytest.raises(TypeError, match="a model was expected"):
        quick(given)


PREFIXES = {
    "a batch norm in train mode": (lambda model: model[0][1].train(), "'0.1' is in train mode: statistics move"),
    "a dropout": (lambda model: model[0][3].train(), "'0.3' is in train mode: drops at random"),
    "a stochastic depth": (lambda model: model[0][4].train(), "'0.4' is in train mode: drops at random"),
}


@pytest.mark.parametrize("name", PREFIXES)
def test_what_moves_ends_the_prefix_and_is_named(name):
    change, why = PREFIXES[name]
    model = network(nn.Dropout(0.1), StochasticDepth(0.1, "row"), nn.Tanh())
    change(model)
    found = quick(model)
    assert found.why == why
    assert found.after == [{"1": "0.0", "3": "0.2", "4": "0.3"}[why[3]]]


def test_a_batch_norm_that_moves_at_the_very_start_leaves_nothing():
    model = nn.Sequential(nn.BatchNorm2d(3), *network())
    model[0].requires_grad_(False)
    with pytest.raises(ValueError, match="no frozen part to compute once: '0' is in train mode: statistics move"):
        quick(model)


class Noisy(nn.Module):
    """Draws random numbers in a function, which no list of layers knows."""

    def __init__(self, start, end):
        super().__init__()
        self.start, self.end = start, end

    def forward(self, images):
        features = self.start(images)
        return self.end(F.dropout(features, 0.5, self.training))


def test_a_function_that_draws_random_numbers_ends_the_prefix():
    whole = network()
    found = quick(Noisy(whole[0], whole[1:]))
    assert found.why == "'dropout' draws random numbers"
    assert found.after == ["start.2"]


def test_a_forward_that_asks_for_the_mode_is_cut_in_both_modes():
    whole = network()
    model = Noisy(whole[0], whole[1:])
    found = quick(model)
    found.model.eval()
    activations, _ = next(iter(found.train))
    images = next(iter(loader(pictures(), batch_size=2)))[0]
    model.eval()
    torch.testing.assert_close(found.model(activations), model(images))


class Counting(nn.Module):
    """Writes into a buffer in each forward, in eval mode too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, images):
        self.seen += len(images)
        return images


def test_a_layer_that_writes_into_its_buffers_ends_the_prefix_and_is_not_changed():
    model = network(Counting())
    assert quick(model).why == "'0.3' writes into its buffers"
    assert model[0][3].seen == 0


class AcrossTheBatch(nn.Module):
    def forward(self, images):
        return images - images.mean(0)


def test_what_depends_on_the_other_images_of_the_batch_is_not_kept():
    model = network(AcrossTheBatch())
    found = quick(model)
    assert found.after == ["0.2"]
    activations, _ = next(iter(found.train))
    images = next(iter(loader(pictures(), batch_size=2)))[0]
    torch.testing.assert_close(found.model(activations), model(images))


class Branching(nn.Module):
    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def forward(self, images):
        return self.inside(images) if images.sum() > 0 else self.inside(-images)


class TwoTypes(nn.Module):
    def __init__(self, inside):
        super().__init__()
        self.start, self.end = inside[0], inside[1:]

    def forward(self, images):
        features = self.start(images)
        return self.end(features) * (features.mean((2, 3))[:, :2] > 0)


def data_parallel(model):
    return nn.DataParallel(model)


REFUSALS = {
    "nothing frozen": (lambda model: model.requires_grad_(True), "no parameter of the model is frozen"),
    "everything frozen": (lambda model: model.requires_grad_(False), "nothing left to train"),
    "not traceable": (Branching, "torch.fx cannot trace the forward of this Branching"),
    "two types": (TwoTypes, "differ in type or device"),
    "several devices": (data_parallel, "a DataParallel cannot be taken apart"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_model_that_cannot_be_cut_is_refused(name):
    change, message = REFUSALS[name]
    with pytest.raises(ValueError, match=message):
        quick(change(network()))


def test_a_hook_is_still_called_or_the_model_refused():
    model, called = network(), []
    handle = model[0].register_forward_hook(lambda *_: called.append("start"))
    with pytest.raises(ValueError, match="a hook on '0' would no longer be called"):
        quick(model)
    handle.remove()
    model[0][1].register_forward_hook(lambda *_: called.append("norm"))
    found = quick(model)
    assert found.why == "a hook on '0.1' is to be called"
    called.clear()
    found.model(next(iter(found.train))[0])
    assert called == ["norm"]


class Viewing(nn.Module):
    """A depthwise network whose forward has a `view`, which refuses channels that lie last in memory."""

    def __init__(self, takes):
        super().__init__()
        self.start = network()[0]
        self.conv = nn.Conv2d(4, 4, 3, groups=4, padding=1)
        self.head = nn.Linear(4 * 36, 2)
        self.takes = takes

    def forward(self, images):
        features = self.conv(self.start(images))
        return self.head(features.flatten(1) if self.takes else features.view(features.size(0), -1))


@pytest.mark.parametrize("takes", [True, False])
def test_channels_go_last_only_where_the_rest_takes_it(takes):
    found = quick(Viewing(takes))
    assert found.model.channels_last == takes
    assert found.model(next(iter(found.train))[0]).shape == (2, 2)


class Endless(IterableDataset):
    def __iter__(self):
        yield from pictures()


LOADERS = {
    "no numbered items": (lambda: DataLoader(Endless(), 2), "no numbered items"),
    "no batches": (lambda: DataLoader(pictures(), batch_size=None), "no numbered items, or .* no batches"),
    "its own collate": (lambda: DataLoader(pictures(), 2, collate_fn=list), "its own collate_fn"),
    "no DataLoader": (lambda: [next(iter(loader(pictures())))], "a list is no plain DataLoader"),
    "a dataset": (pictures, r"a TensorDataset is no plain DataLoader; training\.loader\(dataset\) makes one"),
    "three parts": (
        lambda: DataLoader(TensorDataset(*pictures().tensors, torch.ones(6)), 2),
        "not .image tensor, class number. but .'Tensor', 'Tensor', 'Tensor'.",
    ),
    "sizes": (lambda: DataLoader(Changed(iter_sizes()), 1), "different sizes|was another one"),
}


def iter_sizes():
    return lambda image: image[:, : 8 - int(image.sum().abs()) % 3]


@pytest.mark.parametrize("name", LOADERS)
def test_a_loader_that_cannot_be_followed_is_refused(name):
    make, message = LOADERS[name]
    with pytest.raises(ValueError, match=message):
        cached(network(), make(), progress=False)
