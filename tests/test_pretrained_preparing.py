"""Asking for weights, preparing images rightly and wrongly, and the map of features."""

import warnings

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models

from ftlab import data, pretrained
from ftlab.pretrained import EfficientNet_Lite0_Weights as Lite0
from ftlab.pretrained.preparing import exchange_red_and_blue


@pytest.fixture(scope="module")
def model():
    return pretrained.load()


def state_of(model):
    return [module.training for module in model.modules()], {k: v.clone() for k, v in model.state_dict().items()}


def assert_same_state(model, before):
    modes, tensors = state_of(model)
    assert modes == before[0]
    assert all(torch.equal(tensors[key], before[1][key]) for key in tensors)


# Asking


@pytest.mark.parametrize(
    "name", ["resnet50", "vit_b_16", "efficientnet_lite0", "googlenet", "inception_v3", "swin_t"]
)
def test_each_entry_of_a_network_is_recognised(name):
    for entry in models.get_model_weights(name):
        assert pretrained.asked_weights(lambda entry=entry: models.get_model(name, weights=entry)) is entry
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torchvision's, about the initialisation of two of them
        assert pretrained.asked_weights(lambda: models.get_model(name)) is None


def test_asking_downloads_nothing_and_leaves_torchvision_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: pytest.fail("it was downloaded"))
    before = models.ResNet18_Weights.get_state_dict
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    pretrained.asked_weights(lambda: models.resnet18(weights="DEFAULT"))
    with pytest.raises(TypeError):
        pretrained.asked_weights(lambda: models.resnet18(weights=models.ResNet50_Weights.DEFAULT))
    assert torch.rand(1) == expected
    assert models.ResNet18_Weights.get_state_dict is before
    assert list(tmp_path.iterdir()) == []
    assert len(Lite0.DEFAULT.get_state_dict()) == 296
    assert torch.rand(1).device.type == "cpu"


def test_entries_tell_what_torchvision_tells():
    rows = pretrained.entries("resnet50").to_dict()
    assert [row["weights"] for row in rows] == ["IMAGENET1K_V1", "IMAGENET1K_V2"]
    assert [row["default"] for row in rows] == ["", "yes"]
    assert (
        rows[1]["ImageNet accuracy %"] == models.ResNet50_Weights.DEFAULT.meta["_metrics"]["ImageNet-1K"]["acc@1"]
    )
    with pytest.raises(ValueError, match="no classification model"):
        pretrained.entries("resnet51")


@pytest.mark.parametrize("name", pretrained.catalogue.names())
def test_every_network_has_entries_to_list(name):
    assert "yes" in [row["default"] for row in pretrained.entries(name).to_dict()]


# Preparing


IMAGE = Image.effect_noise((300, 300), 80).convert("RGB")


@pytest.mark.parametrize("mistake", pretrained.MISTAKES)
@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet50"])
def test_each_mistake_gives_another_tensor_and_no_error(mistake, name):
    colourful = Image.merge(
        "RGB", [IMAGE.split()[0], Image.new("L", IMAGE.size, 40), Image.new("L", IMAGE.size, 200)]
    )
    right = pretrained.preprocessing(name)(colourful)
    wrong = pretrained.wrong_preprocessing(mistake, name)(colourful)
    assert wrong.shape != right.shape or not torch.allclose(wrong, right, atol=0.05)


def test_the_mistakes_are_what_their_names_say():
    white, red = Image.new("RGB", (300, 300), "white"), Image.new("RGB", (300, 300), "red")
    assert pretrained.wrong_preprocessing("0 to 255")(white).max() == pytest.approx(255, abs=0.01)
    assert pretrained.wrong_preprocessing("no normalisation")(white).max() == pytest.approx(1, abs=0.01)
    blue = pretrained.preprocessing()(Image.new("RGB", (300, 300), "blue"))
    assert torch.equal(pretrained.wrong_preprocessing("BGR")(red), blue)
    assert pretrained.wrong_preprocessing("too small")(white).shape == (3, 75, 75)
    assert pretrained.wrong_preprocessing("too large", size=48)(white).shape == (3, 96, 96)
    imagenet = models.ResNet18_Weights.DEFAULT.transforms()
    other = pretrained.wrong_preprocessing("another normalisation")
    assert (tuple(other.mean), tuple(other.std)) == (tuple(imagenet.mean), tuple(imagenet.std))
    assert list(pretrained.wrong_preprocessing("another normalisation", "resnet18").mean) != list(imagenet.mean)


def test_an_unknown_mistake_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"no mistake 'no normalization'; the nearest.* 'no normalisation'"):
        pretrained.wrong_preprocessing("no normalization")


def test_what_is_seen_of_a_right_tensor_is_the_image():
    prepare = pretrained.preprocessing(size=64)
    seen = pretrained.as_seen(prepare(IMAGE), Lite0.DEFAULT)
    expected = IMAGE.resize((64, 64), Image.Resampling.BICUBIC)
    assert seen.size == (64, 64)
    pairs = zip(seen.tobytes(), expected.tobytes(), strict=True)
    assert max(abs(one - other) for one, other in pairs) <= 1
    red = Image.new("RGB", (9, 9), (200, 10, 30))
    assert pretrained.as_seen(prepare(exchange_red_and_blue(red)), Lite0.DEFAULT).getpixel((3, 3)) == (
        30,
        10,
        200,
    )


def test_too_large_numbers_are_seen_as_white():
    grey = Image.new("RGB", (64, 64), (90, 90, 90))
    tensor = pretrained.wrong_preprocessing("0 to 255", size=64)(grey)
    assert pretrained.as_seen(tensor, Lite0.DEFAULT).getpixel((3, 3)) == (255, 255, 255)


# Measuring


def test_the_cost_is_that_of_plain_pytorch_and_nothing_is_changed(model):
    model.train()
    model.features[2].eval()
    before = state_of(model)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    photographs = pretrained.photographs()
    ways = {
        "right": pretrained.preprocessing(size=96),
        "0 to 255": pretrained.wrong_preprocessing("0 to 255", size=96),
    }
    rows = pretrained.preprocessing_cost(
        model, [(each.image, each.right) for each in photographs], ways
    ).to_dict()
    assert torch.rand(1) == expected
    assert_same_state(model, before)
    right = []
    with torch.no_grad():
        for each in photographs:
            scores = pretrained.load().eval()(ways["right"](each.image)[None])[0]
            right.append(int(scores.argmax()) in each.right)
    assert rows[0]["first is right %"] == 100 * sum(right) / 5
    assert rows[1]["probability %"] < rows[0]["probability %"] - 30


def test_nothing_to_measure_on_is_said(model):
    with pytest.raises(ValueError, match="no image"):
        pretrained.preprocessing_cost(model, [], {})


def test_the_top_classes_are_in_order_and_the_model_is_as_before(model):
    model.train()
    before = state_of(model)
    cat = pretrained.preprocessing()(pretrained.photographs()[0].image)
    said = pretrained.top_classes(model, cat, Lite0.DEFAULT.meta["categories"])
    assert_same_state(model, before)
    assert set(said) >= {"tabby", "tiger cat", "Egyptian cat"}
    assert list(said.values()) == sorted(said.values(), reverse=True)


def test_views_are_the_same_each_time_and_leave_the_random_state():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one, again, other = pretrained.views(1), pretrained.views(1), pretrained.views(1, seed=1)
    assert torch.rand(1) == expected
    assert [image.tobytes() for image, _ in one] == [image.tobytes() for image, _ in again]
    assert [image.tobytes() for image, _ in one] != [image.tobytes() for image, _ in other]


# The map


def test_the_map_is_the_plane_of_the_exact_decomposition():
    torch.manual_seed(0)
    features = torch.randn(60, 10) * torch.tensor([9.0, 5.0] + [0.3] * 8) @ torch.randn(10, 10)
    state = torch.get_rng_state()
    points = pretrained.flat_map(features)
    assert torch.equal(torch.get_rng_state(), state)
    standard = (features - features.mean(0)) / features.std(0)
    exact = torch.linalg.svd(standard, full_matrices=False)
    expected = (exact.U * exact.S)[:, :2].abs()
    assert torch.allclose(points.abs(), expected, atol=0.05)
    assert torch.allclose(points, pretrained.flat_map(features, seed=7), atol=0.05)


def test_groups_that_are_far_apart_are_so_in_the_map():
    torch.manual_seed(0)
    features = torch.cat([torch.randn(20, 8) + 6, torch.randn(20, 8) - 6])
    points = pretrained.flat_map(features)
    assert (points[:20, 0] > 0).all() != (points[20:, 0] > 0).all()


@pytest.mark.parametrize("shape", [(2, 5), (5, 1), (0, 5)])
def test_a_map_of_too_little_is_refused(shape):
    with pytest.raises(ValueError, match="at least 3 images"):
        pretrained.flat_map(torch.zeros(shape))


def test_the_map_is_drawn_with_a_marker_per_group():
    figure = pretrained.draw_map(torch.rand(6, 2), [0, 1] * 3, ["cat", "dog"], ["one", "other"] * 3)
    assert repr(figure) == "a map of 6 images of 2 classes, in 2 groups: one, other"
    (ax,) = figure.axes
    assert len(ax.collections) == 2
    assert {text.get_text() for text in ax.texts} == {"cat", "dog"}
    assert figure._repr_png_()[:4] == b"\x89PNG"


def test_a_constant_feature_does_no_harm():
    features = torch.randn(9, 4)
    features[:, 2] = 5
    assert pretrained.flat_map(features).isfinite().all()


def test_features_of_an_unknown_layer_are_refused(model):
    with pytest.raises(ValueError, match=r"no module 'features\.9'"):
        pretrained.features(model, [torch.zeros(1, 3, 32, 32)], ["features.9"], progress=False)


def test_emoji_are_recognised_in_another_hand(model):
    prepare = pretrained.preprocessing(size=64)
    found = []
    for vendor in ("noto", "twemoji"):
        dataset = torch.utils.data.Subset(data.emoji("all", vendor, transform=prepare), range(0, 504, 8))
        batches = torch.utils.data.DataLoader(dataset, batch_size=32)
        found.append(pretrained.features(model, batches, ["features.8"], progress=False)["features.8"])
    count = len(found[0])
    across = pretrained.similarity(torch.cat(found))[:count, count:].argmax(1)
    assert (across == torch.arange(count)).float().mean() > 0.4


def test_a_model_without_parameters_below_the_top_is_taken_too():
    tiny = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 6))
    assert len(pretrained.top_classes(tiny, torch.rand(3, 8, 8), list("abcdef"), count=9)) == 6
