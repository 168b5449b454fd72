"""Which parameter is which: sorting them by identity, not by value."""

import copy

import torch
from torch import Tensor, nn

from ftlab.exercises.behaviour import below, some
from ftlab.exercises.core import Mistake, Raised, Wrong, exercise
from ftlab.exercises.models import SmallResNet


def check_split(answer):
    """The two lists, tensor by tensor and by identity, for three parts, one with a twin of equal values."""
    model = SmallResNet()
    model.twin = copy.deepcopy(model.layer1)
    for name in ("fc", "layer1", "bn1"):
        inside, outside = _two_lists(_call_split(answer, model, model.get_submodule(name)))
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        found, others = {names.get(id(p)) for p in inside}, {names.get(id(p)) for p in outside}
        given, part = f"With `part=model.{name}`", below(model, name)
        if found != part:
            _say_difference(f"{given}, in the first list", found, part)
        if others != set(names.values()) - part:
            _say_difference(f"{given}, in the second list", others, set(names.values()) - part)


def _call_split(answer, model, part):
    try:
        return answer(model, part)
    except Raised as raised:
        if "size of tensor" in str(raised.error) or "ambiguous" in str(raised.error):
            ask = "Should two parameters be the same one, or only have the same values?"
            raise Wrong(f"{raised.message} `in` and `==` compare tensors number by number.", ask=ask) from None
        raise


def _two_lists(value):
    try:
        inside, outside = value
    except (TypeError, ValueError):
        ask = "Does it end with `return inside, outside`?"
        raise Wrong(f"Not two lists: what came back is of type `{type(value).__name__}`.", ask=ask) from None
    for one in (inside, outside):
        if iter(one) is one:
            text = f"It gave back a `{type(one).__name__}`, which is used up after one pass."
            raise Wrong(text, ask="The optimizer, clipping, counting: how often will you go through it?")
        others = [type(member).__name__ for member in one if not isinstance(member, Tensor)]
        if others:
            ask = "Which method gives parameters, and which one pairs of a name and a parameter?"
            raise Wrong(f"In a list there is something of type `{others[0]}`.", ask=ask)
    return list(inside), list(outside)


def _say_difference(place: str, found: set, wanted: set) -> None:
    if None in found:
        raise Wrong(f"{place}, there are tensors that are not parameters of the model.", ask="Were they copied?")
    if found - wanted:
        ask = "What does `==` compare between two tensors, and what does `is` compare?"
        raise Wrong(f"{place}, {some(found - wanted)} should not be.", ask=ask)
    text = f"{place}, {len(wanted - found)} parameters are missing, such as {some(sorted(wanted - found)[:1])}."
    text += " They look like parameters of the part, in shape and in values, and are others."
    raise Wrong(text, ask="By what did you recognise those of the part?")


def _in_list(model, part):
    inside = list(part.parameters())
    outside = [parameter for parameter in model.parameters() if parameter not in inside]
    return inside, outside


def _not_in_generator(model, part):
    outside = [parameter for parameter in model.parameters() if parameter not in part.parameters()]
    return list(part.parameters()), outside


def _split_by_is(model, part):
    inside = list(part.parameters())
    return inside, [p for p in model.parameters() if not any(p is q for q in inside)]


def _split_by_set(model, part):
    inside = set(part.parameters())  # a parameter hashes by identity
    return inside, set(model.parameters()) - inside


def _split_by_name(model, part):
    (name,) = (name for name, module in model.named_modules() if module is part)
    named = dict(model.named_parameters())
    inside = [name_ for name_ in named if name_.startswith(f"{name}.")]
    return [named[n] for n in inside], [p for n, p in named.items() if n not in inside]


def _split_by_equal(model, part):
    inside = list(part.parameters())
    same = [p for p in model.parameters() if any(torch.equal(p, q) for q in inside)]
    return inside, [p for p in model.parameters() if not any(p is q for q in same)]


def _split_by_shape(model, part):
    shapes = [p.shape for p in part.parameters()]
    outside = [p for p in model.parameters() if p.shape not in shapes]
    return list(part.parameters()), outside


def _split_into_generators(model, part):
    ids = {id(p) for p in part.parameters()}
    return part.parameters(), filter(lambda p: id(p) not in ids, model.parameters())


def _split_into_all(model, part):
    return list(part.parameters()), list(model.parameters())


def _split_into_copies(model, part):
    ids = {id(p) for p in part.parameters()}
    return list(copy.deepcopy(part).parameters()), [p for p in model.parameters() if id(p) not in ids]


@exercise(
    check=check_split,
    broken=_in_list,
    hints=[
        "`parameter in inside` asks `parameter == other` for each of them. What does `==` give for two tensors?",
        "The question is whether it is the same tensor, not whether it has the same values.",
        "Collect `id(parameter)` of the part in a set.",
    ],
    also_right=[_split_by_is, _split_by_set, _split_by_name],
    mistakes=[
        Mistake(_not_in_generator, says="`in` and `==` compare tensors number by number"),
        Mistake(_split_by_equal, says="They look like parameters of the part"),
        Mistake(_split_by_shape, says="They look like parameters of the part, in shape"),
        Mistake(_split_into_generators, says="used up after one pass"),
        Mistake(_split_into_all, says="in the second list, `fc.bias`, `fc.weight` should not be"),
        Mistake(_split_into_copies, says="not parameters of the model"),
    ],
    remember="A parameter is itself: compare by identity (`is`, `id`), never by value.",
)
def split(model: nn.Module, part: nn.Module) -> tuple[list, list]:
    """Repair: return the parameters of `part`, a module inside `model`, and all other parameters of `model`.

    Both are lists, to make two parameter groups of them with their own learning rates.
    """
    ids = {id(parameter) for parameter in part.parameters()}
    outside = [parameter for parameter in model.parameters() if id(parameter) not in ids]
    return list(part.parameters()), outside
