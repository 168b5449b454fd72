"""What freezing saves, and how far gradients have to travel."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ftlab.exercises.behaviour import images, moved, sgd
from ftlab.exercises.core import Mistake, Wrong, exercise
from ftlab.exercises.models import SmallResNet

_FRONT = ("conv1", "bn1", "layer1", "layer2")
_BACK = ("layer3", "layer4", "fc")
_REASONS = {
    "more parameters": "The smaller part of the parameters lies there: look at both numbers of parameters.",
    "fewer gradients": "Gradients of parameters are one part of the memory, what is kept of each layer another.",
    "position": "",
    "forward": "The forward pass does the same work either way, whatever is frozen.",
}


def check_cheaper_half(answer):
    """The bytes that autograd keeps of a forward pass of a small ResNet, with either half frozen; the reason."""
    choice, reason = _choice_and_reason(answer())
    kept = {"front": _kept(_FRONT), "back": _kept(_BACK)}
    other = "back" if choice == "front" else "front"
    if kept[choice] >= kept[other]:
        text = f"With the {choice} frozen, autograd kept {kept[choice]:,} bytes; with the {other} frozen, less."
        raise Wrong(text, ask="Backward goes from the loss to the first trainable tensor. What lies on its way?")
    if _REASONS[reason]:
        raise Wrong(
            f'The choice is right, "{reason}" is not why. {_REASONS[reason]}', ask="What else is different?"
        )


def _choice_and_reason(value: object) -> tuple[str, str]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise Wrong(f"A choice and a reason were asked for, you gave `{value!r}`.", ask="Are there two texts?")
    choice, reason = value
    if choice not in ("front", "back") or reason not in _REASONS:
        raise Wrong(
            f"`{choice!r}, {reason!r}` is not in the task's lists.", ask="Is the choice first, then the reason?"
        )
    return choice, reason


def _kept(frozen: tuple[str, ...]) -> int:
    """Return how many bytes autograd keeps for backward if the modules `frozen` are frozen."""
    model = SmallResNet()
    for name in frozen:
        model.get_submodule(name).requires_grad_(False)
    own, kept = {p.data_ptr() for p in model.parameters()}, {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        scores = model(images(8))
    assert scores.requires_grad  # the graph is alive here, so no address was used twice
    return sum(kept.values())


def _as_a_list():
    return ["front", "position"]


def _by_variables():
    choice, reason = "front", "position"
    return choice, reason


def _back_has_more_parameters():
    return "back", "more parameters"


def _back_by_position():
    return "back", "position"


def _front_because_of_the_forward_pass():
    return "front", "forward"


def _front_because_of_gradients():
    return "front", "fewer gradients"


def _front_has_more_parameters():
    return "front", "more parameters"


def _choice_alone():
    return "front"


@exercise(
    check=check_cheaper_half,
    hints=[
        "Follow backward from the loss towards the image. Where may it stop in each of the two cases?",
        "To pass a gradient through a layer, backward needs what the layer kept in forward, frozen or not.",
        "Everything before the first trainable tensor needs no backward at all.",
    ],
    also_right=[_as_a_list, _by_variables],
    mistakes=[
        Mistake(_back_has_more_parameters, says="With the back frozen, autograd kept"),
        Mistake(_back_by_position, says="With the back frozen, autograd kept"),
        Mistake(_front_because_of_the_forward_pass, says="does the same work either way"),
        Mistake(_front_because_of_gradients, says="what is kept of each layer another"),
        Mistake(_front_has_more_parameters, says="look at both numbers"),
        Mistake(_choice_alone, says="A choice and a reason were asked for"),
    ],
    remember="Position decides: before the first trainable tensor, nothing is kept and backward does not go.",
)
def cheaper_half() -> tuple[str, str]:
    """Choose and justify: which half of a ResNet-18 do you freeze, so that training needs less activation memory?

    Choices: "front" (conv1 to layer2, 6 % of the parameters) or "back" (layer3 to fc, 94 %).
    Reasons: "more parameters" (most of them are frozen), "fewer gradients" (fewer of them are stored),
    "position" (backward ends early), "forward" (frozen layers compute less).
    Return both, the choice first.
    """
    return "front", "position"


def check_classify(answer):
    """One training step of an adapter, a frozen backbone and a head: the scores, and which of the three moved."""
    adapter, backbone, head = nn.Conv2d(3, 3, 1), SmallResNet().requires_grad_(False), nn.Linear(3, 2)
    backbone.eval()
    model = nn.ModuleDict({"adapter": adapter, "backbone": backbone, "head": head})
    batch = images()
    wanted = head(backbone(adapter(batch))).detach()
    scores = answer(adapter, backbone, head, batch)
    if (
        not isinstance(scores, Tensor)
        or scores.shape != wanted.shape
        or not torch.allclose(scores, wanted, atol=1e-5)
    ):
        raise Wrong(
            "The scores are not those of the three modules, one after the other.", ask="What is left out?"
        )
    if not scores.requires_grad:
        raise Wrong(
            "The scores carry no gradient at all: not even the head can learn.", ask="Where does it get lost?"
        )
    moving = {name.split(".")[0] for name in moved(model, lambda: _step(model, scores))}
    if "adapter" not in moving:
        text = "The head moved in a training step, the adapter did not: no gradient came through the backbone."
        raise Wrong(text, ask="What is the difference between not learning, and letting no gradient through?")
    if "backbone" in moving:
        raise Wrong("The frozen backbone moved.", ask="Which line switched its parameters on?")
    if "head" not in moving:
        raise Wrong("The adapter moved in a training step, the head did not.", ask="Is it inside `no_grad`?")


def _step(model: nn.Module, scores: Tensor) -> None:
    optimizer = sgd(model)
    F.cross_entropy(scores, torch.tensor([0, 1, 0, 1])).backward()
    optimizer.step()


def _backbone_in_no_grad(adapter, backbone, head, images):
    with torch.no_grad():
        features = backbone(adapter(images))
    return head(features)


def _in_steps(adapter, backbone, head, images):
    adapted = adapter(images)
    features = backbone(adapted)
    return head(features)


def _as_sequential(adapter, backbone, head, images):
    return nn.Sequential(adapter, backbone, head)(images)


def _only_the_backbone_in_no_grad(adapter, backbone, head, images):
    adapted = adapter(images)
    with torch.no_grad():
        features = backbone(adapted)
    return head(features)


def _detach(adapter, backbone, head, images):
    features = backbone(adapter(images))
    return head(features.detach())


def _wake_the_graph(adapter, backbone, head, images):
    with torch.no_grad():
        features = backbone(adapter(images))
    return head(features.requires_grad_(True))


def _thaw_the_backbone(adapter, backbone, head, images):
    backbone.requires_grad_(True)
    return head(backbone(adapter(images)))


def _all_in_no_grad(adapter, backbone, head, images):
    with torch.no_grad():
        return head(backbone(adapter(images)))


def _inference_mode(adapter, backbone, head, images):
    with torch.inference_mode():
        features = backbone(adapter(images))
    return head(features)


def _without_adapter(adapter, backbone, head, images):
    return head(backbone(images))


@exercise(
    check=check_classify,
    broken=_backbone_in_no_grad,
    hints=[
        "The adapter stands in front of the backbone. Which way does its gradient come?",
        "`requires_grad=False` holds a parameter. `no_grad` cuts the graph for everything that went in, too.",
        "The backbone is frozen by its flags already: leave `no_grad` away.",
    ],
    also_right=[_in_steps, _as_sequential],
    mistakes=[
        Mistake(_only_the_backbone_in_no_grad, says="the adapter did not"),
        Mistake(_detach, says="the adapter did not"),
        Mistake(_wake_the_graph, says="the adapter did not"),
        Mistake(_thaw_the_backbone, says="The frozen backbone moved"),
        Mistake(_all_in_no_grad, says="no gradient at all"),
        Mistake(_inference_mode, says="Inference tensors cannot be saved for backward"),
        Mistake(_without_adapter, says="The scores are not those"),
    ],
    remember="Frozen parameters let gradients through; `no_grad` and `detach` stop them for all before.",
)
def classify(adapter: nn.Module, backbone: nn.Module, head: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Repair: return the scores of the three modules in a row, so that both `adapter` and `head` can learn.

    The parameters of `backbone` are frozen already. `adapter` turns images of another kind, such as X-rays, into
    images for it.
    """
    return head(backbone(adapter(images)))
