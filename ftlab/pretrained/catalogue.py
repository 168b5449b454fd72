"""Which models there are, and whether their weights are on this machine."""

from pathlib import Path
from urllib.parse import urlparse

import torch
from torchvision import models
from torchvision.models._api import WeightsEnum

from ftlab.nearest import nearest
from ftlab.pretrained.lite import EfficientNet_Lite0_Weights, weights_file
from ftlab.table import Table


def names() -> list[str]:
    """Return the names of the classification models that `load` knows."""
    return ["efficientnet_lite0", *models.list_models(module=models)]


def builder_of(name: str):
    """Return torchvision's builder for `name`; the error for an unknown name shows the nearest."""
    if name not in names():
        raise ValueError(
            f"{name!r} is no classification model of torchvision; {nearest(name, names())}. "
            "ftlab.pretrained.available() lists them all"
        )
    return models.get_model_builder(name)


def weights_of(name: str, entry: str | WeightsEnum = "DEFAULT") -> WeightsEnum:
    """Return the entry of the weights enum of `name`, given the entry or its name."""
    enum = models.get_model_weights(builder_of(name))
    if isinstance(entry, enum):
        return entry
    key = str(entry).rpartition(".")[2]
    if isinstance(entry, WeightsEnum) or key not in enum.__members__:
        known = ", ".join(map(repr, enum.__members__))
        raise ValueError(f"{name!r} has no weights {entry!r}; it has {known}, or give a file, an address or None")
    return enum[key]


def cached_file(weights: WeightsEnum | str, home: Path | None = None) -> Path:
    """Return where the file of `weights` (an entry or an address) is, or would be once it is downloaded.

    Args:
        weights: An entry, or an address.
        home: A folder to be used as `TORCH_HOME`; torch's own if None.
    """
    if isinstance(weights, EfficientNet_Lite0_Weights):
        return weights_file()
    url = weights if isinstance(weights, str) else weights.url
    return Path(home / "hub" if home else torch.hub.get_dir(), "checkpoints", Path(urlparse(url).path).name)


def offline_entries(name: str) -> list[WeightsEnum]:
    """Return the entries of a model whose files are on this machine."""
    return [entry for entry in _entries(name) if cached_file(entry).exists()]


def offline_names() -> list[str]:
    """Return the models of which some weights are on this machine."""
    return [name for name in names() if offline_entries(name)]


def _entries(name: str) -> list[WeightsEnum]:
    return list(models.get_model_weights(name))


def available() -> Table:
    """List the classification models with size, accuracy and whether their weights are on this machine.

    Nothing is downloaded and no model is built. The numbers are those of the default weights, as their authors
    report them.

    Returns:
        A table; those that work offline come first, then from small to large.

    Example:
        >>> available().to_dict()[0]["model"]
        'efficientnet_lite0'
    """
    rows = [_row(name) for name in names()]
    rows.sort(key=lambda row: (row[-1] != "yes", row[1]))
    headers = ["model", "million parameters", "MB", "ImageNet accuracy %", "GFLOPs", "on this machine"]
    note = f"{len(rows)} models; downloads are kept in {Path(torch.hub.get_dir(), 'checkpoints')}"
    return Table(headers, rows, note=note)


def _row(name: str) -> list[object]:
    weights = weights_of(name)
    meta = weights.meta
    on_this_machine = "yes" if cached_file(weights).exists() else "no"
    accuracy = meta["_metrics"]["ImageNet-1K"]["acc@1"]
    return [name, meta["num_params"] / 1e6, meta["_file_size"], accuracy, meta["_ops"], on_this_machine]


def entries(name: str) -> Table:
    """List the weights that a model has: accuracy, the preprocessing that belongs to each, and where they are.

    Nothing is downloaded and no model is built.

    Raises:
        ValueError: There is no such model.

    Example:
        >>> [row["resize"] for row in entries("resnet50").to_dict()]
        [256, 232]
    """
    enum = models.get_model_weights(builder_of(name))
    headers = [
        "weights",
        "ImageNet accuracy %",
        "MB",
        "resize",
        "crop",
        "mean",
        "std",
        "default",
        "on this machine",
    ]
    rows = [_entry_row(entry, default=entry is enum.DEFAULT) for entry in enum]
    return Table(headers, rows, title=f"{name}: {enum.__name__}")


def _entry_row(entry: WeightsEnum, *, default: bool) -> list[object]:
    prepare, meta = entry.transforms(), entry.meta
    mean, std = (" ".join(f"{value:.3g}" for value in values) for values in (prepare.mean, prepare.std))
    accuracy = meta["_metrics"]["ImageNet-1K"]["acc@1"]
    here = "yes" if cached_file(entry).exists() else "no"
    sizes = [prepare.resize_size[0], prepare.crop_size[0]]
    return [entry.name, accuracy, meta["_file_size"], *sizes, mean, std, "yes" if default else "", here]
