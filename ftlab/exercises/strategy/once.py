"""Features computed once: how it is done, and what it saves."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from ftlab.exercises.behaviour import below, moved, some
from ftlab.exercises.core import Mistake, Raised, Wrong, exercise
from ftlab.exercises.models import SmallResNet
from ftlab.training import cached, fit, loader
from ftlab.training.caching.walk import NotExactError


def check_fit_head(answer):
    """How many images go through the body in five epochs, what moves, and whether the head learns in each."""
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
    shorter = copy.deepcopy(model)
    seen[0] = 0
    moving = moved(model, lambda: _call(answer, model, dataset, 5))
    count_of_images = seen[0]
    hook.remove()
    if type(model.fc) is not nn.Linear:
        text = f"After your answer `model.fc` is `{type(model.fc).__name__}`: the model has lost its head."
        raise Wrong(text, ask="What was put in the place of the head, and who puts the head back?")
    if body := moving - below(model, "fc"):
        raise Wrong(f"{some(body)} of the body moved.", ask="In which mode did the images go through the body?")
    if not moving:
        ask = "Whose parameters did the optimizer get, and did anything call `backward`?"
        raise Wrong("The head of the model did not move.", ask=ask)
    if count_of_images > 24:
        text = f"{count_of_images} images went through the body, for 24 images and 5 epochs."
        raise Wrong(text, ask="Which lines stand inside the loop over the epochs, and need not?")
    _call(answer, shorter, dataset, 1)
    if torch.equal(shorter.fc.weight, model.fc.weight):
        text = "With one epoch the head ends exactly as with five."
        raise Wrong(text, ask="Which line repeats the training, and how often?")
    if not _loss(model, images, targets) < 0.9 * before:
        text = "The head moved, but the loss on the images that it was trained on has hardly fallen."
        raise Wrong(text, ask="What does the head get in training, and what in the model?")


def _call(answer, model: nn.Module, dataset: TensorDataset, epochs: int) -> None:
    torch.manual_seed(0)
    try:
        answer(model, dataset, epochs)
    except Raised as raised:
        if isinstance(raised.error, NotExactError):  # the hook that counts is in its way
            text = (
                "`cached` does it all for you, and not here: it refuses a body that is watched, as this one is."
            )
            raise Wrong(text, ask="Which two loops does it need in plain PyTorch?") from None
        raise


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


def _head_not_put_back(model, dataset, epochs):
    head, model.fc = model.fc, nn.Identity()
    with torch.no_grad():
        pairs = [(model.eval()(x), y) for x, y in DataLoader(dataset, batch_size=8)]
    _train_head(head, torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs]), epochs)


def _a_single_epoch(model, dataset, epochs):
    _with_a_hook(model, dataset, 1)


def _with_cached(model, dataset, epochs):
    model.eval().requires_grad_(False)
    model.fc.requires_grad_(True)
    quick = cached(model, loader(dataset, batch_size=8), progress=False)
    optimizer = torch.optim.AdamW(model.fc.parameters(), lr=0.03)
    fit(quick.model, quick.train, epochs=epochs, optimizer=optimizer, progress=False)


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
        Mistake(_head_not_put_back, says="`model.fc` is `Identity`"),
        Mistake(_a_single_epoch, says="exactly as with five"),
        Mistake(_with_cached, says="`cached` does it all for you, and not here"),
    ],
    remember="A frozen body gives the same in every epoch: run it once, and train the head on what it gave.",
    seconds=30,
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


_CASES = {
    "the plain loop": "Does it keep anything from one epoch to the next? (Only the way forward is counted.)",
    "features once": "How many images does the body see in the first epoch, and how many in the second?",
    "three views": "How many images are prepared before the training, and does the body see them again in it?",
}


def check_body_passes(answer):
    """A loop, features once, and features of three views, each run with a body that counts its images."""
    given = answer()
    if not isinstance(given, tuple | list) or len(given) != 3:
        raise Wrong(f"Three numbers were asked for, you gave `{given!r}`.", ask="Is it like `(1, 2, 3)`?")
    counted = (_count(20, 1, stored=False), _count(20, 1, stored=True), _count(20, 3, stored=True))
    for (name, ask), said, found in zip(_CASES.items(), given, counted, strict=True):
        if said != found:
            raise Wrong(
                f"For {name} it is not {said!r}: a body that counts its images came to another number.", ask=ask
            )


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
