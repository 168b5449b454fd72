"""What lesson 09 says about checkpoints."""

import copy
import io
import pickle
import warnings

import numpy as np
import torch
from torch import nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LinearLR, OneCycleLR, StepLR

from ftlab.probes import probe


def _written(value: object) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return file


def _refused(value: object) -> bool:
    try:
        torch.load(_written(value))
    except pickle.UnpicklingError:
        return True
    return False


@probe("`model.state_dict()` is a view: it changes with the model, and so does a `.copy()` of it.")
def state_dict_is_a_view() -> bool:
    model = nn.Linear(1, 1)
    view, shallow, deep = model.state_dict(), model.state_dict().copy(), copy.deepcopy(model.state_dict())
    with torch.no_grad():
        model.weight += 1
    same = [torch.equal(state["weight"], model.weight) for state in (view, shallow, deep)]
    return same == [True, True, False]


@probe("`torch.save` of three numbers of a million writes all the million.")
def a_slice_keeps_its_memory() -> bool:
    memory = torch.zeros(1_000_000)
    return (
        len(_written(memory[:3]).getvalue()) > 4_000_000 > 10_000 > len(_written(memory[:3].clone()).getvalue())
    )


@probe("`torch.load` refuses a whole model, a number of NumPy and a path by default.")
def the_default_is_safe() -> bool:
    from pathlib import Path

    return all(_refused(value) for value in (nn.Linear(1, 1), np.float64(1), Path("a")))


@probe("`strict=False` forgives every name, loads nothing and raises nothing.")
def strict_false_loads_nothing() -> bool:
    model = nn.Linear(1, 1)
    before = model.weight.clone()
    model.load_state_dict({"module.weight": torch.zeros(1, 1)}, strict=False)
    return torch.equal(model.weight, before)


@probe("`strict=False` does not forgive a shape.")
def strict_false_wants_the_shape() -> bool:
    try:
        nn.Linear(1, 1).load_state_dict({"weight": torch.zeros(2, 1)}, strict=False)
    except RuntimeError as error:
        return "size mismatch" in str(error)
    return False


@probe("When `load_state_dict` raises a size mismatch, what fits has been loaded already.")
def half_loaded() -> bool:
    model = nn.Linear(1, 1)
    try:
        model.load_state_dict({"weight": torch.full((1, 1), 7.0), "bias": torch.zeros(2)})
    except RuntimeError:
        return model.weight.item() == 7.0
    return False


@probe(
    "A half precision file loads into a float32 model without a word; with `assign=True` the model becomes half."
)
def half_precision_is_quiet() -> bool:
    state = {name: value.half() for name, value in nn.Linear(1, 1).state_dict().items()}
    plain, assigned = nn.Linear(1, 1), nn.Linear(1, 1)
    plain.load_state_dict(state)
    assigned.load_state_dict(state, assign=True)
    return (plain.weight.dtype, assigned.weight.dtype) == (torch.float32, torch.float16)


@probe("`load_state_dict` of an optimizer goes by position: swapped parameters get each other's moments.")
def optimizers_go_by_position() -> bool:
    one, other = (nn.Parameter(torch.ones(1)) for _ in range(2))
    one.grad, other.grad = torch.full((1,), 5.0), torch.full((1,), -5.0)
    old = Adam([("one", one), ("other", other)])
    old.step()
    new = Adam([("other", other), ("one", one)])
    new.load_state_dict(old.state_dict())
    return new.state[other]["exp_avg"].item() > 0


@probe("`load_state_dict` of an optimizer brings the old learning rate back.")
def the_old_rate_comes_back() -> bool:
    parameters = [nn.Parameter(torch.ones(1))]
    new = SGD(parameters, lr=0.5)
    new.load_state_dict(SGD(parameters, lr=0.1).state_dict())
    return new.param_groups[0]["lr"] == 0.1


def _rate_survives(make: object) -> bool:
    optimizer = SGD([nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = make(optimizer)
        for _ in range(3):
            optimizer.step()
            first.step()
        states = copy.deepcopy((optimizer.state_dict(), first.state_dict()))
        again = SGD([nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9)
        again.load_state_dict(states[0])
        make(again).load_state_dict(states[1])
    return again.param_groups[0]["lr"] == states[0]["param_groups"][0]["lr"]


@probe("To make a LambdaLR, LinearLR or OneCycleLR after the optimizer was loaded spoils the rate.")
def some_schedulers_write_the_rate() -> bool:
    makers = [
        lambda optimizer: LambdaLR(optimizer, lambda step: 0.5**step),
        lambda optimizer: LinearLR(optimizer, 0.1, total_iters=9),
        lambda optimizer: OneCycleLR(optimizer, 0.5, total_steps=9),
    ]
    return not any(_rate_survives(make) for make in makers)


@probe("To make a StepLR or CosineAnnealingLR after the optimizer was loaded leaves the rate as it is.")
def others_do_not() -> bool:
    makers = [lambda optimizer: StepLR(optimizer, 2), lambda optimizer: CosineAnnealingLR(optimizer, 9)]
    return all(_rate_survives(make) for make in makers)


@probe("The safe loader refuses NumPy's random state, and takes torch's and Python's.")
def random_states_of_numpy_are_refused() -> bool:
    import random

    taken = [torch.get_rng_state(), random.getstate()]
    return _refused(np.random.get_state()) and not any(map(_refused, taken))  # noqa: NPY002


@probe("After `load_state_dict(assign=True)` two tied weights are two parameters.")
def assign_unties() -> bool:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    return model[1].weight is not model[0].weight


@probe("A model on the meta device has no values until it is loaded with `assign=True`.")
def meta_needs_assign() -> bool:
    with torch.device("meta"):
        copied, assigned = nn.Linear(1, 1), nn.Linear(1, 1)
    state = nn.Linear(1, 1).state_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        copied.load_state_dict(state)
    assigned.load_state_dict(state, assign=True)
    return copied.weight.is_meta and not assigned.weight.is_meta


@probe(
    "`torch.load` does not compare the checksums that the file has: a changed number is loaded without a word."
)
def checksums_are_not_compared() -> bool:
    data = bytearray(_written({"weight": torch.arange(100.0)}).getvalue())
    data[data.index(torch.tensor(50.0).numpy().tobytes()) + 2] ^= 0x10
    return int((torch.load(io.BytesIO(data))["weight"] != torch.arange(100.0)).sum()) == 1
