"""Pretrained models: the embedded one is right, and loading any other is honest about what happened."""

import hashlib
import io
from pathlib import Path

import pytest
import skimage
import torch
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models
from torchvision.transforms import v2

from ftlab import pretrained
from ftlab.pretrained import lite
from ftlab.pretrained.catalogue import cached_file, names
from ftlab.pretrained.loading import _build
from tests.fileserver import serving

PHOTOGRAPHS = Path(skimage.__file__).parent / "data"


@pytest.fixture(scope="module")
def model():
    return models.get_model("efficientnet_lite0", weights="DEFAULT").eval()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Give an empty download cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def server():
    with serving() as running:
        yield running


def bytes_of(state) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def shufflenet():
    return _build("shufflenet_v2_x0_5", weights=None)


# The embedded network


def test_is_registered_with_torchvision():
    assert "efficientnet_lite0" in models.list_models()
    weights = models.get_model_weights("efficientnet_lite0").DEFAULT
    assert weights.meta["categories"][281] == "tabby"
    assert weights.transforms()(Image.new("RGB", (300, 500))).shape == (3, 224, 224)


def test_every_tensor_of_the_file_has_its_place():
    theirs = torch.load(lite.weights_file(), weights_only=True)
    ours = lite.efficientnet_lite0().state_dict()
    assert len(theirs) == 296
    assert {lite.our_key(key): value.shape for key, value in theirs.items()} == {
        key: value.shape for key, value in ours.items()
    }


def test_the_file_is_the_one_its_name_promises():
    assert hashlib.sha256(lite.weights_file().read_bytes()).hexdigest().startswith("57934424")


def test_meta_tells_the_truth(model):
    meta = pretrained.EfficientNet_Lite0_Weights.DEFAULT.meta
    assert meta["num_params"] == sum(p.numel() for p in model.parameters())
    assert meta["_file_size"] == pytest.approx(lite.weights_file().stat().st_size / 2**20, abs=0.01)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 224, 224))
    assert meta["_ops"] == pytest.approx(counter.get_total_flops() / 2e9, abs=0.001)


@pytest.mark.parametrize(
    ("photograph", "expected"),
    [
        ("chelsea.png", {"tabby", "tiger cat", "Egyptian cat"}),
        ("coffee.png", {"espresso", "cup", "coffee mug"}),
        ("rocket.jpg", {"missile", "projectile"}),
        ("motorcycle_left.png", {"moped", "motor scooter"}),
        ("camera.png", {"tripod", "reflex camera"}),
    ],
)
def test_photographs_get_their_class_among_the_top_five(model, photograph, expected):
    weights = pretrained.EfficientNet_Lite0_Weights.DEFAULT
    image = Image.open(PHOTOGRAPHS / photograph).convert("RGB")
    with torch.no_grad():
        best = model(weights.transforms()(image)[None]).topk(5).indices[0]
    assert expected & {weights.meta["categories"][i] for i in best}


def test_symmetric_padding_would_lose_what_was_learned(model, monkeypatch):
    # The partner of the photographs: with PyTorch's usual padding the same parameters know them less well.
    # One view proves nothing (single photographs go either way), so it is the mean over random crops.
    normalise = v2.Compose(
        [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
    )
    crop = v2.RandomResizedCrop(224, scale=(0.3, 1))
    known = {"motorcycle_left.png": [665, 670], "camera.png": [759, 872]}
    torch.manual_seed(0)
    batches = {
        name: torch.stack([normalise(crop(Image.open(PHOTOGRAPHS / name).convert("RGB"))) for _ in range(16)])
        for name in known
    }

    def confidence() -> float:
        with torch.no_grad():
            return sum(model(batches[name]).softmax(1)[:, known[name]].sum(1).mean().item() for name in known)

    def symmetric(conv, x):
        padding = (conv.kernel_size[0] - 1) // 2
        return nn.functional.conv2d(x, conv.weight, None, conv.stride, padding, 1, conv.groups)

    right = confidence()
    monkeypatch.setattr(lite.SamePaddingConv2d, "forward", symmetric)
    assert confidence() < right - 0.1


@pytest.mark.parametrize("size", [32, 33, 97, 224])
def test_same_padding_gives_the_size_divided_by_the_stride_rounded_up(size):
    conv = lite.SamePaddingConv2d(1, 1, 3, 2)
    assert conv(torch.zeros(1, 1, size, size)).shape[-1] == -(-size // 2)


def test_weights_with_another_class_count_are_refused():
    with pytest.raises(ValueError, match="know 1000 classes, num_classes=5"):
        lite.efficientnet_lite0(weights="DEFAULT", num_classes=5)


# load


def test_load_gives_the_pretrained_parameters_by_default(model):
    loaded = pretrained.load()
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))
    assert all(module.training for module in loaded.modules())


def test_random_parameters_only_when_asked(model):
    random = pretrained.load(weights=None)
    assert not torch.equal(random.features[0][0].weight, model.features[0][0].weight)


def test_a_new_head_leaves_the_backbone_alone(model):
    loaded = pretrained.load(num_classes=8).eval()
    assert loaded(torch.zeros(2, 3, 64, 64)).shape == (2, 8)
    ours, theirs = loaded.features.state_dict(), model.features.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_every_model_has_weights_with_the_facts_that_the_table_shows():
    table = pretrained.available()
    assert (
        next(row["model"] for row in table.to_dict() if row["on this machine"] == "yes") == "efficientnet_lite0"
    )
    assert len(table) == len(names()) > 75
    assert "efficientnet_lite0" in repr(table)
    assert "<table>" in table._repr_html_()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet81"}, "'resnet81' is no classification model.*nearest.*'resnet18'"),
        ({"name": "fcn_resnet50"}, "no classification model"),
        ({"name": "resnet50", "weights": "V3"}, "'IMAGENET1K_V1', 'IMAGENET1K_V2', 'DEFAULT'"),
        ({"weights": models.ResNet18_Weights.DEFAULT}, "'efficientnet_lite0' has no weights ResNet18_Weights"),
        ({"num_classes": 0}, "at least 1, not 0"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_ones(arguments, message):
    with pytest.raises(ValueError, match=message):
        pretrained.load(**arguments)


# Files


@pytest.mark.parametrize("given", ["4", 4.0, True])
def test_a_number_of_classes_is_a_whole_number(given):
    with pytest.raises(TypeError, match="must be a whole number, not"):
        pretrained.load(num_classes=given)


@pytest.mark.parametrize("size", [0, -1, "64", 64.0, True])
@pytest.mark.parametrize(
    "prepare", [pretrained.preprocessing, lambda *, size: pretrained.wrong_preprocessing("BGR", size=size)]
)
def test_a_size_is_a_number_of_pixels(prepare, size):
    with pytest.raises(ValueError, match="whole number of pixels, at least 1, not"):
        prepare(size=size)


@pytest.mark.parametrize("given", ["resnet18", 3, None])
def test_what_is_neither_an_entry_nor_an_address_is_not_fetched(given):
    with pytest.raises(TypeError, match="neither an entry of a weights enum nor an address"):
        pretrained.fetch(given)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (Image.new("RGB", (8, 8)), TypeError, "must be prepared: a tensor .3, H, W. of floats, not a Image"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), TypeError, "not a tensor of torch.uint8"),
        (torch.zeros(1, 3, 8, 8), ValueError, r"not \(1, 3, 8, 8\); of a batch take batch\[0\]"),
        (torch.zeros(3, 8, 8), ValueError, "gives 1000 scores, and there are 2 categories"),
    ],
)
def test_top_classes_wants_one_prepared_image_and_a_name_per_score(model, image, error, message):
    with pytest.raises(error, match=message):
        pretrained.top_classes(model, image, ["a", "b"])


class Skips(nn.Module):
    """A module that is never called, one that gives a tuple, and no parameter."""

    def __init__(self):
        super().__init__()
        self.relu, self.never, self.two = nn.ReLU(), nn.ReLU(), nn.AdaptiveMaxPool2d(1, return_indices=True)

    def forward(self, images):
        return self.two(self.relu(images))


@pytest.mark.parametrize(
    ("layer", "batches", "error", "message"),
    [
        ("never", 1, ValueError, "'never' gave nothing"),
        ("relu", 0, ValueError, "there was no batch"),
        ("two", 1, TypeError, "'two' gives a tuple, not a tensor"),
        ("rellu", 1, ValueError, "no module 'rellu'; the nearest is 'relu'"),
    ],
)
def test_features_say_why_there_are_none(layer, batches, error, message):
    model = Skips()
    with pytest.raises(error, match=message):
        pretrained.features(model, [torch.rand(2, 3, 4, 4)] * batches, layer, progress=False)
    assert not any(module._forward_hooks for module in model.modules())


def test_features_of_a_model_without_parameters():
    found = pretrained.features(Skips(), [torch.rand(2, 3, 4, 4)], "relu", progress=False)
    assert found["relu"].shape == (2, 3)


@pytest.mark.parametrize("given", [torch.zeros(3), torch.zeros(3, 4, 2, 2), [1], None])
@pytest.mark.parametrize("use", [pretrained.similarity, pretrained.flat_map])
def test_features_are_one_row_per_image(use, given):
    with pytest.raises(ValueError, match="one row per image, not"):
        use(given)


def test_a_file_with_another_class_count_is_loaded_with_its_own_head(tmp_path):
    trained = pretrained.load(weights=None, num_classes=3)
    torch.save(trained.state_dict(), tmp_path / "mine.pt")
    again = pretrained.load(weights=tmp_path / "mine.pt")
    assert torch.equal(again.classifier[1].weight, trained.classifier[1].weight)
    other = pretrained.load(weights=str(tmp_path / "mine.pt"), num_classes=4)
    assert other.classifier[1].out_features == 4
    assert torch.equal(other.features[0][0].weight, trained.features[0][0].weight)


def test_files_that_hold_something_else_are_named(tmp_path, shufflenet):
    torch.save(shufflenet.state_dict(), tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt does not hold the tensors of 'efficientnet_lite0'"):
        pretrained.load(weights=tmp_path / "other.pt")
    (tmp_path / "page.pt").write_text("<!DOCTYPE html>")
    with pytest.raises(ValueError, match="cannot be read as a state_dict"):
        pretrained.load(weights=tmp_path / "page.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="holds a list"):
        pretrained.load(weights=tmp_path / "list.pt")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        pretrained.load(weights=tmp_path / "gone.pt")


def test_a_file_that_would_run_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save(Evil(), tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="cannot be read"):
        pretrained.load(weights=tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


# Downloads, over a real connection


def serve_as_weights(server, monkeypatch, entry, body):
    path = f"/{'x'}-{hashlib.sha256(body).hexdigest()[:8]}.pth"
    server.files[path] = body
    monkeypatch.setattr(entry.value, "url", server.url + path)
    return path


def test_a_download_is_kept_and_used_again(server, hub, monkeypatch, shufflenet):
    entry = models.ShuffleNet_V2_X0_5_Weights.DEFAULT
    path = serve_as_weights(server, monkeypatch, entry, bytes_of(shufflenet.state_dict()))
    assert "shufflenet_v2_x0_5" not in pretrained.catalogue.offline_names()
    for _ in range(2):
        loaded = pretrained.load("shufflenet_v2_x0_5")
    assert torch.equal(loaded.fc.weight, shufflenet.fc.weight)
    assert server.asked == [path]
    assert "shufflenet_v2_x0_5" in pretrained.catalogue.offline_names()
    assert [file.name for file in hub.iterdir()] == [path[1:]]


@pytest.mark.parametrize("break_it", ["cut", "changed", "missing"])
def test_a_broken_download_leaves_nothing_behind(server, hub, monkeypatch, shufflenet, break_it):
    entry = models.ShuffleNet_V2_X0_5_Weights.DEFAULT
    path = serve_as_weights(server, monkeypatch, entry, bytes_of(shufflenet.state_dict()))
    whole = server.files[path]
    if break_it == "cut":
        server.cut.add(path)
    else:
        server.files[path] = {"changed": whole[:-1] + b"x", "missing": None}[break_it]
    said = {"cut": "ended after", "changed": "has sha256", "missing": "404"}[break_it]
    with pytest.raises(FileNotFoundError, match=f"{path[1:]} is not on this machine.*{said}.*efficientnet_lite0"):
        pretrained.load("shufflenet_v2_x0_5")
    assert list(hub.iterdir()) == []
    server.cut.clear()
    server.files[path] = whole
    assert isinstance(pretrained.load("shufflenet_v2_x0_5"), nn.Module)  # the next try is not poisoned


def test_an_address_without_a_hash_is_read_before_it_is_kept(server, hub, shufflenet):
    server.files["/mine.pth"] = b"<!DOCTYPE html><title>Please log in</title>"
    with pytest.raises(FileNotFoundError, match="begins with b'<!DOCTYPE html>"):
        pretrained.load("shufflenet_v2_x0_5", weights=f"{server.url}/mine.pth")
    assert list(hub.iterdir()) == []
    server.files["/mine.pth"] = bytes_of(shufflenet.state_dict())
    loaded = pretrained.load("shufflenet_v2_x0_5", weights=f"{server.url}/mine.pth", num_classes=2)
    assert loaded.fc.out_features == 2


def test_without_a_network_the_error_says_all_that_helps(hub, monkeypatch):
    monkeypatch.setattr(models.ResNet18_Weights.DEFAULT.value, "url", "http://127.0.0.1:9/resnet18-f37072fd.pth")
    with pytest.raises(FileNotFoundError) as caught:
        pretrained.load("resnet18")
    for part in ("resnet18-f37072fd.pth", str(hub), "work offline: efficientnet_lite0", "weights=None"):
        assert part in str(caught.value)


def test_a_damaged_file_in_the_cache_is_named(hub, monkeypatch):
    hub.mkdir(parents=True)
    path = cached_file(models.ResNet18_Weights.DEFAULT)
    path.write_bytes(b"half a file")
    with pytest.raises(OSError, match=r"resnet18-f37072fd\.pth \(11 bytes\).*Delete it"):
        pretrained.load("resnet18")
