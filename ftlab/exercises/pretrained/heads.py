"""A head for your own classes, on weights of torchvision and on a model that you trained yourself."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from ftlab.exercises.core import Mistake, Raised, Wrong, exercise
from ftlab.exercises.models import SmallResNet
from ftlab.pretrained import load


def check_classifier_for(answer):
    """The parameters of the backbone against those of the weights file, and the scores, for 3 and 8 classes."""
    pretrained = load("efficientnet_lite0").features.state_dict()
    for num_classes in (3, 8):
        model = _as_model(answer(num_classes))
        scores = _scores(model, 64)
        if scores.shape != (2, num_classes):
            text = f"With `num_classes={num_classes}`, the scores of two images have shape {tuple(scores.shape)}."
            raise Wrong(text, ask="Which layer makes the scores, and is it the one that you replaced?")
        own = model.features.state_dict()
        other = [
            name for name, tensor in pretrained.items() if not torch.equal(own.get(name, tensor + 1), tensor)
        ]
        if other:
            text = f"{len(other)} of {len(pretrained)} tensors of the backbone are not those of the weights."
            raise Wrong(text, ask="Did anybody ask for weights? What does a builder give if nobody does?")


@torch.no_grad()
def _scores(model: nn.Module, size: int) -> Tensor:
    try:
        return model.eval()(torch.randn(2, 3, size, size))
    except RuntimeError as error:
        text = f"For two images the model raises `{str(error)[:120]}`."
        raise Wrong(text, ask="How many numbers does its old head take? `in_features` knows.") from None


def _as_model(value: object) -> nn.Module:
    if not isinstance(value, nn.Module) or not hasattr(value, "features"):
        kind = type(value).__name__
        raise Wrong(
            f"What came back is of type `{kind}`, not the network.", ask="What does your last line return?"
        )
    return value


def _random_with_the_right_head(num_classes):
    from torchvision.models import get_model

    return get_model("efficientnet_lite0", num_classes=num_classes)


def _by_enum(num_classes):
    from ftlab.pretrained import EfficientNet_Lite0_Weights, efficientnet_lite0

    model = efficientnet_lite0(weights=EfficientNet_Lite0_Weights.IMAGENET1K_V1)
    model.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, num_classes))
    return model


def _by_load(num_classes):
    from ftlab import pretrained

    return pretrained.load("efficientnet_lite0", num_classes=num_classes)


def _by_state_dict(num_classes):
    from torchvision.models import get_model

    source = get_model("efficientnet_lite0", weights="DEFAULT").state_dict()
    model = get_model("efficientnet_lite0", num_classes=num_classes)
    body = {name: tensor for name, tensor in source.items() if not name.startswith("classifier.")}
    model.load_state_dict(body, strict=False)
    return model


def _weights_and_classes_in_one_call(num_classes):
    from torchvision.models import get_model

    return get_model("efficientnet_lite0", weights="DEFAULT", num_classes=num_classes)


def _pretrained_with_the_old_head(num_classes):
    from torchvision.models import get_model

    return get_model("efficientnet_lite0", weights="DEFAULT")


def _a_head_called_fc(num_classes):
    from torchvision.models import get_model

    model = get_model("efficientnet_lite0", weights="DEFAULT")
    model.fc = nn.Linear(1280, num_classes)
    return model


def _weights_none(num_classes):
    from torchvision.models import get_model

    return get_model("efficientnet_lite0", weights=None, num_classes=num_classes)


def _another_head_on_top(num_classes):
    from torchvision.models import get_model

    model = get_model("efficientnet_lite0", weights="DEFAULT")
    return nn.Sequential(model, nn.Linear(1000, num_classes))


@exercise(
    check=check_classifier_for,
    broken=_random_with_the_right_head,
    hints=[
        "The call runs, and gives scores of the right shape. But did anybody ask for weights?",
        "The weights know 1,000 classes: with `weights=` the builder accepts no other `num_classes`.",
        'Load with `weights="DEFAULT"` first. Then replace `model.classifier[1]`, which takes 1,280 features.',
    ],
    also_right=[_by_enum, _by_load, _by_state_dict],
    mistakes=[
        Mistake(_weights_and_classes_in_one_call, says="the weights know 1000 classes"),
        Mistake(_pretrained_with_the_old_head, says="have shape (2, 1000)"),
        Mistake(_a_head_called_fc, says="have shape (2, 1000)"),
        Mistake(_weights_none, says="are not those of the weights"),
        Mistake(_another_head_on_top, says="of type `Sequential`"),
    ],
    remember="Load with the head that the weights have, then replace the head.",
    seconds=30,
)
def classifier_for(num_classes: int) -> nn.Module:
    """Repair: return a *pretrained* `efficientnet_lite0` with a new head for `num_classes`."""
    from torchvision.models import get_model

    model = get_model("efficientnet_lite0", weights="DEFAULT")
    model.classifier[1] = nn.Linear(model.classifier[1].in_features, num_classes)
    return model


def check_continue_from(answer):
    """The backbone and the head of a small ResNet, with a file of another one that knows seven classes."""
    source = SmallResNet(num_classes=7)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "source.pt")
        torch.save(source.state_dict(), path)
        before = SmallResNet(num_classes=7)
        model = _call(answer, before, path)
    if not isinstance(model, nn.Module):
        kind = type(model).__name__
        raise Wrong(
            f"What came back is of type `{kind}`, not the model.", ask="What does `load_state_dict` return?"
        )
    _expect_four(model)
    wanted = {name: tensor for name, tensor in source.state_dict().items() if not name.startswith("fc.")}
    own = model.state_dict()
    other = [name for name, tensor in wanted.items() if not _same(own.get(name), tensor)]
    if other:
        text = f"Below the head, {len(other)} of {len(wanted)} tensors are not those of the file."
        raise Wrong(
            text, ask="Which line writes into the model itself? A `state_dict` changed alone is not enough."
        )


def _call(answer, model, path):
    try:
        return answer(model, path)
    except Raised as raised:
        if "size mismatch for fc" in str(raised.error):
            ask = "Which head did the model have when the file was written?"
            raise Wrong(f"{raised.message} The file has a head for seven classes.", ask=ask) from None
        raise


def _expect_four(model: nn.Module) -> None:
    scores = _scores(model, 32)
    if scores.shape != (2, 4):
        text = f"The scores of two images have shape {tuple(scores.shape)}, not those of four classes."
        raise Wrong(text, ask="Which layer makes the scores, and when is it replaced?")


def _same(one: Tensor | None, other: Tensor) -> bool:
    return one is not None and torch.equal(one, other)


def _head_first(model, path):
    model.fc = nn.Linear(model.fc.in_features, 4)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model


def _without_the_head(model, path):
    state = torch.load(path, map_location="cpu", weights_only=True)
    del state["fc.weight"], state["fc.bias"]
    model.fc = nn.Linear(model.fc.in_features, 4)
    model.load_state_dict(state, strict=False)
    return model


def _tensor_by_tensor(model, path):
    state = torch.load(path, weights_only=True)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            tensor.copy_(state[name])
    model.fc = nn.Linear(model.fc.in_features, 4)
    return model


def _strict_false(model, path):
    model.fc = nn.Linear(model.fc.in_features, 4)
    model.load_state_dict(torch.load(path, weights_only=True), strict=False)
    return model


def _update_only(model, path):
    state = model.state_dict()
    state.update(torch.load(path, weights_only=True))
    model.fc = nn.Linear(model.fc.in_features, 4)
    return model


def _never_loaded(model, path):
    model.fc = nn.Linear(model.fc.in_features, 4)
    return model


def _what_loading_returns(model, path):
    result = model.load_state_dict(torch.load(path, weights_only=True))
    model.fc = nn.Linear(model.fc.in_features, 4)
    return result


def _the_old_head_stays(model, path):
    model.load_state_dict(torch.load(path, weights_only=True))
    return model


@exercise(
    check=check_continue_from,
    broken=_head_first,
    hints=[
        "Read the end of the message: whose shape does not fit, and which of the two has seven rows?",
        "The file was written by a model with a head for seven classes. Load it into such a model.",
        "The two lines are right. Exchange them.",
    ],
    also_right=[_without_the_head, _tensor_by_tensor],
    mistakes=[
        Mistake(_strict_false, says="The file has a head for seven classes"),
        Mistake(_update_only, says="are not those of the file"),
        Mistake(_never_loaded, says="are not those of the file"),
        Mistake(_what_loading_returns, says="not the model"),
        Mistake(_the_old_head_stays, says="have shape (2, 7)"),
    ],
    remember="Any model that you trained can be the pretrained one: load first, replace the head after.",
)
def continue_from(model: nn.Module, path: str) -> nn.Module:
    """Transfer, and repair: go on from a model of your own, with a new head for four classes.

    `model` is a ResNet with a head `model.fc` for seven classes. The file at `path` has the `state_dict`
    of such a one, which you trained last month.
    """
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    model.fc = nn.Linear(model.fc.in_features, 4)
    return model
