"""Training on activations that were computed once is the plain loop: same order, same loss, same parameters."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset, TensorDataset, WeightedRandomSampler
from torchvision import models

from ftlab import pretrained
from ftlab.freezing import freeze
from ftlab.random_state import keep_random_state
from ftlab.training import cached, fit, loader


def pictures(count=10, pixels=32, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, pixels, pixels, generator=generator, dtype=dtype)
    return TensorDataset(images, torch.arange(count) % 3)


def network(dtype=torch.float64):
    """Return a small network with everything that matters: norms, skips, dropout, operations in place."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), Skip(6), nn.MaxPool2d(4)]
    layers += [Skip(6), nn.Flatten(), nn.Dropout(0.3), nn.Linear(6 * 64, 3)]
    model = nn.Sequential(*layers).to(dtype)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer += torch.rand_like(buffer)
    return model


class Skip(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU6()
        )

    def forward(self, images):
        return images + self.body(images)


def hold(model, names):
    """Freeze these parts, and put them in eval mode."""
    for name in names:
        model.get_submodule(name).requires_grad_(False).eval()
    return model


def plain_loop(model, batches, epochs, optimizer):
    """Train as every tutorial does, on the images."""
    losses = []
    for _ in range(epochs):
        for images, targets in batches:
            optimizer.zero_grad()
            value = F.cross_entropy(logits_of(model(images)), targets)
            value.backward()
            optimizer.step()
            losses.append(value.item())
    return losses


def logits_of(output):
    return output if isinstance(output, torch.Tensor) else output.logits


def both(model, train, *, epochs=10, lr=0.05, **settings):
    """Train two copies, one on images and one on activations; return them with their losses."""
    trained = []
    for way in ("plain", "cached"):
        own = copy.deepcopy(model)
        optimizer = torch.optim.SGD([p for p in own.parameters() if p.requires_grad], lr=lr, momentum=0.9)
        quick = cached(own, train, progress=False, **settings) if way == "cached" else None
        with keep_random_state(seed=3):
            part, batches = (quick.model, quick.train) if quick else (own, train)
            trained.append((own, plain_loop(part, batches, epochs, optimizer), torch.rand(1)))
    return trained, quick


def assert_same(trained, room=1e-9):
    (plain, plain_losses, plain_random), (ours, losses, random) = trained
    assert losses == pytest.approx(plain_losses, rel=room, abs=room)
    assert random == plain_random
    for (name, one), other in zip(plain.state_dict().items(), ours.state_dict().values(), strict=True):
        torch.testing.assert_close(
            other, one, rtol=room, atol=room, msg=lambda text, name=name: f"{name}: {text}"
        )
    for one, other in zip(plain.modules(), ours.modules(), strict=True):
        assert one.training == other.training
    for one, other in zip(plain.parameters(), ours.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        assert one.requires_grad == other.requires_grad


CUTS = [["0", "1"], ["0", "1", "3"], ["0", "1", "3.body.0"], ["0", "1", "3", "5"], ["0", "1", "3", "5.body.0"]]


@pytest.mark.parametrize("frozen", CUTS, ids="-".join)
def test_ten_epochs_are_those_of_the_plain_loop_at_any_cut(frozen):
    trained, quick = both(hold(network(), frozen), loader(pictures(), batch_size=4, shuffle=True))
    assert_same(trained)
    assert len(quick.train) == 3  # the last batch is a part of one


def test_the_partner_a_prefix_that_is_not_held_would_be_another_training():
    batches = loader(pictures(), batch_size=4, shuffle=True)
    held, moving = hold(network(), ["0", "1"]), hold(network(), ["0", "1"])
    moving[1].train()
    for model in (held, moving):
        optimizer = torch.optim.SGD(model[8].parameters(), lr=0.05)
        with keep_random_state(seed=3):
            plain_loop(model, batches, 2, optimizer)
    assert not torch.equal(held[8].weight, moving[8].weight)


# name, what is frozen, where that ends: the first name of a place, or of several
NETWORKS = [
    ("resnet18", ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4.0.conv1"], "layer4.0.conv1"),
    ("resnet18", ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"], "flatten"),
    ("mobilenet_v3_small", [f"features.{block}" for block in range(9)], "features.8"),
    ("mobilenet_v3_small", ["features"], "flatten"),
    ("efficientnet_lite0", [f"features.{block}" for block in range(6)], "features.5"),
    ("efficientnet_lite0", ["features"], "flatten"),
    ("vit_b_16", ["conv_proj", "encoder.layers.encoder_layer_0"], ""),
]


@pytest.mark.parametrize(("name", "frozen", "after"), NETWORKS)
def test_ten_epochs_are_those_of_the_plain_loop_on_real_networks(name, frozen, after):
    torch.manual_seed(0)
    # Where batch norm sees a single pixel of two images, the last bit grows a thousandfold in each layer.
    pixels = 32 if name == "vit_b_16" else 64
    weights = "DEFAULT" if name == "efficientnet_lite0" else None  # on board
    model = small_vit() if name == "vit_b_16" else pretrained.load(name, weights=weights, num_classes=3)
    if name == "vit_b_16":
        model.class_token.requires_grad_(False)
        model.encoder.pos_embedding.requires_grad_(False)
    model = hold(model.double(), frozen)
    trained, quick = both(model, loader(pictures(6, pixels), batch_size=4, shuffle=True), lr=1e-4)
    assert_same(trained, 1e-7)
    assert quick.after[-1].startswith(after)


def small_vit():
    """Return torchvision's VisionTransformer as in ViT-B/16, with two of its twelve blocks, for 32 pixels."""
    return models.VisionTransformer(
        image_size=32, patch_size=16, num_layers=2, num_heads=12, hidden_dim=768, mlp_dim=3072, num_classes=3
    )


def test_a_side_branch_that_is_there_in_train_mode_only():
    torch.manual_seed(0)
    model = models.googlenet(weights=None, num_classes=3, init_weights=False, aux_logits=True)
    hold(model, [name for name, _ in model.named_children() if name not in ("fc", "aux2", "dropout")])
    trained, quick = both(model.double(), loader(pictures(4, 64), batch_size=2), epochs=2, lr=1e-4)
    assert_same(trained)
    assert "aux1.fc2" in quick.after  # in eval mode there is no such place


def test_in_single_precision_ten_epochs_agree_up_to_rounding():
    model = hold(network(torch.float32), ["0", "1", "3"])
    batches = loader(pictures(dtype=torch.float32), batch_size=4, shuffle=True)
    trained, _ = both(model, batches, lr=0.01)
    assert_same(trained, 1e-4)


def test_freeze_holds_what_it_needs():
    model = network()
    freeze(model, "0", "1", "3")
    trained, quick = both(model, loader(pictures(), batch_size=4, shuffle=True), epochs=3)
    assert_same(trained)
    assert quick.after == ["4"]  # a pool has nothing that could move


@pytest.mark.parametrize("kind", ["sequential", "weighted", "drop_last", "generator", "subset", "workers"])
def test_any_order_of_the_loader_is_followed(kind):
    images = pictures()
    batches = {
        "sequential": lambda: DataLoader(images, batch_size=4),
        "weighted": lambda: DataLoader(images, 4, sampler=WeightedRandomSampler([0.9, 0.1] * 5, 12)),
        "drop_last": lambda: DataLoader(images, 4, shuffle=True, drop_last=True),
        "generator": lambda: DataLoader(images, 4, shuffle=True, generator=torch.Generator().manual_seed(7)),
        "subset": lambda: DataLoader(Subset(images, [3, 1, 8, 5, 7]), 2, shuffle=True),
        "workers": lambda: DataLoader(images, 4, shuffle=True, num_workers=1),
    }[kind]
    model = hold(network(), ["0", "1"])
    trained = []
    for way in ("plain", "cached"):
        own, order = copy.deepcopy(model), batches()
        quick = cached(own, order, progress=False) if way == "cached" else None
        optimizer = torch.optim.SGD(own[8].parameters(), lr=0.05)
        with keep_random_state(seed=3):
            part, given = (quick.model, quick.train) if quick else (own, order)
            trained.append((own, plain_loop(part, given, 2, optimizer), torch.rand(1)))
    assert_same(trained)


def test_a_block_that_is_cut_inside_keeps_both_of_its_ways():
    model = hold(network(), ["0", "1", "3.body.0", "3.body.1"])
    trained, quick = both(model, loader(pictures(), batch_size=4, shuffle=True), epochs=3)
    assert_same(trained)
    model = hold(network(), ["0", "1", "3"])
    model[3].body[2] = nn.PReLU(dtype=torch.float64)
    trained, quick = both(model, loader(pictures(), batch_size=4, shuffle=True), epochs=3)
    assert_same(trained)
    assert quick.after == ["2", "3.body.1"]
    assert quick.train.dataset.values[0].shape == (10, 2 * 6 * 32 * 32)


def test_looking_changes_nothing():
    model = hold(network(), ["0", "1", "3"])
    model[8](torch.ones(1, 6 * 64, dtype=torch.float64)).sum().backward()
    before, gradient = copy.deepcopy(model), model[8].weight.grad.clone()
    torch.manual_seed(1)
    cached(model, loader(pictures(), batch_size=4, shuffle=True), loader(pictures(4)), progress=False)
    random = torch.rand(1)
    torch.manual_seed(1)
    assert random == torch.rand(1)
    for one, other in zip(before.modules(), model.modules(), strict=True):
        assert one.training == other.training
        assert not other._forward_hooks
    for (name, one), other in zip(before.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    for one, other in zip(before.parameters(), model.parameters(), strict=True):
        assert one.requires_grad == other.requires_grad
        assert one.stride() == other.stride()
    assert torch.equal(model[8].weight.grad, gradient)
    assert all(p.grad is None for p in model[:8].parameters())


def test_the_result_says_what_was_done():
    model = hold(network(), ["0", "1", "3"])
    quick = cached(model, loader(pictures(), batch_size=4), loader(pictures(4)), progress=False)
    assert quick.after == ["4"]
    assert quick.bytes == (10 + 4) * 6 * 64 * 8
    text = repr(quick)
    for part in ("up to 4", "'5.body.0' is trainable", "14", "in memory"):
        assert part in text
    assert quick.to_dict()["after"] == ["4"]
    assert "<table>" in quick._repr_html_()


def test_several_heads_learn_from_the_same_activations():
    model = hold(network(), ["0", "1", "3", "5"])
    quick = cached(model, loader(pictures(), batch_size=5), progress=False)
    activations, targets = next(iter(quick.train))
    assert torch.equal(targets, torch.tensor([0, 1, 2, 0, 1]))
    head = nn.Linear(6 * 64, 3, dtype=torch.float64)
    history = fit(
        head, quick.train, epochs=3, optimizer=torch.optim.SGD(head.parameters(), lr=0.1), progress=False
    )
    assert activations.shape == (5, 6 * 64)
    assert history.rows[-1]["train loss"] < history.rows[0]["train loss"]
