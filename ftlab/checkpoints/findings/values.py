"""Findings about tensors whose names agree: another head, transposed, other precision, not finite."""

from contextlib import suppress

from torch import Tensor

from ftlab.checkpoints.diagnosis import Case
from ftlab.surgery import head_names

_PERMUTED = {2: (1, 0), 4: (3, 2, 0, 1), 3: (2, 1, 0), 5: (4, 3, 0, 1, 2)}  # as TensorFlow keeps them


def find_transposed(case: Case) -> None:
    """Find weights whose dimensions are in another order; square ones are turned along with the others."""
    turned = [name for name in case.misfits if _is_turned(case.state[name], case.own[name])]
    if not turned or 2 * len(turned) < len(case.misfits):
        return
    kinds = {case.own[name].dim() for name in turned}
    upright = [
        name
        for name in case.fitting()
        if case.own[name].dim() in kinds and not _is_turned(case.state[name], case.own[name])
    ]
    square = [
        name
        for name in case.fitting()
        if case.own[name].dim() in kinds and name not in upright and name.endswith("weight")
    ]
    names = turned + (square if not upright else [])
    also = (
        f"; {len(names) - len(turned)} more are square and are turned along" if len(names) > len(turned) else ""
    )
    orders = {dim: _PERMUTED[dim] for dim in sorted(kinds)}
    case.found(
        "transposed",
        f"{len(turned)} weights have their dimensions in another order, such as {turned[0]!r}: "
        f"{tuple(case.state[turned[0]].shape)} in the file, {tuple(case.own[turned[0]].shape)} in the model"
        f"{also}",
        "The file comes from TensorFlow, JAX or a layer that keeps its weight the other way round. A square "
        "weight does not show it by its shape.",
        f"orders = {orders}\nturned = {names}\n"
        "state = {\n    key: value.permute(orders[value.dim()]) if key in turned else value\n"
        "    for key, value in state.items()\n}",
    )


def _is_turned(given: Tensor, own: Tensor) -> bool:
    order = _PERMUTED.get(given.dim())
    return order is not None and given.dim() == own.dim() and given.permute(order).shape == own.shape


def find_classes(case: Case) -> None:
    """Find heads that differ in the number of classes only."""
    misfits = case.misfits
    others = [name for name in misfits if _is_head(case, name)]
    if not others or len(others) != len(misfits):
        return
    name = others[0]
    theirs, ours = len(case.state[name]), len(case.own[name])
    case.found(
        "classes",
        f"the head {name.rpartition('.')[0]!r} has {theirs} outputs in the file and {ours} in the model",
        f"The file was trained on {theirs} classes. All but the head can be loaded; the head stays random and "
        "has to be trained. strict=False does not forgive another shape: it raises, with the rest loaded.",
        f"head = {others}\nstate = {{key: value for key, value in state.items() if key not in head}}",
    )
    case.explained.update(others)


def _is_head(case: Case, name: str) -> bool:
    given, own = case.state[name], case.own[name]
    return (
        name.rpartition(".")[0] in heads(case) and given.dim() == own.dim() and given.shape[1:] == own.shape[1:]
    )


def heads(case: Case) -> list[str]:
    """Return the layers that give a number per class, as far as that can be told."""
    known: list[str] = []
    with suppress(ValueError):
        known = head_names(case.model)
    return [*known, *[name.rpartition(".")[0] for name, tensor in case.own.items() if tensor.dim() > 1][-1:]]


def find_precision(case: Case) -> None:
    """Find numbers that have another precision than the model's."""
    names = [name for name in case.fitting() if _other_precision(case.state[name], case.own[name])]
    if not names:
        return
    theirs, ours = case.state[names[0]].dtype, case.own[names[0]].dtype
    coarser = theirs.itemsize < ours.itemsize
    case.found(
        "half-precision" if coarser else "precision",
        f"{len(names)} tensors are {theirs}, the model's are {ours}",
        "They were rounded when they were saved; loading makes them long again, and the digits stay lost. "
        "load_state_dict(assign=True) would make the model's parameters of the file's type instead."
        if coarser
        else "Loading rounds them to the model's type, without a word.",
        "own = model.state_dict()\nstate = {key: value.to(own[key].dtype) if key in own else value "
        "for key, value in state.items()}",
    )


def _other_precision(given: Tensor, own: Tensor) -> bool:
    return given.dtype != own.dtype and given.is_floating_point() and own.is_floating_point()


def find_not_finite(case: Case) -> None:
    """Find numbers that are none: the training that wrote the file had already failed."""
    names = [
        name
        for name in case.fitting()
        if case.state[name].is_floating_point() and not case.state[name].float().isfinite().all()
    ]
    if names:
        case.found(
            "not-finite",
            f"{len(names)} tensors have values that are NaN or infinite, such as {names[0]!r}",
            "The training had failed before this was saved: the model gives NaN for every input. Take an earlier "
            "checkpoint. The fix leaves these tensors out.",
            "state = {\n    key: value for key, value in state.items()\n"
            "    if not value.is_floating_point() or value.float().isfinite().all()\n}",
        )
        case.explained.update(names)
