"""What a dataset and a loader may do: `fit` gives the same whether it computes the frozen part once or not."""

import random
from itertools import cycle

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset, WeightedRandomSampler
from torchvision.transforms import v2

from ftlab.training import cached, fit, loader
from ftlab.training.caching import inside
from tests.trained import assert_same


class Pictures(Dataset):
    def __init__(self, count=12, size=6):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(count, 3, size, size, generator=generator, dtype=torch.float64)
        self.targets = [place % 2 for place in range(count)]
        self.transform, self.calls, self.asked = None, 0, []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, place):
        image = self.images[place]
        return self.transform(image) if self.transform else image, self.targets[place]


def network(*frozen):
    torch.manual_seed(0)
    start = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), *frozen)
    start.requires_grad_(False).eval()
    top = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.1), nn.Linear(16, 2))
    return nn.Sequential(start, nn.Conv2d(4, 4, 1), top).double()


def train(cache, make=Pictures, batches=None, val=None, hook=None, model=network):
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - the state that augmentations draw from
    random.seed(0)
    model, images = model(), make()
    history = fit(
        model,
        batches(images) if batches else loader(images, batch_size=5, shuffle=True),
        loader(val(), batch_size=5) if val else None,
        epochs=4,
        optimizer=SGD(model.parameters(), lr=0.05, momentum=0.9),
        seed=1,
        progress=False,
        cache=cache,
        on_epoch_start=lambda epoch: hook and epoch == 2 and hook(images),
    )
    return model, history


def own_sampler(images):
    return DataLoader(images, batch_sampler=[[11, 3, 3], [-1], [0, 7, 2, 5]])


def weighted(images):
    sampler = WeightedRandomSampler(range(1, 13), 17, generator=torch.Generator().manual_seed(2))
    return DataLoader(images, batch_size=5, sampler=sampler, drop_last=True)


FOLLOWED = {
    "batches of its own": (Pictures, own_sampler),
    "weighted, the last batch dropped": (Pictures, weighted),
    "a last batch of one": (lambda: Pictures(11), None),
    "a single image": (lambda: Pictures(1), None),
    "a part": (lambda: Subset(Pictures(), [3, 1, 2, 5, 7]), None),
    "parts together": (lambda: ConcatDataset([Pictures(), Subset(Pictures(), [4, 2])]), None),
    "workers": (Pictures, lambda images: DataLoader(images, batch_size=5, shuffle=True, num_workers=1)),
    "writes down what it is asked": (lambda: Asked(), None),
}


class Asked(Pictures):
    def __getitem__(self, place):
        self.asked.append(place)
        return super().__getitem__(place)


@pytest.mark.parametrize("name", FOLLOWED)
def test_a_loader_that_is_followed(name):
    make, batches = FOLLOWED[name]
    plain, quick = (train(cache, make, batches) for cache in (False, True))
    assert_same(plain, quick)
    assert quick[1].cached == "frozen part computed once, up to 0.2"


class Rare(Pictures):
    """Changes an image now and then, by random numbers that only it knows."""

    def __init__(self, draw):
        super().__init__(60)
        self.draw = draw

    def __getitem__(self, place):
        image, target = super().__getitem__(place)
        return image * (1 if self.draw() > 0.03 else 5), target


def numpy_s():
    return np.random.default_rng(3).random


def old_numpy_s():
    generator = np.random.RandomState(3)
    return lambda: generator.rand()


def torch_s():
    generator = torch.Generator().manual_seed(3)
    return lambda: torch.rand(1, generator=generator).item()


def python_s():
    return random.Random(3).random


class OneOnly(Pictures):
    """Augments a single image, which is none of those that are asked for to look."""

    def __getitem__(self, place):
        image, target = super().__getitem__(place)
        return image * (torch.rand(1) if place == 7 else 1), target


class CountsEpochs(Pictures):
    def __getitem__(self, place):
        self.calls += 1
        image, target = super().__getitem__(place)
        return image * (1 + self.calls // len(self)), target


class Mixes(Pictures):
    def __getitems__(self, places):
        items = [self[place] for place in places]
        mean = torch.stack([image for image, _ in items]).mean(0)
        return [((image + mean) / 2, target) for image, target in items]


class GoesRound(Pictures):
    def __getitem__(self, place):
        return super().__getitem__(place % len(self))


def behind_the_end(images):
    return DataLoader(images, batch_sampler=[[11, 12], [13, 14]])


DRAWS = "the dataset draws random numbers"
REFUSED = {
    "numpy's": (lambda: Rare(numpy_s()), None, DRAWS),
    "old numpy's": (lambda: Rare(old_numpy_s()), None, DRAWS),
    "torch's": (lambda: Rare(torch_s()), None, DRAWS),
    "python's": (lambda: Rare(python_s()), None, DRAWS),
    "of a part": (lambda: Subset(Rare(torch_s()), range(0, 60, 2)), None, DRAWS),
    "one image only": (lambda: OneOnly(60), None, DRAWS),
    "counts epochs": (lambda: CountsEpochs(60), None, "other images after all were asked for once"),
    "mixes": (Mixes, None, "has a __getitems__"),
    "mixes a part": (lambda: Subset(Mixes(), range(9)), None, "has a __getitems__"),
    "goes round": (GoesRound, behind_the_end, "items behind its length"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_dataset_that_gives_other_images_is_refused_and_goes_on_as_if_nobody_had_looked(name):
    make, batches, why = REFUSED[name]
    plain, quick = (train(cache, make, batches) for cache in (False, True))
    assert_same(plain, quick)
    assert quick[1].cached == ""
    with pytest.raises(ValueError, match=why):
        cached(network(), batches(make()) if batches else loader(make(), batch_size=5), progress=False)


def test_an_image_that_is_written_over_when_it_is_asked_for_is_refused():
    class Fades(Pictures):
        def __getitem__(self, place):
            self.images[place] *= 0.9
            return self.images[place], self.targets[place]

    with pytest.raises(ValueError, match="item 0 of the dataset was another one"):
        cached(network(), loader(Fades(), batch_size=5), progress=False)


def correct_a_label(images):
    images.targets[5] = 0


def change_an_image(images):
    images.images[5] *= 3


def augment(images):
    images.transform = v2.RandomErasing(p=0.1, value=9.0)


def correct_a_tensor(images):
    images.tensors[1][5] = 1


def a_label_within(images):
    images.dataset.targets[5] = 0


class Around(Dataset):
    def __init__(self):
        self.pictures = Pictures()

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, place):
        return self.pictures[place]


class ByName(Pictures):
    def __init__(self):
        super().__init__()
        self.labels = dict(enumerate(self.targets))

    def __getitem__(self, place):
        return self.images[place], self.labels[place]


def a_label_inside(images):
    images.pictures.targets[5] = 0


def a_label_by_name(images):
    images.labels[5] = 0


def pairs():
    return TensorDataset(Pictures().images, torch.arange(12) % 2 * 0)


CHANGES = {
    "a label": (Pictures, correct_a_label),
    "an image": (Pictures, change_an_image),
    "an augmentation that seldom happens": (lambda: Pictures(40), augment),
    "a label in a tensor": (pairs, correct_a_tensor),
    "a label of what is inside": (Around, a_label_inside),
    "a label by name": (ByName, a_label_by_name),
    "a label of the whole": (lambda: Subset(Pictures(), range(3, 9)), a_label_within),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_in_the_middle_of_the_data_is_noticed(name):
    make, hook = CHANGES[name]
    plain, quick = (train(cache, make, hook=hook) for cache in (False, True))
    assert_same(plain, quick)
    assert "computed once" in quick[1].cached
    assert train(True, make)[1].rows[-1] != pytest.approx(plain[1].rows[-1])  # it made a difference


@pytest.mark.parametrize("size", [3, 8])
def test_validation_images_of_another_size_are_not_squeezed_in(size):
    plain, quick = (train(cache, val=lambda: Pictures(size=size)) for cache in (False, True))
    assert_same(plain, quick)
    assert quick[1].cached == "frozen part computed once, up to 0.2"
    with pytest.raises(ValueError, match=r"of another size give activations of another size: \(4, \d, \d\)"):
        cached(network(), loader(Pictures()), loader(Pictures(size=size)), progress=False)


class AcrossTheBatch(nn.Module):
    def forward(self, images):
        return images - images.mean(0)


def test_images_that_are_equal_do_not_hide_what_depends_on_the_others():
    images = Pictures()
    images.images[-1] = images.images[0]  # the two that are looked at
    found = cached(network(AcrossTheBatch()), loader(images, batch_size=5), progress=False)
    assert found.after == ["0.2"]


@pytest.mark.parametrize("draw", [numpy_s, torch_s, python_s, lambda: cycle([1.0] * 6 + [0.0]).__next__])
def test_views_of_a_dataset_with_random_numbers_of_its_own(draw):
    found = cached(network(), loader(Rare(draw()), batch_size=5), views=2, progress=False)
    assert len([list(found.train) for _ in range(4)]) == 4
    assert not torch.equal(*found.train.dataset.values)


def test_generators_are_found_wherever_the_dataset_holds_them():
    images = Pictures()
    assert inside.generators(images) == []
    images.transform = v2.Compose([v2.Identity(), v2.Lambda(numpy_s())])
    images.more = {"deep": [torch.Generator()]}
    assert {type(each) for each in inside.generators(Subset(images, [0]))} == {
        torch.Generator,
        np.random.Generator,
    }


def test_looking_leaves_generators_and_counters_of_the_dataset():
    images = CountsEpochs(60)
    images.draw = np.random.default_rng(3)
    before = inside.states(inside.generators(images))
    with pytest.raises(ValueError, match="after all were asked"):
        cached(network(), loader(images), progress=False)
    assert inside.states(inside.generators(images)) == before
    assert images.calls == 0
