"""Two phases with all that is easy to forget, and a gap that is not what it looks like."""

import torch
from torch import nn

from ftlab.exercises.behaviour import below, moved, some, train
from ftlab.exercises.core import Mistake, Wrong, exercise
from ftlab.exercises.models import SmallResNet


def check_second_phase(answer):
    """What training moves after your answer in a small ResNet, and each rate, for two rates of the head."""
    for lr in (0.1, 0.02):
        model = SmallResNet().requires_grad_(False)
        model.fc.requires_grad_(True)
        optimizer = torch.optim.SGD(model.fc.parameters(), lr=lr, momentum=0.9)
        train(model, optimizer)
        momentum = optimizer.state[model.fc.weight]["momentum_buffer"].clone()
        answer(model, optimizer)
        _expect_rates(model, optimizer, lr)
        kept = optimizer.state.get(model.fc.weight, {}).get("momentum_buffer")
        if kept is None or not torch.equal(kept, momentum):
            ask = "Which call adds to an optimizer, so that it keeps what it knows?"
            raise Wrong("The optimizer has forgotten the momentum of the head.", ask=ask)
        moving = moved(model, lambda model=model, optimizer=optimizer: train(model, optimizer))
        parameters = {name for name, _ in model.named_parameters()}
        _expect_exactly(moving & parameters, below(model, "layer4", "fc"))


def _expect_rates(model: nn.Module, optimizer: torch.optim.Optimizer, lr: float) -> None:
    lacking = [name for group in optimizer.param_groups for name in optimizer.defaults if name not in group]
    if lacking:
        text = f"A group of the optimizer has no {some(lacking)}: it cannot make a step."
        raise Wrong(text, ask="Which call adds a group, and fills in what is not said?")
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    missing = [name for name in sorted(below(model, "layer4")) if id(model.get_parameter(name)) not in rates]
    if missing:
        text = f"{some(missing)} cannot learn: no group of the optimizer has them."
        raise Wrong(text, ask="A flag is for autograd. Who moves a parameter?")
    for name, wanted in (("fc.weight", lr), ("layer4.0.conv1.weight", lr / 10)):
        found = rates.get(id(model.get_parameter(name)))
        if found is None or not abs(found - wanted) <= 1e-9:
            text = f"`{name}` has the rate {found}, with {lr:g} for the head before your answer."
            raise Wrong(text, ask="Which rate does a new group get if none is said, and which one is asked for?")


def _expect_exactly(moving: set[str], wanted: set[str]) -> None:
    if extra := moving - wanted:
        raise Wrong(f"{some(extra)} learn as well.", ask="Which parameters were meant to thaw?")
    if missing := wanted - moving:
        text = f"{some(missing)} did not move in training, though the optimizer has them."
        raise Wrong(text, ask="What does a parameter need to get a gradient?")


def _flag_only(model, optimizer):
    model.layer4.requires_grad_(True)


def _group_by_hand(model, optimizer):
    for parameter in model.layer4.parameters():
        parameter.requires_grad = True
    rate = optimizer.param_groups[0]["lr"] / 10
    optimizer.add_param_group({"params": list(model.layer4.parameters()), "lr": rate})


def _a_group_per_tensor(model, optimizer):
    lr = optimizer.param_groups[0]["lr"]
    for parameter in model.layer4.parameters():
        parameter.requires_grad_(True)
        optimizer.add_param_group({"params": [parameter], "lr": 0.1 * lr})


def _group_only(model, optimizer):
    rate = optimizer.param_groups[0]["lr"] / 10
    optimizer.add_param_group({"params": model.layer4.parameters(), "lr": rate})


def _same_rate(model, optimizer):
    model.layer4.requires_grad_(True)
    optimizer.add_param_group({"params": model.layer4.parameters()})


def _appended_by_hand(model, optimizer):
    model.layer4.requires_grad_(True)
    rate = optimizer.param_groups[0]["lr"] / 10
    optimizer.param_groups.append({"params": list(model.layer4.parameters()), "lr": rate})


def _everything_thaws(model, optimizer):
    model.requires_grad_(True)
    body = [p for name, p in model.named_parameters() if not name.startswith("fc.")]
    optimizer.add_param_group({"params": body, "lr": optimizer.param_groups[0]["lr"] / 10})


def _all_of_it_slower(model, optimizer):
    model.layer4.requires_grad_(True)
    optimizer.add_param_group({"params": model.layer4.parameters()})
    for group in optimizer.param_groups:
        group["lr"] /= 10


def _made_anew(model, optimizer):
    model.layer4.requires_grad_(True)
    lr = optimizer.param_groups[0]["lr"]
    groups = [{"params": model.fc.parameters()}, {"params": model.layer4.parameters(), "lr": lr / 10}]
    fresh = torch.optim.SGD(groups, lr=lr, momentum=0.9)
    optimizer.param_groups, optimizer.state = fresh.param_groups, fresh.state


@exercise(
    check=check_second_phase,
    broken=_flag_only,
    hints=[
        "Train for a step, and compare `model.layer4[0].conv1.weight` with before.",
        "The optimizer moves what it was given, and it was given the head.",
        '`optimizer.add_param_group({"params": ..., "lr": ...})`; its rate now stands in '
        '`optimizer.param_groups[0]["lr"]`.',
    ],
    also_right=[_group_by_hand, _a_group_per_tensor],
    mistakes=[
        Mistake(_group_only, says="did not move in training, though the optimizer has them"),
        Mistake(_same_rate, says="`layer4.0.conv1.weight` has the rate 0.1"),
        Mistake(_everything_thaws, says="learn as well"),
        Mistake(_all_of_it_slower, says="`fc.weight` has the rate 0.01"),
        Mistake(_made_anew, says="forgotten the momentum"),
        Mistake(_appended_by_hand, says="it cannot make a step"),
    ],
    remember="The second phase needs both: the flag for autograd, a group for the optimizer, at a smaller rate.",
)
def second_phase(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Repair: begin the second phase. Let `model.layer4` learn too, at a tenth of the rate of the head.

    In the first phase `optimizer` trained only the head `model.fc`; all the rest is frozen. It goes on with the
    same optimizer, and keeps what it knows of the head.
    """
    model.layer4.requires_grad_(True)
    rate = optimizer.param_groups[0]["lr"] / 10
    optimizer.add_param_group({"params": model.layer4.parameters(), "lr": rate})


_CAUSES = ("overfitting", "too small a rate", "stored statistics", "a leak")
_REPAIRS = ("more images", "a larger rate", "hold the norms", "another split")


def check_gap_by_mode(answer):
    """A small network in that situation: how often it is right on new images after each of the repairs."""
    given = answer()
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise Wrong("Not a pair of cause and repair came back.", ask="Is it like `(cause, repair)`?")
    cause, repair = given
    if cause in _REPAIRS and repair in _CAUSES:
        raise Wrong(
            "You gave the repair first, and then the cause.", ask="In which order does the task want them?"
        )
    for said, choices, what in ((cause, _CAUSES, "causes"), (repair, _REPAIRS, "repairs")):
        if said not in choices:
            raise Wrong(
                f"`{said}` is not among the {what} to choose from.", ask="How are they written in the task?"
            )
    wrong = {
        "overfitting": "A network that knows its training images by heart fails on new images in *both* modes. "
        "This one is right on new images in train mode",
        "too small a rate": "A network that has hardly learned is wrong on its training images too",
        "a leak": "A leak makes a test look too good, in both modes",
    }
    if cause in wrong:
        raise Wrong(f"{wrong[cause]}.", ask="What is the only thing that the two measurements differ in?")
    accuracy = {one: _new_images(one) for one in ("nothing", "more images", "a larger rate", "hold the norms")}
    accuracy["another split"] = accuracy["nothing"]
    if accuracy[repair] < 0.75:
        text = (
            f"In a small network of this kind `{repair}` gives {accuracy[repair]:.0%} on new images in eval mode."
        )
        raise Wrong(text, ask="Which numbers does eval mode use that train mode does not?")


def _new_images(repair: str) -> float:
    """Fine-tune a network on a few images from elsewhere; return its accuracy on new ones in eval mode."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16, momentum=0.01), nn.ReLU(), nn.Linear(16, 2))
    with torch.no_grad():  # the statistics of the pretraining, whose images had mean 0
        before = model[0](torch.randn(500, 8))
        model[1].running_mean.copy_(before.mean(0))
        model[1].running_var.copy_(before.var(0))
    images, targets = _elsewhere(200 if repair == "more images" else 50)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1 if repair == "a larger rate" else 0.01)
    for _ in range(80):
        model[1].train(repair != "hold the norms")
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), targets).backward()
        optimizer.step()
    images, targets = _elsewhere(400)
    with torch.no_grad():
        return (model.eval()(images).argmax(1) == targets).float().mean().item()


def _elsewhere(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.randn(count, 8) + 3
    return images, (images[:, 0] > 3).long()


def _as_a_pair():
    return ["stored statistics", "hold the norms"]


def _by_heart():
    return "overfitting", "more images"


def _not_learned():
    return "too small a rate", "a larger rate"


def _leaking():
    return "a leak", "another split"


def _right_cause_wrong_repair():
    return "stored statistics", "more images"


def _repair_first():
    return "hold the norms", "stored statistics"


def _longer_strides():
    return "stored statistics", "a larger rate"


@exercise(
    check=check_gap_by_mode,
    hints=[
        "The same weights, the same images, two modes. What differs between the modes?",
        "Batch norm has two sources of mean and variance: the batch, and what it has stored.",
        "With few batches the stored numbers have not followed what the weights in front of them became.",
    ],
    also_right=[_as_a_pair],
    mistakes=[
        Mistake(_by_heart, says="in *both* modes"),
        Mistake(_not_learned, says="wrong on its training images too"),
        Mistake(_leaking, says="too good"),
        Mistake(_right_cause_wrong_repair, says="`more images` gives"),
        Mistake(_longer_strides, says="`a larger rate` gives"),
        Mistake(_repair_first, says="the repair first"),
    ],
    remember="Right in train mode and wrong in eval mode is no overfitting: it is batch norm.",
    seconds=30,
)
def gap_by_mode() -> tuple[str, str]:
    """Choose and justify: everything was trained on 50 images; eval mode is right on a fifth of new images.

    With the statistics of each batch in its norms, the same network is right on all its training images, and on
    two thirds of the *new* ones. Cause: "overfitting", "too small a rate", "stored statistics" or "a leak".
    Repair: "more images", "a larger rate", "hold the norms" (in eval mode while training) or "another split".
    Return both, the cause first.
    """
    return "stored statistics", "hold the norms"
