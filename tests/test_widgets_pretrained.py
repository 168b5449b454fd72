"""The panel of the lesson on pretrained models: what it shows is what plain PyTorch finds."""

import datetime
import io

import numpy as np
import pytest
import torch
from PIL import Image

from ftlab import pretrained
from ftlab.pretrained import EfficientNet_Lite0_Weights as Lite0
from ftlab.widgets.pretrained import PreprocessingPanel

CAT = pretrained.photographs()[0].image.resize((300, 300))


@pytest.fixture
def panel():
    panel = PreprocessingPanel({"cat": CAT, "grey": Image.new("L", (256, 256), 128)})
    yield panel
    panel.close()


def uploaded(name, content):
    now = datetime.datetime.now(tz=datetime.UTC)
    kind = {"name": name, "type": "image/png", "size": len(content), "last_modified": now}
    return {**kind, "content": memoryview(content)}


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_it_begins_with_right_and_wrong_side_by_side(panel):
    assert panel.preprocessing.value == "another normalisation"
    assert repr(panel).startswith("cat, efficientnet_lite0: with the right preprocessing ")
    assert 'with "another normalisation" ' in repr(panel)
    assert "right, 224 × 224: " in panel.view_of_both.alt
    assert "another normalisation, 224 × 224: " in panel.view_of_both.alt


@pytest.mark.parametrize("mistake", ["right", *pretrained.MISTAKES])
def test_the_code_says_what_the_panel_says(panel, mistake, capsys):
    panel.preprocessing.value = mistake
    names = {"image": panel.image}
    exec(panel.code(), names)
    assert names["said"].keys() == panel.said().keys()
    assert list(names["said"].values()) == pytest.approx(list(panel.said().values()), abs=1e-5)
    assert ("WRONG" in panel.code()) == (mistake != "right")


def test_right_alone_is_shown_once(panel):
    panel.preprocessing.value = "right"
    assert "with the right preprocessing" in repr(panel)
    assert repr(panel).count("%") == 1
    assert panel.view_of_both.alt.count("224 × 224") == 1


def test_the_size_that_the_network_sees_is_named(panel):
    panel.preprocessing.value = "too small"
    assert "too small, 75 × 75: " in panel.view_of_both.alt


def test_what_is_said_is_what_pytorch_finds(panel):
    panel.preprocessing.value = "0 to 255"
    prepare = pretrained.wrong_preprocessing("0 to 255")
    with torch.no_grad():
        scores = pretrained.load().eval()(prepare(CAT)[None]).softmax(1)[0]
    best = [Lite0.DEFAULT.meta["categories"][place] for place in scores.topk(5).indices]
    assert list(panel.said()) == best
    assert not set(panel.said()) & {"tabby", "tiger cat", "Egyptian cat"}


def test_the_networks_are_those_that_work_offline(panel):
    assert "efficientnet_lite0" in panel.network.options
    assert list(panel.network.options) == pretrained.catalogue.offline_names()


def test_another_network_on_this_machine_can_be_chosen(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    entry = pretrained.catalogue.weights_of("shufflenet_v2_x0_5")
    file = pretrained.catalogue.cached_file(entry)
    file.parent.mkdir(parents=True)
    torch.save(pretrained.load("shufflenet_v2_x0_5", weights=None).state_dict(), file)
    panel = PreprocessingPanel({"cat": CAT})
    panel.network.value = "shufflenet_v2_x0_5"
    assert panel.failure is None
    assert repr(panel).startswith("cat, shufflenet_v2_x0_5: ")
    names = {"image": CAT}
    exec(panel.code(), names)
    assert names["said"].keys() == panel.said().keys()
    panel.close()


def test_an_own_picture_is_taken_and_chosen(panel):
    panel.upload.value = (uploaded("mine.png", png(Image.new("RGBA", (40, 60), (255, 0, 0, 0)))),)
    assert panel.failure is None
    assert panel.picture.value == "mine.png"
    assert panel.image.getpixel((3, 3)) == (255, 255, 255)  # transparent is white
    assert repr(panel).startswith("mine.png, ")


def test_a_file_that_is_no_picture_is_named_and_nothing_is_lost(panel, monkeypatch):
    monkeypatch.delenv("FTLAB_CI", raising=False)
    before = repr(panel)
    panel.upload.value = (uploaded("letter.docx", b"no picture"),)
    assert "letter.docx is no image, whatever its name says: it begins with b'no picture'" in str(panel.failure)
    assert repr(panel) == before
    panel.preprocessing.value = "BGR"
    assert panel.failure is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.png", b"", "empty.png is no image, whatever its name says: it is empty"),
        ("half.png", png(Image.new("RGB", (64, 64)))[:60], "half.png cannot be read as an image"),
        ("line.png", png(Image.new("L", (500, 2))), "line.png is too narrow, 500 × 2 pixels"),
    ],
    ids=["empty", "half", "line"],
)
def test_a_picture_that_cannot_be_shown_is_refused_and_the_one_before_stays(
    panel, monkeypatch, name, content, message
):
    monkeypatch.delenv("FTLAB_CI", raising=False)
    before = panel.describe()
    panel.upload.value = (uploaded(name, content),)
    assert message in str(panel.failure)
    assert panel.describe() == before
    assert name not in panel.pictures


def test_a_large_picture_is_shrunk_and_no_given_one_is_replaced(panel):
    panel.upload.value = (uploaded("cat", png(Image.new("1", (2500, 2000)))),)
    assert panel.failure is None
    assert panel.picture.value == "your cat"
    assert panel.image.size == (2048, 1638)
    assert panel.pictures["cat"].size == CAT.size
    panel.upload.value = (uploaded("cat", png(Image.new("RGB", (60, 40)))),)
    assert panel.image.size == (60, 40)  # the same name again is the newer picture


def test_a_stored_output_has_no_pixels_and_no_upload(panel):
    panel.upload.value = (uploaded("mine.png", png(CAT)),)
    html = panel.to_html()
    assert "[Picture: " in html
    assert "data:image" not in html
    assert "memory" not in html


def test_looking_leaves_the_random_state():
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    state = torch.get_rng_state()
    panel = PreprocessingPanel({"cat": CAT})
    panel.preprocessing.value = "BGR"
    assert torch.equal(torch.get_rng_state(), state)
    panel.close()
