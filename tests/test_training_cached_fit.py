"""`fit` computes the frozen part once by itself; nothing but the time differs from training on the images."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.utils.data import Dataset

from ftlab.training import fit, loader
from ftlab.training.caching import store


class Pictures(Dataset):
    """Eight pictures, that count how often they are asked for; a noise can be put on them."""

    classes = ("one", "other")

    def __init__(self, noise=0.0):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(8, 3, 8, 8, generator=generator, dtype=torch.float64)
        self.noise, self.scale, self.asked = noise, 1.0, 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, place):
        self.asked += 1
        noise = self.noise * torch.randn(1).item() if self.noise else 0.0
        return self.images[place] * self.scale + noise, place % 2


def network():
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).requires_grad_(False).eval()
    top = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.2))
    return nn.Sequential(block, top, nn.Flatten(), nn.Linear(64, 2)).double()


def train(cache, *, model=None, images=None, hook=None, epochs=4, **settings):
    """Train with or without activations that are computed once; return everything that may differ."""
    model = model or network()
    images = images or Pictures()
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    hooks = [lambda epoch: hook(epoch, model, images)] if hook else ()
    batches = loader(images, batch_size=3, shuffle=True), loader(Pictures(), batch_size=3)
    settings = {"seed": 1, "progress": False, "cache": cache, "on_epoch_start": hooks, **settings}
    history = fit(model, *batches, epochs=epochs, optimizer=optimizer, **settings)
    return model, history, images


def assert_same(one, other):
    (model, history, _), (own, ours, _) = one, other
    for row, our_row in zip(history.rows, ours.rows, strict=True):
        assert our_row == pytest.approx(row, rel=1e-9)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(own.state_dict()[name], value, rtol=1e-9, atol=1e-9)
        if name in history.best_state_dict:
            torch.testing.assert_close(ours.best_state_dict[name], history.best_state_dict[name])
    assert [m.training for m in model.modules()] == [m.training for m in own.modules()]
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in own.parameters()]
    assert [p.grad is None for p in model.parameters()] == [p.grad is None for p in own.parameters()]


def test_fit_computes_the_frozen_part_once_and_says_so():
    plain, quick = train(False), train(True)
    assert_same(plain, quick)
    assert plain[1].cached == ""
    assert quick[1].cached == "frozen part computed once, up to 0.2"
    assert quick[1].cached in repr(quick[1])
    assert quick[1].to_dict()["cached"] == quick[1].cached
    assert plain[2].asked == 4 * 8
    assert 8 <= quick[2].asked < 8 + 8 * 4 + 16  # once, and a few to see whether they stay the same


def test_with_a_clip_and_accumulation_too():
    settings = {"clip": 0.1, "accumulate": 2}
    quick, plain = train(True, **settings), train(False, **settings)
    assert_same(plain, quick)
    assert "computed once" in quick[1].cached
    assert 0 < quick[1].rows[0]["clipped"] <= 1


def test_in_another_precision_the_images_are_used():
    model = network().float()
    images = Pictures()
    images.images = images.images.float()
    optimizer = SGD(model.parameters(), lr=0.05)
    for precision, cached in (("bfloat16", False), ("float32", True)):
        settings = {"epochs": 2, "optimizer": optimizer, "precision": precision, "progress": False}
        assert bool(fit(model, loader(images, batch_size=4), **settings).cached) == cached


@pytest.mark.parametrize("what", ["one epoch", "nothing frozen", "not held"])
def test_where_it_does_not_pay_or_is_not_exact_the_images_are_used(what):
    def model():
        made = network()
        if what == "nothing frozen":
            made.requires_grad_(True)
        if what == "not held":
            made[0].insert(0, nn.BatchNorm2d(3, affine=False, dtype=torch.float64))
        return made

    epochs = 1 if what == "one epoch" else 2
    plain, quick = (train(cache, model=model(), epochs=epochs) for cache in (False, True))
    assert_same(plain, quick)
    assert quick[1].cached == ""


def unfreeze(epoch, model, images):
    if epoch == 2:
        model[0].requires_grad_(True)


def let_batch_norm_move(epoch, model, images):
    if epoch == 1:
        model[0].train()


def freeze_more(epoch, model, images):
    if epoch == 2:
        model[1].requires_grad_(False).eval()


def write_a_parameter(epoch, model, images):
    if epoch == 2:
        with torch.no_grad():
            model[0][0].weight.mul_(1.1)


def write_past_autograd(epoch, model, images):
    if epoch == 2:
        model[0][0].weight.data[0, 0, 0, 0] += 0.5


def write_a_buffer(epoch, model, images):
    if epoch == 2:
        model[0][1].running_mean += 0.1


def change_the_preparation(epoch, model, images):
    if epoch == 2:
        images.scale = 0.5


def take_images_away(epoch, model, images):
    if epoch == 2:
        images.images = images.images[:5]


def replace_a_layer(epoch, model, images):
    if epoch == 2:
        model[0][2] = nn.Tanh()


CHANGES = [
    unfreeze,
    let_batch_norm_move,
    freeze_more,
    write_a_parameter,
    write_past_autograd,
    write_a_buffer,
    change_the_preparation,
    take_images_away,
    replace_a_layer,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_is_changed_between_epochs_is_noticed(change):
    plain, quick = (train(cache, hook=change, epochs=5) for cache in (False, True))
    assert_same(plain, quick)
    assert quick[1].cached
    unchanged = train(True, epochs=5)
    assert unchanged[1].rows[-1] != pytest.approx(plain[1].rows[-1], rel=1e-9)  # the change made a difference


def test_with_augmentation_the_training_goes_on_images_and_only_the_validation_is_kept():
    plain, quick = (train(cache, images=Pictures(noise=0.1)) for cache in (False, True))
    assert_same(plain, quick)
    assert quick[1].cached == "frozen part (of the validation only) computed once, up to 0.2"


def test_without_memory_the_images_are_used(monkeypatch):
    monkeypatch.setattr(store, "MEMORY_SHARE", 0)
    plain, quick = train(False), train(True)
    assert_same(plain, quick)
    assert quick[1].cached == ""


def test_a_stop_while_the_frozen_part_is_computed_ends_the_training_cleanly():
    model = network()
    before = copy.deepcopy(model.state_dict())
    _, history, _ = train(True, model=model, should_stop=lambda: True)
    assert (history.epochs, history.stopped) == (0, "stopped by hand")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_error_in_an_image_is_that_of_the_plain_loop():
    class Broken(Pictures):
        def __getitem__(self, place):
            if place == 4:
                raise OSError("image 4 is broken")
            return super().__getitem__(place)

    for cache in (False, True):
        with pytest.raises(OSError, match="image 4 is broken"):
            train(cache, images=Broken())
