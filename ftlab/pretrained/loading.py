"""Load a model with the weights that were asked for, or say plainly why not."""

import warnings
from numbers import Integral
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.hub import HASH_REGEX
from torchvision.models._api import WeightsEnum

from ftlab.download import download
from ftlab.pretrained.backbone import backbone
from ftlab.pretrained.catalogue import builder_of, cached_file, offline_names, weights_of
from ftlab.surgery.heads import class_count, head_names, replace_head

WeightsSource = str | PathLike | WeightsEnum | None


def load(
    name: str | None = None, *, weights: WeightsSource = "DEFAULT", num_classes: int | None = None
) -> nn.Module:
    """Build any torchvision classification model with pretrained, own or random parameters.

    The model is new and, as PyTorch has it, in training mode: call `.eval()` before you predict.

    The trap: `weights=None` means random parameters. torchvision's builders take it as their default, without a
    word; here pretrained is the default, and random has to be asked for.

    Args:
        name: A name that `available()` lists; that of `backbone()` if None.
        weights: `"DEFAULT"`, another entry such as `"IMAGENET1K_V1"`, None for random parameters, or the path or
            address of a file with a `state_dict`. Only plain tensors are read from a file, no code is run.
        num_classes: Replace the head by a new, random one with this many outputs. None keeps the head.

    Raises:
        ValueError: There is no such model or entry, `num_classes` is below 1, or the file holds another model.
        TypeError: `num_classes` is no whole number.
        FileNotFoundError: The weights are not on this machine and could not be fetched. The message says
            which file is missing, where it would be kept, and which models work offline.

    Example:
        >>> model = load(num_classes=8)
        >>> model(torch.zeros(2, 3, 96, 96)).shape
        torch.Size([2, 8])
    """
    if num_classes is not None:
        num_classes = class_count(num_classes)
    name = name or backbone()
    if weights is None:
        return _build(name, weights=None, num_classes=num_classes or 1000)
    if _is_file_or_address(weights):
        return _from_file(name, fspath(weights), num_classes)
    model = _from_entry(name, weights_of(name, weights))
    if num_classes is not None:
        replace_head(model, num_classes)
    return model


def preprocessing(
    name: str | None = None, weights: str | WeightsEnum = "DEFAULT", *, size: int | None = None
) -> nn.Module:
    """Return the transforms that belong to the weights: resize, crop and normalisation, image in, tensor out.

    The trap: each entry has its own. An image that is normalised in another way is another image to the model.

    Args:
        name: A name that `available()` lists; that of `backbone()` if None.
        weights: An entry, or its name.
        size: Height and width in pixels instead of those of the weights. Smaller is faster and less accurate.

    Raises:
        ValueError: There is no such model or entry, or `size` is no whole number of pixels.

    Example:
        >>> preprocessing("resnet50", "IMAGENET1K_V1").resize_size, preprocessing("resnet50").resize_size
        ([256], [232])
        >>> from PIL import Image
        >>> preprocessing(size=64)(Image.new("RGB", (300, 500))).shape
        torch.Size([3, 64, 64])
    """
    return weights_of(name or backbone(), weights).transforms(**sizes_of(size))


def sizes_of(size: int | None) -> dict[str, int]:
    """Return the arguments of `weights.transforms(...)` for images of `size` pixels; None means their own.

    Raises:
        ValueError: `size` is no whole number of pixels.
    """
    if size is None:
        return {}
    if isinstance(size, bool) or not isinstance(size, Integral) or size < 1:
        raise ValueError(f"size must be a whole number of pixels, at least 1, not {size!r}")
    return {"resize_size": int(size), "crop_size": int(size)}


def fetch(weights: WeightsEnum | str, *, home: Path | None = None, source: str = "") -> Path:
    """Return the file of `weights` (an entry or an address), downloading it if it is not on this machine.

    A download that breaks, or whose bytes are not those announced by the hash in its name, leaves no file behind.

    Args:
        weights: An entry, or an address.
        home: A folder to be used as `TORCH_HOME`; torch's own if None.
        source: Another address that has the same file, such as a `file://` of a memory stick.

    Raises:
        TypeError: It is neither an entry nor an address.
        FileNotFoundError: It is not here and could not be fetched.
    """
    if not isinstance(weights, WeightsEnum) and "://" not in str(weights):
        raise TypeError(
            f"{weights!r} is neither an entry of a weights enum nor an address; an entry is, for example, "
            'torchvision.models.get_model_weights("resnet18").DEFAULT'
        )
    path = cached_file(weights, home)
    if path.exists():
        return path
    url = source or (weights if isinstance(weights, str) else weights.url)
    hash_in_name = HASH_REGEX.search(path.name)
    try:
        # Without a hash in the name, only a file that can be read enters the cache.
        download(url, path, **({"sha256": hash_in_name[1]} if hash_in_name else {"check": _read}))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"the file {path.name} is not on this machine, and fetching it from {url} failed: {error}. "
            f"Once there is a network it will be kept in {path.parent}; you can also copy it there by hand. "
            f"Models that work offline: {', '.join(offline_names())}. Random parameters need none: weights=None"
        ) from error
    return path


def _is_file_or_address(weights: WeightsSource) -> bool:
    if isinstance(weights, PathLike):
        return True
    return isinstance(weights, str) and ("://" in weights or "/" in weights or Path(weights).suffix != "")


def _from_entry(name: str, entry: WeightsEnum) -> nn.Module:
    path = fetch(entry)
    try:
        return _build(name, weights=entry)
    except Exception as error:
        raise OSError(
            f"{path} ({path.stat().st_size:,} bytes) is on this machine but cannot be read "
            f"({type(error).__name__}: {error}). Delete it, and it will be fetched again"
        ) from error


def _from_file(name: str, source: str, num_classes: int | None) -> nn.Module:
    builder_of(name)  # an unknown name is said before anything is fetched
    path = fetch(source) if "://" in source else Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}; a path is taken from {Path.cwd()}")
    state = _state_dict(path)
    model = _build(name, weights=None)
    weight = state.get(f"{head_names(model)[-1]}.weight")
    if isinstance(weight, Tensor) and len(weight) != 1000:
        replace_head(model, len(weight))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} does not hold the tensors of {name!r}. PyTorch says: {error}") from error
    if num_classes is not None:
        replace_head(model, num_classes)
    return model


def _state_dict(path: Path) -> dict[str, Tensor]:
    try:
        state = _read(path)
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read as a state_dict ({path.stat().st_size:,} bytes; {type(error).__name__}: "
            f"{error}). If it was downloaded, delete it and fetch it again"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds a {type(state).__name__}, not a state_dict; save model.state_dict()")
    return state


def _read(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _build(name: str, **config: Any) -> nn.Module:
    with warnings.catch_warnings():
        # GoogLeNet and Inception announce a change of their random initialisation; it is torchvision's matter.
        warnings.simplefilter("ignore", FutureWarning)
        return builder_of(name)(**config)
