"""What lesson 01 says about pretrained models."""

import inspect
import warnings

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision import models
from torchvision.models import ResNet18_Weights, ResNet50_Weights

from ftlab.pretrained import asked_weights
from ftlab.probes import probe


@probe("Without `weights`, every classification builder of torchvision gives random parameters.")
def silence_means_random() -> bool:
    builders = [models.get_model_builder(name) for name in models.list_models(module=models)]
    return all(inspect.signature(inspect.unwrap(b)).parameters["weights"].default is None for b in builders)


@probe("Nothing is said when a builder gives random parameters.")
def random_is_silent() -> bool:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        return asked_weights(lambda: models.resnet50()) is None and not warned


@probe("`pretrained=True` means IMAGENET1K_V1, with two warnings, also where there is a V2.")
def pretrained_means_v1() -> bool:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        entry = asked_weights(lambda: models.resnet50(pretrained=True))
    return entry is ResNet50_Weights.IMAGENET1K_V1 and len(warned) == 2


@probe('`weights="DEFAULT"` of ResNet-50 means IMAGENET1K_V2.')
def default_is_v2() -> bool:
    return asked_weights(lambda: models.resnet50(weights="DEFAULT")) is ResNet50_Weights.IMAGENET1K_V2


@probe('An entry may be given by its own name or by its full name, such as "ResNet18_Weights.DEFAULT".')
def entries_have_two_names() -> bool:
    names = ["DEFAULT", "IMAGENET1K_V1", "ResNet18_Weights.DEFAULT"]
    return all(asked_weights(lambda n=n: models.resnet18(weights=n)) is ResNet18_Weights.DEFAULT for n in names)


@probe("Weights of another network raise a TypeError.")
def foreign_weights_are_refused() -> bool:
    try:
        asked_weights(lambda: models.resnet18(weights=ResNet50_Weights.DEFAULT))
    except TypeError:
        return True
    return False


@probe("With `weights`, another `num_classes` than theirs raises a ValueError.")
def classes_are_refused() -> bool:
    try:
        asked_weights(lambda: models.resnet18(weights="DEFAULT", num_classes=4))
    except ValueError:
        return True
    return False


@probe("V2 of ResNet-50 is more than 4.5 points better than V1, and resizes to 232 instead of 256.")
def versions_differ() -> bool:
    v1, v2 = ResNet50_Weights.IMAGENET1K_V1, ResNet50_Weights.IMAGENET1K_V2
    one, two = (entry.meta["_metrics"]["ImageNet-1K"]["acc@1"] for entry in (v1, v2))
    return two - one > 4.5 and (v1.transforms().resize_size, v2.transforms().resize_size) == ([256], [232])


@probe("The transforms of the weights divide bytes by 255, and leave floats as they are.")
def only_bytes_are_divided() -> bool:
    prepare = ResNet18_Weights.DEFAULT.transforms(mean=(0.0,) * 3, std=(1.0,) * 3)
    white = torch.full((3, 300, 300), 255, dtype=torch.uint8)
    return prepare(white).max().item() <= 1.001 and prepare(white.float()).max().item() > 254


@probe("The transforms of the weights take RGB in whatever order it is: exchanged colours raise nothing.")
def colours_are_not_checked() -> bool:
    prepare = ResNet18_Weights.DEFAULT.transforms()
    red = np.zeros((300, 300, 3), np.uint8)
    red[..., 0] = 200
    right, exchanged = prepare(Image.fromarray(red)), prepare(Image.fromarray(red[..., ::-1].copy()))
    return right.shape == exchanged.shape and not torch.allclose(right, exchanged)


@probe("A convolutional network of torchvision takes images of any size, and of any range.")
def sizes_are_not_checked() -> bool:
    model = models.resnet18().eval()
    with torch.no_grad():
        return all(model(torch.rand(1, 3, side, side) * 255).shape == (1, 1000) for side in (64, 97))


@probe("A builder gives its model in train mode, also with weights.")
def models_are_born_in_train_mode() -> bool:
    return models.get_model("efficientnet_lite0", weights="DEFAULT").training


@probe("The name of a weights file ends in the first digits of its SHA-256.")
def names_have_hashes() -> bool:
    return ResNet18_Weights.DEFAULT.url.endswith("resnet18-f37072fd.pth")


@probe("`strict=False` does not forgive a head of another shape.")
def strict_false_does_not_forgive_shapes() -> bool:
    try:
        nn.Linear(3, 4).load_state_dict(nn.Linear(3, 7).state_dict(), strict=False)
    except RuntimeError as error:
        return "size mismatch" in str(error)
    return False
