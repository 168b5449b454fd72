"""Look at what a model does rather than at its flags: helpers for checks.

`moved` and `held` tell which tensors change; `expect_moves` says it to the learner. None of them copies the
model: what an answer has put on it, such as a hook or a method of its own, must stay in place.
"""

from collections.abc import Callable, Collection, Iterable
from operator import index

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ftlab.exercises.core import Wrong


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of every parameter and buffer by its name; tied ones under each of their names."""
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {name: tensor.detach().clone() for name, tensor in tensors}


def moved(model: nn.Module, step: Callable[[], object]) -> set[str]:
    """Return the names of the parameters and buffers that `step()` changes; it does change them.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).requires_grad_(False)
        >>> sorted(moved(model, lambda: model(torch.ones(4, 2))))
        ['1.num_batches_tracked', '1.running_mean', '1.running_var']
    """
    before = snapshot(model)
    step()
    after = snapshot(model)
    same = {name for name in before.keys() & after.keys() if torch.equal(before[name], after[name])}
    return (before.keys() | after.keys()) - same


def held(model: nn.Module, step: Callable[[], object]) -> set[str]:
    """Return the names of the parameters and buffers that `step()` leaves as they were, bit for bit."""
    names = snapshot(model).keys()
    return names - moved(model, step)


def same_model(one: nn.Module, other: nn.Module) -> list[str]:
    """Return what differs between two models; nothing means that they are the same.

    Compared are parameters, buffers, `requires_grad`, gradients, and the mode of every module.

    Example:
        >>> same_model(nn.Linear(1, 1).requires_grad_(False), nn.Linear(1, 1))
        ['bias', 'bias.requires_grad', 'weight', 'weight.requires_grad']
    """
    first, second = _everything(one), _everything(other)
    return sorted(k for k in first.keys() | second.keys() if not _equal(first.get(k), second.get(k)))


def _everything(model: nn.Module) -> dict[str, object]:
    found: dict[str, object] = dict(snapshot(model))
    for name, parameter in model.named_parameters():
        found |= {f"{name}.requires_grad": parameter.requires_grad, f"{name}.grad": parameter.grad}
    return found | {f"{name or 'model'}.training": m.training for name, m in model.named_modules()}


def _equal(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return one is other


def as_positions(given: object, count: int, example: str = "[3, 17, 41]") -> list[int]:
    """Return positions from 0 to `count` - 1 as whole numbers; NumPy's and torch's are taken as well.

    Raises:
        Wrong: It is something else.
    """
    ask = f"Is it like `{example}`?"
    if isinstance(given, str | bytes | dict) or not isinstance(given, Iterable):
        raise Wrong(f"Not a list of positions came back, but one of type `{type(given).__name__}`.", ask=ask)
    found = list(given)
    for one in found:
        if isinstance(one, bool) or str(getattr(one, "dtype", "")).endswith("bool"):
            ask = "Which function gives the places at which a list is `True`?"
            raise Wrong("Not positions came back, but `True` and `False`.", ask=ask)
        try:
            place = index(one)
        except TypeError:
            kind = type(one).__name__
            raise Wrong(
                f"Not a list of positions came back: in it there is one of type `{kind}`.", ask=ask
            ) from None
        if not 0 <= place < count:
            raise Wrong(f"There is no position {place}: they go from 0 to {count - 1}.", ask=ask)
    return [index(one) for one in found]


def below(model: nn.Module, *names: str) -> set[str]:
    """Return the names of the parameters that are, or lie below, the modules `names`."""
    return {n for n, _ in model.named_parameters() if any(n == q or n.startswith(f"{q}.") for q in names)}


def sgd(model: nn.Module, lr: float = 0.1) -> torch.optim.Optimizer:
    """Return an optimizer for the trainable parameters of `model`, even if there are none.

    Its weight decay moves a parameter whose gradient is too small to change a number near 1.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.SGD(trainable or [torch.zeros(1)], lr=lr, momentum=0.9, weight_decay=0.01)


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer | None = None, *, steps: int = 3, set_to_none: bool = True
) -> None:
    """Train `model` for some steps on random images, the way a usual loop does, starting with `model.train()`.

    Args:
        model: Takes images of 3 x 32 x 32, gives the scores of at least 2 classes.
        optimizer: Without one, SGD with momentum over the parameters that require grad now.
        steps: Number of batches.
        set_to_none: What the loop hands to `optimizer.zero_grad`.
    """
    optimizer = optimizer or sgd(model)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=set_to_none)
        loss = F.cross_entropy(model(images()), torch.tensor([0, 1, 0, 1]))
        if loss.requires_grad:  # nothing to learn is an observation, not an error
            loss.backward()
        optimizer.step()


def images(count: int = 4) -> Tensor:
    """Return random images, `count` x 3 x 32 x 32."""
    return torch.randn(count, 3, 32, 32)


def expect_moves(model: nn.Module, wanted: Collection[str], *, where: str = "") -> None:
    """Train `model` a little; raise `Wrong` unless of its parameters exactly those in `wanted` move.

    Args:
        model: Is changed.
        wanted: Names of parameters.
        where: Begins the sentence, for a check that uses several models, such as "On a small ViT: ".
    """
    notice = slip(model)
    parameters = {name for name, _ in model.named_parameters()}
    moving = moved(model, lambda: train(model)) & parameters
    extra, missing = moving - set(wanted), set(wanted) - moving
    if not moving:
        ask = "Which parameters should still have `requires_grad=True` at the end?"
        raise Wrong(f"{where}Three training steps moved nothing at all, {some(missing)} neither.", ask=ask)
    if moving == parameters:
        notice = notice or "Nothing was switched off in the model that was handed over."
        ask = "What makes an optimizer leave a parameter alone, and of which model?"
        raise Wrong(f"{where}All {len(parameters)} parameters still move in training. {notice}", ask=ask)
    if extra:
        text = f"{where}{some(extra)} should be held, and still moved in training."
        raise Wrong(f"{text} {notice}".strip(), ask="By which rule was it left trainable?")
    if missing:
        text = f"{where}{some(missing)} should learn, and did not move in training."
        raise Wrong(text, ask="Which line switched it off, and which should switch it on again?")


def slip(model: nn.Module) -> str:
    """Name a slip of the pen that freezes nothing and raises nothing; an empty text if there is none."""
    for name, module in model.named_modules():
        invented = [key for key in vars(module) if key in ("requires_grad", "grad")]
        if invented:
            place = f"`{name}`" if name else "the model"
            return f"`{invented[0]}` is now an attribute of {place} itself, where PyTorch never looks."
    for name, parameter in model.named_parameters():
        invented = [key for key in vars(parameter) if "grad" in key]
        if invented:
            return f"`{name}` has got a new attribute `{invented[0]}`, which PyTorch does not know."
    if not model.training:
        return "The model was put into eval mode; that concerns dropout and batch norm."
    return ""


def some(names: Iterable[str], show: int = 2) -> str:
    """Return the first names and the number of the others.

    Example:
        >>> some({"fc.weight", "fc.bias", "conv1.weight"})
        '`conv1.weight`, `fc.bias` and 1 more'
    """
    names = sorted(names)
    more = f" and {len(names) - show} more" if len(names) > show else ""
    return ", ".join(f"`{name}`" for name in names[:show]) + more


def as_names(value: object, known: Collection[str]) -> set[str]:
    """Return a prediction as a set of names; raise `Wrong` if it is not one, or has a name that is not known.

    Example:
        >>> as_names(["total+=loss "], ["total += loss", "total"])
        {'total += loss'}
    """
    if isinstance(value, str) or not isinstance(value, Iterable):
        kind = type(value).__name__
        raise Wrong(f"Not a set of names: what you gave is of type `{kind}`.", ask='Is it like `{"a", "b"}`?')
    meant = {"".join(name.split()): name for name in known}  # spaces do not matter
    names = {meant.get("".join(str(name).split()), str(name)) for name in value}
    if names - set(known):
        raise Wrong(f"{some(names - set(known))}: no such name is in the task.", ask="Which names does it list?")
    return names


def choice_and_reason(value: object, choices: Collection[str], reasons: Collection[str]) -> tuple[str, str]:
    """Return a choice and its reason; raise `Wrong` if they are not from the lists of the task.

    Example:
        >>> choice_and_reason(["red ", "warm"], ("red", "blue"), ("warm", "cold"))
        ('red', 'warm')
    """
    if not isinstance(value, tuple | list) or len(value) != 2:
        kind = type(value).__name__
        raise Wrong(f"Not a choice and a reason: you gave a `{kind}`.", ask='Is it like `("choice", "reason")`?')
    found = []
    for given, known, what in zip(value, (choices, reasons), ("choices", "reasons"), strict=True):
        name = given.strip() if isinstance(given, str) else given
        if not isinstance(name, str) or name not in known:
            listed = ", ".join(f'"{one}"' for one in known)
            text = f"`{name}` is none of the {what}: {listed}."
            raise Wrong(text, ask="The choice comes first, then the reason, each as a text?")
        found.append(name)
    return found[0], found[1]


def as_number(value: object, what: str) -> float:
    """Return what an answer gave as a number, also out of a tensor; raise `Wrong` if it is not one.

    Example:
        >>> as_number(torch.tensor([0.5]), "accuracy")
        0.5
    """
    try:
        return float(value.detach() if isinstance(value, torch.Tensor) else value)
    except (TypeError, ValueError, RuntimeError):
        kind = type(value).__name__
        raise Wrong(f"The {what} is one number; yours is of type `{kind}`.", ask="What is returned?") from None
