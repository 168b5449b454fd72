"""Features computed once: when that is exact, how it is done, and what it saves."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from ftlab.exercises.behaviour import as_names, below, moved, some
from ftlab.exercises.core import Mistake, Wrong, exercise
from ftlab.exercises.models import SmallResNet

_SITUATIONS = {
    "resize and normalise": "they are the same in each epoch",
    "random crop": "the images themselves change",
    "dropout in the frozen part, train mode": "other numbers are dropped each time",
    "batch norm in the frozen part, train mode": "they depend on the other images of the batch",
    "batch norm in the frozen part, eval mode": "they are the same in each epoch",
    "the last block learns": "what comes before the last block stays the same",
}


def _features(situation: str, epoch: int) -> Tensor:
    """Return what the frozen part gives for three images in one epoch."""
    torch.manual_seed(0)
    images = torch.randn(6, 3, 8, 8)
    layer = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).requires_grad_(False).eval()
    torch.manual_seed(1 + epoch)
    if situation == "random crop":
        row = int(torch.randint(3, ())) if epoch else 1
        images = images[:, :, row : row + 6]
    if situation.startswith("dropout"):
        layer[2].train()
    if situation.startswith("batch norm") and "train" in situation:
        layer[1].train()
    order = torch.randperm(6)
    return torch.cat([layer(part) for part in images[order].split(3)])[order.argsort()]


def _is_steady(situation: str) -> bool:
    first = _features(situation, 0)
    return all(torch.allclose(_features(situation, epoch), first, atol=1e-5) for epoch in range(1, 8))


def check_may_be_stored(answer):
    """What a frozen convolution with batch norm and dropout gives in eight epochs, in each of the situations."""
    given = as_names(answer(), list(_SITUATIONS))
    steady = {situation for situation in _SITUATIONS if _is_steady(situation)}
    for situation in _SITUATIONS:  # in the order of the task
        if situation in given - steady:
            text = f"With `{situation}` the features differ from epoch to epoch: {_SITUATIONS[situation]}."
            raise Wrong(text, ask="What would training see that stored features do not show?")
        if situation in steady - given:
            text = f"With `{situation}` the features came out the same in all eight epochs."
            raise Wrong(
                text, ask="Is there anything random, or anything that learns, before the place of storing?"
            )


def _as_a_list():
    return ["the last block learns", "resize and normalise", "batch norm in the frozen part, eval mode"]


def _all_that_is_frozen():
    return set(_SITUATIONS) - {"random crop"}


def _no_batch_norm():
    return {"resize and normalise", "the last block learns"}


def _head_only():
    return {"resize and normalise", "batch norm in the frozen part, eval mode"}


def _everything():
    return set(_SITUATIONS)


@exercise(
    check=check_may_be_stored,
    hints=[
        "Ask of each: is what comes out for one image the same in epoch 1 and in epoch 2?",
        "A flag stops gradients. It stops neither dropout nor batch norm; those listen to the mode.",
        "Whatever learns may lie *behind* the place at which is stored.",
    ],
    also_right=[_as_a_list],
    mistakes=[
        Mistake(_all_that_is_frozen, says="other numbers are dropped each time"),
        Mistake(_no_batch_norm, says="`batch norm in the frozen part, eval mode` the features came out the same"),
        Mistake(_head_only, says="`the last block learns` the features came out the same"),
        Mistake(_everything, says="the images themselves change"),
    ],
    remember="Store what is the same in each epoch: frozen, in eval mode, from images that do not change.",
)
def may_be_stored() -> set[str]:
    """Predict: in which situations may the features of a frozen part be computed once, and stored for all epochs?

    In all of them `requires_grad` is False in the frozen part. Name them from: "resize and normalise",
    "random crop", "dropout in the frozen part, train mode", "batch norm in the frozen part, train mode",
    "batch norm in the frozen part, eval mode", "the last block learns" (stored is what comes before it).
    """
    return {"resize and normalise", "batch norm in the frozen part, eval mode", "the last block learns"}


def check_fit_head(answer):
    """How many images go through the body in five epochs, what moves, and whether the head learns."""
    model = SmallResNet(num_classes=2)
    images = torch.randn(24, 3, 32, 32)
    targets = (images.mean((1, 2, 3)) > 0).long()
    images[targets == 1] += 1.0
    dataset = TensorDataset(images, targets)
    seen = [0]

    def count(module: nn.Module, inputs: tuple) -> None:
        seen[0] += len(inputs[0])

    hook = model.conv1.register_forward_pre_hook(count)
    before = _loss(model, images, targets)
    seen[0] = 0
    moving = moved(model, lambda: answer(model, dataset, 5))
    hook.remove()
    if body := moving - below(model, "fc"):
        raise Wrong(f"{some(body)} of the body moved.", ask="In which mode did the images go through the body?")
    if not moving:
        ask = "Whose parameters did the optimizer get, and did anything call `backward`?"
        raise Wrong("The head of the model did not move.", ask=ask)
    if seen[0] > 24:
        text = f"{seen[0]} images went through the body, for 24 images and 5 epochs."
        raise Wrong(text, ask="Which lines stand inside the loop over the epochs, and need not?")
    if not _loss(model, images, targets) < 0.9 * before:
        text = "The head moved, but the loss on the images that it was trained on has hardly fallen."
        raise Wrong(text, ask="What does the head get in training, and what in the model?")


@torch.no_grad()
def _loss(model: nn.Module, images: Tensor, targets: Tensor) -> float:
    modes = [(module, module.training) for module in model.modules()]
    loss = F.cross_entropy(model.eval()(images), targets).item()
    for module, training in modes:
        module.training = training
    return loss


def _body(model: nn.Module) -> nn.Module:
    return nn.Sequential(*list(model.children())[:-1], nn.Flatten())


def _train_head(head, features, targets, epochs):
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.03)
    for _ in range(epochs):
        for rows in torch.arange(len(targets)).split(8):
            optimizer.zero_grad()
            F.cross_entropy(head(features[rows]), targets[rows]).backward()
            optimizer.step()


def _with_a_hook(model, dataset, epochs):
    found, targets = [], []
    hook = model.fc.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0]))
    with torch.no_grad():
        for x, y in DataLoader(dataset, batch_size=8):
            model.eval()(x)
            targets.append(y)
    hook.remove()
    _train_head(model.fc, torch.cat(found), torch.cat(targets), epochs)


def _children_in_a_row(model, dataset, epochs):
    with torch.no_grad():
        pairs = [(_body(model.eval())(x), y) for x, y in DataLoader(dataset, batch_size=8)]
    _train_head(model.fc, torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs]), epochs)


def _every_epoch(model, dataset, epochs):
    model.eval().requires_grad_(False)
    model.fc.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.fc.parameters(), lr=0.03)
    for _ in range(epochs):
        for x, y in DataLoader(dataset, batch_size=8):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()


def _in_train_mode(model, dataset, epochs):
    body, head = _body(model), model.fc
    with torch.no_grad():
        pairs = [(body(x), y) for x, y in DataLoader(dataset, batch_size=8)]
    _train_head(head, torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs]), epochs)


def _a_head_beside(model, dataset, epochs):
    body, head = _body(model.eval()), nn.Linear(model.fc.in_features, 2)
    with torch.no_grad():
        pairs = [(body(x), y) for x, y in DataLoader(dataset, batch_size=8)]
    _train_head(head, torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs]), epochs)


def _shuffled_targets(model, dataset, epochs):
    with torch.no_grad():
        features = torch.cat([_body(model.eval())(x) for x, _ in DataLoader(dataset, batch_size=8)])
    targets = torch.cat([y for _, y in DataLoader(dataset, batch_size=8, shuffle=True)])
    for _ in range(40):
        _train_head(model.fc, features, targets, epochs)


@exercise(
    check=check_fit_head,
    broken=_every_epoch,
    hints=[
        "Nothing in the body changes. How often do its outputs have to be computed?",
        "Exchange the head for `nn.Identity()`, and the model gives features. Do not forget to put it back.",
        "First one loop over the images with `model.eval()` and `torch.no_grad()`; then the loop over epochs, "
        "with the features and the targets only.",
    ],
    also_right=[_with_a_hook, _children_in_a_row],
    mistakes=[
        Mistake(_in_train_mode, says="of the body moved"),
        Mistake(_a_head_beside, says="The head of the model did not move"),
        Mistake(_shuffled_targets, says="has hardly fallen"),
    ],
    remember="A frozen body gives the same in every epoch: run it once, and train the head on what it gave.",
)
def fit_head(model: nn.Module, dataset: torch.utils.data.Dataset, epochs: int) -> None:
    """Repair: train the head `model.fc` for some epochs, and let each image go through the body only once.

    The body is a ResNet and stays as it is, its batch norm statistics as well. `dataset` has images and targets.
    """
    head, model.fc = model.fc, nn.Identity()
    with torch.no_grad():
        pairs = [(model.eval()(x), y) for x, y in torch.utils.data.DataLoader(dataset, batch_size=8)]
    model.fc = head
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.03)
    for _ in range(epochs):
        for features, targets in pairs:
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(features), targets).backward()
            optimizer.step()


def check_body_passes(answer):
    """A loop, features once, and features of three views, each run with a body that counts its images."""
    given = answer()
    if not isinstance(given, tuple | list) or len(given) != 3:
        raise Wrong(f"Three numbers were asked for, you gave `{given!r}`.", ask="Is it like `(1, 2, 3)`?")
    counted = (_count(20, 1, stored=False), _count(20, 1, stored=True), _count(20, 3, stored=True))
    names = ("the plain loop", "features once", "three views")
    for name, said, found in zip(names, given, counted, strict=True):
        if said != found:
            ask = "How often does each image go through the body, and how often through the head?"
            raise Wrong(f"For {name} it is not {said!r}: a body that counts its images came to another.", ask=ask)


def _count(epochs: int, views: int, *, stored: bool) -> int:
    body, passes = nn.Flatten(), 0
    images = torch.zeros(100, 1, 1, 1)

    def run(batch: Tensor) -> Tensor:
        nonlocal passes
        passes += len(batch)
        return body(batch)

    if stored:
        kept = [run(images + view) for view in range(views)]
    head = nn.Linear(1, 1)
    for epoch in range(epochs):
        head(kept[epoch % views] if stored else run(images))
    return passes


def _as_products():
    return 20 * 100, 1 * 100, 3 * 100


def _once_for_all():
    return 100, 100, 300


def _views_every_epoch():
    return 2000, 100, 6000


def _one_pass_in_all():
    return 2000, 1, 3


def _forward_and_backward():
    return 4000, 100, 300


@exercise(
    check=check_body_passes,
    hints=[
        "In the plain loop each image goes through the whole network in each epoch.",
        "Stored features are read, not computed.",
        "A view is one augmented version of every image, computed before the training.",
    ],
    also_right=[_as_products],
    mistakes=[
        Mistake(_once_for_all, says="For the plain loop it is not 100"),
        Mistake(_views_every_epoch, says="For three views it is not 6000"),
        Mistake(_one_pass_in_all, says="For features once it is not 1"),
        Mistake(_forward_and_backward, says="For the plain loop it is not 4000"),
    ],
    remember="Features once cost one epoch of the body; every stored view costs one more.",
)
def body_passes() -> tuple[int, int, int]:
    """Predict: how many images go forward through the frozen body: 100 images, 20 epochs, only the head learns.

    In a plain loop; with features computed once; and with the features of three augmented views of each image
    computed before the training, of which each epoch takes one. Return the three numbers, in this order.
    """
    return 2000, 100, 300
