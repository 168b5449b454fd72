"""One way to prepare an image, and what the network says to it, as plain PyTorch."""

from torchvision.models._api import WeightsEnum

from ftlab.pretrained.preparing import changes


def preprocessing_code(entry: WeightsEnum, name: str, mistake: str) -> str:
    """Return code that needs only `image`, a PIL image, and leaves `said`, the five best classes.

    Example:
        >>> from torchvision.models import ResNet18_Weights
        >>> print(preprocessing_code(ResNet18_Weights.DEFAULT, "resnet18", "no normalisation"))
        import torch
        from torchvision.models import get_model, get_model_weights
        <BLANKLINE>
        # `image` is a PIL image in RGB
        weights = get_model_weights("resnet18").IMAGENET1K_V1
        model = get_model("resnet18", weights=weights).eval()
        # WRONG: no normalisation; right is weights.transforms()
        prepare = weights.transforms(mean=(0.0,) * 3, std=(1.0,) * 3)
        <BLANKLINE>
        with torch.no_grad():
            probabilities = model(prepare(image)[None]).softmax(1)[0]
        best = probabilities.topk(5)
        said = {weights.meta["categories"][i]: p.item() for p, i in zip(*best)}
        print(said)
    """
    arguments = ", ".join(f"{key}={_written(value)}" for key, value in changes(mistake, entry).items())
    imports = ["import torch", "from torchvision.models import get_model, get_model_weights"]
    if name == "efficientnet_lite0":
        imports.append("import ftlab.pretrained  # makes efficientnet_lite0 known to torchvision")
    lines = ["", "# `image` is a PIL image in RGB"]
    given = "image"
    if mistake == "BGR":
        imports.append("from PIL import Image")
        lines.append('exchanged = Image.merge("RGB", image.split()[::-1])  # WRONG: red and blue exchanged')
        given = "exchanged"
    lines += [
        f'weights = get_model_weights("{name}").{entry.name}',
        f'model = get_model("{name}", weights=weights).eval()',
        *([f"# WRONG: {mistake}; right is weights.transforms()"] if arguments else []),
        f"prepare = weights.transforms({arguments})",
        "",
        "with torch.no_grad():",
        f"    probabilities = model(prepare({given})[None]).softmax(1)[0]",
        "best = probabilities.topk(5)",
        'said = {weights.meta["categories"][i]: p.item() for p, i in zip(*best)}',
        "print(said)",
    ]
    return "\n".join([*imports, *lines])


def _written(value: tuple[float, ...] | int) -> str:
    """Return a size or three numbers as one writes them.

    Example:
        >>> _written((1 / 255,) * 3)
        '(1 / 255,) * 3'
    """
    if not isinstance(value, tuple) or len(set(value)) > 1:
        return repr(value)
    return f"({'1 / 255' if value[0] == 1 / 255 else value[0]},) * {len(value)}"
