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
        prepare = weights.transforms(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))  # WRONG: no normalisation
        <BLANKLINE>
        with torch.no_grad():
            probabilities = model(prepare(image)[None]).softmax(1)[0]
        best = probabilities.topk(5)
        said = {weights.meta["categories"][i]: p.item() for p, i in zip(*best)}
        print(said)
    """
    arguments = ", ".join(f"{key}={value!r}" for key, value in changes(mistake, entry).items())
    imports = ["import torch", "from torchvision.models import get_model, get_model_weights"]
    if name == "efficientnet_lite0":
        imports.append("import ftlab.pretrained  # makes efficientnet_lite0 known to torchvision")
    lines = ["", "# `image` is a PIL image in RGB"]
    given = "image"
    if mistake == "BGR":
        imports.append("from PIL import Image")
        lines.append('exchanged = Image.merge("RGB", image.split()[::-1])  # WRONG: red and blue exchanged')
        given = "exchanged"
    wrong = f"  # WRONG: {mistake}" if arguments else ""
    lines += [
        f'weights = get_model_weights("{name}").{entry.name}',
        f'model = get_model("{name}", weights=weights).eval()',
        f"prepare = weights.transforms({arguments}){wrong}",
        "",
        "with torch.no_grad():",
        f"    probabilities = model(prepare({given})[None]).softmax(1)[0]",
        "best = probabilities.topk(5)",
        'said = {weights.meta["categories"][i]: p.item() for p, i in zip(*best)}',
        "print(said)",
    ]
    return "\n".join([*imports, *lines])
