"""What a network makes of images, layer by layer, and which images look alike to it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ftlab.given import refuse_no_model
from ftlab.modes import keep_modes
from ftlab.nearest import nearest
from ftlab.random_state import keep_random_state


@torch.no_grad()
def features(
    model: nn.Module, batches: DataLoader, layers: str | Sequence[str], *, progress: bool = True
) -> dict[str, Tensor]:
    """Return what each of `layers` gives for each image, averaged over the picture.

    The model is not changed: modes, buffers and random state are as before, and no hook stays. It runs in eval
    mode. The trap: a loader that shuffles gives the rows in another order than the dataset has.

    Args:
        model: Any module; its output is not looked at.
        batches: Batches of images, or of (images, class numbers).
        layers: Names of modules, as `model.named_modules()` gives them, or one name. Their output is
            (N, C, H, W), or (N, C).
        progress: Show a bar.

    Returns:
        One tensor (images, C) per layer, on the CPU.

    Raises:
        TypeError: It is no model, or a layer gives something else than a tensor, such as a tuple.
        ValueError: There is no module of such a name, forward does not call it, or there is no batch.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU())
        >>> images = torch.utils.data.DataLoader(torch.rand(6, 3, 8, 8), batch_size=2)
        >>> features(model, images, ["1"], progress=False)["1"].shape
        torch.Size([6, 5])
    """
    refuse_no_model(model)
    layers = [layers] if isinstance(layers, str) else list(layers)
    modules = dict(model.named_modules())
    unknown = [layer for layer in layers if layer not in modules]
    if unknown:
        raise ValueError(f"the model has no module {unknown[0]!r}; {nearest(unknown[0], filter(None, modules))}")
    found: dict[str, list[Tensor]] = {layer: [] for layer in layers}

    def keep(layer: str):
        def hook(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            if not isinstance(output, Tensor):
                raise TypeError(
                    f"{layer!r} gives a {type(output).__name__}, not a tensor; take a layer in it or after it"
                )
            found[layer].append(output.flatten(2).mean(2).cpu() if output.ndim > 2 else output.cpu())

        return hook

    handles = [modules[layer].register_forward_hook(keep(layer)) for layer in layers]
    try:
        with keep_modes(model), keep_random_state():
            model.eval()
            device = next(model.parameters(), torch.empty(0)).device
            for batch in tqdm(batches, disable=not progress, leave=False):
                model((batch[0] if isinstance(batch, list | tuple) else batch).to(device))
    finally:
        for handle in handles:
            handle.remove()
    silent = [layer for layer, parts in found.items() if not parts]
    if silent:
        raise ValueError(f"{silent[0]!r} gave nothing: there was no batch, or forward does not call this module")
    return {layer: torch.cat(parts) for layer, parts in found.items()}


def similarity(features: Tensor) -> Tensor:
    """Return how alike the images are, (N, N) from -1 to 1: the cosine of their standardised features (N, C).

    Standardised, because a channel that answers strongly to every image would make all images alike.

    Raises:
        ValueError: It is not one row of features per image.

    Example:
        >>> similarity(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]))[0].round(decimals=1)
        tensor([ 1.,  1., -1.])
    """
    unit = nn.functional.normalize(_standardised(_rows(features)), dim=1)
    return unit @ unit.T


def flat_map(features: Tensor, *, seed: int = 0) -> Tensor:
    """Return a two-dimensional map (N, 2) of features (N, C): similar images lie near each other.

    It is the plane in which the standardised features differ most (their first two principal components). The
    random state is as before. The trap: the plane shows a part of the differences only; what lies on top of each
    other in the map may be far apart in the features.

    Args:
        features: One row per image.
        seed: `torch.pca_lowrank` starts from random numbers; its result depends on them in the last digits.

    Raises:
        ValueError: There are fewer than three images, or fewer than two features.

    Example:
        >>> flat_map(torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 0.0]])).shape
        torch.Size([4, 2])
    """
    rows = _rows(features)
    if len(rows) < 3 or rows.shape[1] < 2:
        raise ValueError(f"a map needs at least 3 images with 2 features each, not {tuple(rows.shape)}")
    standard = _standardised(rows)
    with keep_random_state(seed):
        _, _, directions = torch.pca_lowrank(standard, q=min(6, *standard.shape))
    directions = directions[:, :2]
    # A principal direction has no sign of its own: its largest entry is made positive.
    largest = directions.abs().argmax(0, keepdim=True)
    return standard @ (directions * directions.gather(0, largest).sign())


def _rows(features: Tensor) -> Tensor:
    """Return features (N, C) in float32; refuse anything else."""
    if not isinstance(features, Tensor) or features.ndim != 2:
        given = tuple(features.shape) if isinstance(features, Tensor) else f"a {type(features).__name__}"
        raise ValueError(f"features are a tensor (images, channels), one row per image, not {given}")
    return features.float()


def _standardised(features: Tensor) -> Tensor:
    """Return features (N, C) with mean 0 and standard deviation 1 in each column."""
    centred = features - features.mean(0)
    return centred / centred.std(0).clamp(min=1e-6)
