"""New heads: of any network, beside loaded parameters, and in time for the optimizer."""

import copy

import torch
from torch import nn

from ftlab.exercises.behaviour import images, moved, sgd, snapshot, some, train
from ftlab.exercises.core import Mistake, Wrong, exercise
from ftlab.exercises.models import SmallResNet, small_mobilenet
from ftlab.exercises.surgery.models import small_squeezenet

_HEADS = {SmallResNet: "fc", small_mobilenet: "classifier.3", small_squeezenet: "classifier.1"}


def check_exchange_head(answer):
    """A small ResNet, MobileNetV3 and SqueezeNet: the scores, what else has changed, whether the head learns."""
    for build, head in _HEADS.items():
        model = build()
        where, before = f"With a {type(model).__name__}: ", snapshot(model)
        answer(model, 5)
        _expect_scores(model, 5, where)
        others = {name: tensor for name, tensor in before.items() if not name.startswith(f"{head}.")}
        now = snapshot(model)
        changed = {n for n, tensor in others.items() if n not in now or not torch.equal(now[n], tensor)}
        if changed or now.keys() - before.keys():
            text = f"{where}besides the head, {some(changed or now.keys() - before.keys())} has changed."
            raise Wrong(text, ask="Which one layer gives the numbers of the classes?")
        if not moved(model, lambda m=model: train(m, sgd(m))) & {f"{head}.weight"}:
            raise Wrong(f"{where}the new head does not learn.", ask="What is its `requires_grad`?")


def _expect_scores(model, count, where):
    model.eval()
    try:
        scores = model(images())
    except (RuntimeError, TypeError, NotImplementedError) as error:
        text = f"{where}after your change the model raises `{str(error)[:120]}`."
        raise Wrong(text, ask="What goes into the layer that you have replaced, and in which shape?") from None
    if scores.shape != (4, count):
        text = f"{where}for 4 images and {count} classes the scores have the shape {tuple(scores.shape)}."
        raise Wrong(text, ask="Which layer makes the scores, and is it the one that you have changed?")


def _by_parent(model, num_classes):
    wanted = [n for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    parent, _, leaf = wanted.rpartition(".")
    old = model.get_submodule(wanted)
    if isinstance(old, nn.Conv2d):
        new = nn.Conv2d(old.in_channels, num_classes, kernel_size=1)
    else:
        new = nn.Linear(old.in_features, num_classes)
    setattr(model.get_submodule(parent), leaf, new)


def _by_kind(model, num_classes):
    if hasattr(model, "fc"):
        model.fc = nn.Linear(model.fc.in_features, num_classes)
    elif isinstance(model.classifier[-1], nn.Linear):
        model.classifier[-1] = nn.Linear(model.classifier[-1].in_features, num_classes)
    else:
        model.classifier[1] = nn.Conv2d(model.classifier[1].in_channels, num_classes, 1)


def _always_fc(model, num_classes):
    size = model.fc.in_features if hasattr(model, "fc") else 32
    model.fc = nn.Linear(size, num_classes)


def _hard_coded(model, num_classes):
    model.fc = nn.Linear(512, num_classes)


def _new_label(model, num_classes):
    [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1].out_features = num_classes


def _linear_only(model, num_classes):
    name, old = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear)][-1]
    model.set_submodule(name, nn.Linear(old.in_features, num_classes))


def _one_more_layer(model, num_classes):
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    name, old = layers[-1]
    model.set_submodule(name, nn.Sequential(old, nn.Flatten(), nn.LazyLinear(num_classes)))


def _frozen(model, num_classes):
    _by_parent(model, num_classes)
    model.requires_grad_(False)


@exercise(
    check=check_exchange_head,
    hints=[
        "Print `model.named_modules()` of the three. The head is the last layer of its kind; what is its name?",
        "How many inputs the new layer needs, the old one knows: `in_features`, or `in_channels`.",
        "`model.set_submodule(name, new)` puts a layer in a place with dots in its name.",
    ],
    also_right=[_by_parent, _by_kind],
    mistakes=[
        Mistake(_always_fc, says="the scores have the shape (4, 3)"),
        Mistake(_hard_coded, says="after your change the model raises"),
        Mistake(_new_label, says="the scores have the shape (4, 3)"),
        Mistake(_linear_only, says="list index out of range"),
        Mistake(_one_more_layer, says="besides the head"),
        Mistake(_frozen, says="the new head does not learn"),
    ],
    remember="Read `in_features` from the old head, and its name from the model: no two families agree on it.",
)
def exchange_head(model: nn.Module, num_classes: int) -> None:
    """Transfer: give `model` a new head for `num_classes`, whichever of these three it is.

    A ResNet calls it `fc`, a MobileNetV3 `classifier.3`; in a SqueezeNet it is `classifier.1`, a convolution of
    1 x 1. In all of them it is the last layer that is `nn.Linear` or `nn.Conv2d`. Nothing else changes.
    """
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    name, old = layers[-1]
    if isinstance(old, nn.Linear):
        new = nn.Linear(old.in_features, num_classes)
    else:
        new = nn.Conv2d(old.in_channels, num_classes, old.kernel_size)
    model.set_submodule(name, new)


def check_load_all_but_head(answer):
    """A small MobileNetV3 for 5 classes, the state_dict of one for 3: every tensor afterwards."""
    source, model = small_mobilenet(3), small_mobilenet(5)
    state, before = source.state_dict(), snapshot(model)
    train(source)  # so that its statistics are its own
    kept = {name: tensor.clone() for name, tensor in state.items()}
    answer(model, state, "classifier.3")
    if state.keys() != kept.keys():
        ask = "Does somebody else still need the `state_dict` that you were given?"
        raise Wrong("The `state_dict` that was handed over has other keys now.", ask=ask)
    now = snapshot(model)
    missed = {n for n in kept if not n.startswith("classifier.3.") and not torch.equal(now[n], kept[n])}
    if missed == {n for n in kept if not n.startswith("classifier.3.") and not torch.equal(before[n], kept[n])}:
        ask = "Which call brings the numbers of a dictionary into a model?"
        raise Wrong("Nothing of the `state_dict` has arrived in the model.", ask=ask)
    if missed:
        raise Wrong(
            f"{some(missed)} should be as in the `state_dict`, and is not.", ask="Which rule left it out?"
        )
    if now["classifier.3.weight"].shape[0] != 5:
        raise Wrong(
            f"The model has {now['classifier.3.weight'].shape[0]} classes now.", ask="Whose head is that?"
        )
    if not all(torch.equal(now[name], before[name]) for name in ("classifier.3.weight", "classifier.3.bias")):
        raise Wrong("The head of the model has changed.", ask="What should be left of the new model?")


def _by_shape(model, state_dict, head):
    own = model.state_dict()
    fitting = {key: tensor for key, tensor in state_dict.items() if own[key].shape == tensor.shape}
    model.load_state_dict({**own, **fitting})


def _by_pop(model, state_dict, head):
    rest = dict(state_dict)
    rest.pop(f"{head}.weight")
    rest.pop(f"{head}.bias")
    model.load_state_dict(rest, strict=False)


def _only_strict_false(model, state_dict, head):
    model.load_state_dict(state_dict, strict=False)


def _update_without_loading(model, state_dict, head):
    own = model.state_dict()
    own.update({key: tensor for key, tensor in state_dict.items() if not key.startswith(f"{head}.")})


def _by_substring(model, state_dict, head):
    rest = {key: tensor for key, tensor in state_dict.items() if "fc" not in key and head not in key}
    model.load_state_dict(rest, strict=False)


def _pop_from_theirs(model, state_dict, head):
    del state_dict[f"{head}.weight"], state_dict[f"{head}.bias"]
    model.load_state_dict(state_dict, strict=False)


def _parameters_only(model, state_dict, head):
    for name, parameter in model.named_parameters():
        if not name.startswith(f"{head}."):
            parameter.data.copy_(state_dict[name])


@exercise(
    check=check_load_all_but_head,
    hints=[
        "Try `model.load_state_dict(state_dict, strict=False)` first. What does `strict=False` not forgive?",
        "Make a new dictionary without the two keys of the head.",
        "`strict=False` is right for the keys that are missing then.",
    ],
    also_right=[_by_shape, _by_pop],
    mistakes=[
        Mistake(_only_strict_false, says="size mismatch"),
        Mistake(_update_without_loading, says="Nothing of the `state_dict` has arrived"),
        Mistake(_by_substring, says="should be as in the `state_dict`"),
        Mistake(_pop_from_theirs, says="has other keys now"),
        Mistake(_parameters_only, says="should be as in the `state_dict`"),
    ],
    remember="`strict=False` forgives missing and unexpected keys, never another shape.",
)
def load_all_but_head(model: nn.Module, state_dict: dict[str, torch.Tensor], head: str) -> None:
    """Load everything but the head from `state_dict` into `model`, which keeps its own new head.

    `model` is built for another number of classes than the model that `state_dict` is from. `head` is the name of
    that layer, such as "classifier.3". The `state_dict` itself stays as it is.
    """
    rest = {key: tensor for key, tensor in state_dict.items() if not key.startswith(f"{head}.")}
    model.load_state_dict(rest, strict=False)


def check_prepare(answer):
    """What three training steps move in a small ResNet with the optimizer that you return, and what it holds."""
    model = SmallResNet()
    optimizer = answer(model, 4)
    if not isinstance(optimizer, torch.optim.Optimizer):
        ask = "Which object is asked for?"
        raise Wrong(f"You returned a `{type(optimizer).__name__}`, not an optimizer.", ask=ask)
    _expect_scores(model, 4, "")
    known = {id(p) for group in optimizer.param_groups for p in group["params"]}
    moving = moved(model, lambda: train(model, optimizer))
    still = {name for name, p in model.named_parameters() if name not in moving}
    if still & {"fc.weight", "fc.bias"}:
        text = f"Training with your optimizer does not move {some(still)}, and nobody complains."
        raise Wrong(text, ask="Which parameters did the model have when the optimizer was built?")
    if still:
        raise Wrong(f"{some(still)} did not move; the whole network was to train.", ask="Who was left out?")
    if left := known - {id(p) for p in model.parameters()}:
        text = f"The optimizer still holds {len(left)} tensors that are not in the model any more."
        raise Wrong(text, ask="Whose were they, and what becomes of their memory?")


def _with_a_group(model, num_classes):
    model.fc = nn.Linear(model.fc.in_features, num_classes)
    backbone = [p for name, p in model.named_parameters() if not name.startswith("fc.")]
    return torch.optim.SGD([{"params": backbone}, {"params": model.fc.parameters(), "lr": 0.1}], lr=0.05)


def _with_adam(model, num_classes):
    new = nn.Linear(model.fc.in_features, num_classes)
    model.set_submodule("fc", new)
    return torch.optim.Adam(list(model.parameters()), lr=0.1)


def _optimizer_first(model, num_classes):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model.fc = nn.Linear(model.fc.in_features, num_classes)
    return optimizer


def _added_behind(model, num_classes):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model.fc = nn.Linear(model.fc.in_features, num_classes)
    optimizer.add_param_group({"params": model.fc.parameters()})
    return optimizer


def _head_alone(model, num_classes):
    model.fc = nn.Linear(model.fc.in_features, num_classes)
    return torch.optim.SGD(model.fc.parameters(), lr=0.1)


def _of_a_copy(model, num_classes):
    other = copy.deepcopy(model)
    other.fc = nn.Linear(model.fc.in_features, num_classes)
    model.fc = nn.Linear(model.fc.in_features, num_classes)
    return torch.optim.SGD(other.parameters(), lr=0.1)


def _wrong_size(model, num_classes):
    model.fc.out_features = num_classes
    return torch.optim.SGD(model.parameters(), lr=0.1)


@exercise(
    check=check_prepare,
    hints=[
        "An optimizer keeps the tensors that it was given. It never looks at the model again.",
        "Compare `id(p)` of `model.fc.parameters()` with those in `optimizer.param_groups`.",
        "Two lines are in the wrong order.",
    ],
    also_right=[_with_a_group, _with_adam],
    mistakes=[
        Mistake(_optimizer_first, says="`fc.bias`, `fc.weight`, and nobody complains"),
        Mistake(_added_behind, says="still holds 2 tensors"),
        Mistake(_head_alone, says="the whole network was to train"),
        Mistake(_of_a_copy, says="and nobody complains"),
        Mistake(_wrong_size, says="the scores have the shape (4, 3)"),
    ],
    broken=_optimizer_first,
    remember="Surgery first, optimizer last: it holds tensors, not names.",
)
def prepare(model: nn.Module, num_classes: int) -> torch.optim.Optimizer:
    """Repair: give `model`, a ResNet, a new head for `num_classes`; return an optimizer for the whole of it."""
    model.fc = nn.Linear(model.fc.in_features, num_classes)
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
