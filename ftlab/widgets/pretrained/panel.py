"""The panel of the lesson on pretrained models: one picture, prepared rightly and wrongly, side by side."""

import io
from collections.abc import Mapping
from typing import Any

import ipywidgets as w
from PIL import Image, UnidentifiedImageError
from torch import nn

from ftlab import plots
from ftlab.data.images import as_rgb, read_image
from ftlab.pretrained import (
    MISTAKES,
    as_seen,
    backbone,
    load,
    photographs,
    preprocessing,
    top_classes,
    wrong_preprocessing,
)
from ftlab.pretrained.catalogue import offline_entries, offline_names
from ftlab.random_state import keep_random_state
from ftlab.widgets.panel import Panel, Picture
from ftlab.widgets.pretrained.code import preprocessing_code

RIGHT = "right"
LARGEST = 2048  # pixels of a side: a photograph of a phone is shrunk to it, or drawing it would take a minute
NARROWEST = 20  # times as long as wide: the short side becomes 256 pixels, so the long one must have a limit


class Upload(w.FileUpload):
    """A button that takes a file of the learner's; in a stored output it is nothing."""

    def to_html(self) -> str:
        """Return nothing: whose picture it was is nobody's business."""
        return ""


def _read(file: Mapping[str, Any]) -> Image.Image:
    """Return the picture in an uploaded file; say what is wrong with one that cannot be shown."""
    name, content = file["name"], bytes(file["content"])
    try:
        image = read_image(io.BytesIO(content), largest=LARGEST)
    except UnidentifiedImageError as error:
        begins = f"it begins with {content[:16]!r}" if content else "it is empty"
        raise ValueError(f"{name} is no image, whatever its name says: {begins}. Try a JPEG or a PNG") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{name} cannot be read as an image: {error}") from error
    if max(image.size) > NARROWEST * min(image.size):
        size = f"{image.width} × {image.height}"
        raise ValueError(f"{name} is too narrow, {size} pixels: cut out a piece that is nearer to a square")
    return image


class PreprocessingPanel(Panel):
    """Choose a picture, a network and a preprocessing; see what the network sees, and what it says.

    On the left the picture is prepared as the weights want it, on the right as chosen. "What the network sees" is
    the image that would be right for the numbers it gets. The networks are those that work offline here.

    Args:
        pictures: By name; the five photographs of `ftlab.pretrained.photographs` if None.

    Example:
        >>> panel = PreprocessingPanel()
        >>> panel.preprocessing.value = "0 to 255"
        >>> panel
        cat, efficientnet_lite0: with the right preprocessing tiger cat (39 %), with "0 to 255" pillow (41 %)
    """

    title = "What does the network see, and what does it say?"

    def __init__(self, pictures: Mapping[str, Image.Image] | None = None) -> None:
        given = pictures or {each.name: each.image for each in photographs()}
        self.pictures = {name: as_rgb(image) for name, image in given.items()}
        self._models: dict[str, nn.Module] = {}
        self._given = set(self.pictures)
        self.picture = w.Dropdown(options=list(self.pictures), description="picture")
        self.upload = Upload(accept="image/*", multiple=False, description="Your own picture")
        self.upload.layout.width = "200px"
        names = offline_names()
        first = backbone() if backbone() in names else names[0]
        self.network = w.Dropdown(options=names, value=first, description="network")
        self.preprocessing = w.Dropdown(options=[RIGHT, *MISTAKES], value=MISTAKES[0], description="preparation")
        self.view_of_both = Picture()
        rows = [
            w.HBox([self.picture, self.upload]),
            w.HBox([self.network, self.preprocessing]),
            self.view_of_both,
        ]
        super().__init__(*rows)
        for control in (self.picture, self.network, self.preprocessing):
            self.on(control)
        self.on(self.upload, self._uploaded)

    @property
    def image(self) -> Image.Image:
        """The picture that was chosen, as RGB."""
        return self.pictures[self.picture.value]

    @property
    def model(self) -> nn.Module:
        """The network that was chosen, in eval mode; each is loaded once."""
        name = self.network.value
        if name not in self._models:
            with keep_random_state():  # building a model draws random numbers, though the weights replace them
                self._models[name] = load(name, weights=self.entry).eval()
        return self._models[name]

    @property
    def entry(self):
        """The weights of the network that was chosen: the first entry whose file is on this machine."""
        return offline_entries(self.network.value)[0]

    def said(self, mistake: str | None = None) -> dict[str, float]:
        """Return the five most probable classes, with the preprocessing that is chosen or another one."""
        tensor = self._prepare(self.preprocessing.value if mistake is None else mistake)(self.image)
        return top_classes(self.model, tensor, self.entry.meta["categories"])

    def _prepare(self, mistake: str):
        name, entry = self.network.value, self.entry
        return preprocessing(name, entry) if mistake == RIGHT else wrong_preprocessing(mistake, name, entry)

    def _uploaded(self) -> None:
        for file in self.upload.value:
            name = file["name"]
            name = f"your {name}" if name in self._given else name
            self.pictures[name] = _read(file)
            self.picture.options = list(self.pictures)
            self.picture.value = name

    def _render(self) -> None:
        names = list(dict.fromkeys([RIGHT, self.preprocessing.value]))
        seen = [as_seen(self._prepare(name)(self.image), self.entry) for name in names]
        self._answers = [self.said(name) for name in names]
        titles = [f"{name}, {image.width} × {image.height}" for name, image in zip(names, seen, strict=True)]
        figure = plots.seen_and_said(self.image, seen, titles, self._answers)
        self.view_of_both.show(figure, figure.says)

    def describe(self) -> str:
        """Return what the network says first, with either preprocessing."""
        first = [next(iter(answer.items())) for answer in self._answers]
        said = [f"{name} ({share:.0%})".replace("%", " %") for name, share in first]
        line = f"{self.picture.value}, {self.network.value}: with the right preprocessing {said[0]}"
        return line + (f', with "{self.preprocessing.value}" {said[1]}' if len(said) > 1 else "")

    def code(self) -> str:
        """Return plain PyTorch that prepares `image` as chosen and prints what the network says."""
        return preprocessing_code(self.entry, self.network.value, self.preprocessing.value)
