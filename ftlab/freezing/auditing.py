"""The audit: run the learner's own step, and say what moved and why."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ftlab.given import expect
from ftlab.random_state import keep_random_state

from .causes import Cause, Hindrance
from .evidence import Evidence, check_values, named_tensors, shares_memory
from .report import FreezeAudit, TensorAudit, describe
from .selection import scopes
from .snapshot import Snapshot, listed, members, same, trainers


def audit(
    model: nn.Module,
    step: Callable[[], Any],
    steps: int = 1,
    optimizer: Optimizer | Sequence[Optimizer] | None = None,
    keep: bool = False,
) -> FreezeAudit:
    """Run `step` and say for each parameter and buffer whether it moved, by how much, and why.

    The model is as before afterwards: values, flags, modes, gradients, modules; so are the optimizers that own
    its parameters, their schedulers, gradient scalers, and the random states; also when `step` raises. With
    `keep=True` the steps count.

    The trap: what lies outside cannot be taken back. A batch that `step` draws from an iterator is gone, a
    printed line is printed, and a copy of the model kept elsewhere (an average of the weights) stays changed.
    A model that `torch.compile` returned is run as written, uncompiled.

    Args:
        model: The model that `step` trains.
        step: Your own training step, without arguments: forward, backward, `optimizer.step()`, in your order.
        steps: How often to run it.
        optimizer: The optimizer, or several. Without it, those that own parameters of the model are found.
        keep: Whether the changes stay.

    Raises:
        TypeError: If `step` cannot be called, or the model is a scripted one.
        ValueError: If `steps` is less than 1, or a tensor has no values yet.
        Exception: Whatever `step` raises, after everything was put back.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).requires_grad_(False)
        >>> model[2].requires_grad_(True)
        Linear(in_features=4, out_features=1, bias=True)
        >>> optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
        >>> def step():
        ...     optimizer.zero_grad()
        ...     model(torch.ones(8, 4)).mean().backward()
        ...     optimizer.step()
        >>> audit(model, step).moved["1.running_mean"]
        'batch norm statistics'
    """
    expect(model, nn.Module, "the model", "audit(model, step)")
    if not callable(step):
        raise TypeError(f"step is a function to call, not a {type(step).__name__}: write audit(model, step)")
    expect(steps, int, "steps", "audit(model, step, steps=1)")
    if steps < 1:
        raise ValueError(f"steps is 1 or more, not {steps}")
    check_values(model)
    optimizers, others = trainers(model, listed(optimizer, "audit(model, step, optimizer=optimizer)"))
    snapshot = Snapshot(model, optimizers, others)
    evidence = Evidence(model, snapshot.values)
    kept = False
    try:
        with nullcontext() if keep else keep_random_state(), evidence.collect():
            for _ in range(steps):
                step()
        found = FreezeAudit(
            _judge(model, evidence, optimizers, optimizer is not None), steps, len(evidence.strangers)
        )
        kept = keep
    except RuntimeError as error:
        _explain(error, model)
        raise
    finally:
        if not kept:
            snapshot.restore()
    return found


def _explain(error: RuntimeError, model: nn.Module) -> None:
    """Add to the error what can be seen of its cause."""
    parameters = dict(model.named_parameters())
    if "does not require grad" in str(error) and not any(p.requires_grad for p in parameters.values()):
        error.add_note(
            f"ftlab: none of the {len(parameters)} parameters is trainable, so backward has nothing to do; "
            f"unfreeze the head, which is probably {list(parameters)[-1].rpartition('.')[0]!r}"
        )


def _judge(
    model: nn.Module, evidence: Evidence, optimizers: list[Optimizer], given: bool
) -> Iterator[TensorAudit]:
    """Yield the verdict on every name that the model has, or had before the step."""
    after = named_tensors(model)
    frozen = _frozen_tensors(model)
    first = {id(tensor): name for name, tensor in reversed(evidence.names.items())}
    for name in dict.fromkeys([*evidence.names, *after]):
        old, new = evidence.names.get(name), after.get(name)
        tensor = new if old is None else old
        is_frozen = id(new) in frozen if new is not None else not tensor.requires_grad
        causes, twin = _causes(old, new, evidence)
        verdict = "moved" if causes else "held"
        if causes and first.get(id(tensor), name) != name and new is old:
            causes, twin = [Cause.TIE], first[id(tensor)]
        if not causes and isinstance(tensor, nn.Parameter) and tensor.requires_grad:
            verdict, causes = "stuck", _hindrances(tensor, evidence, optimizers, given)
        yield TensorAudit(
            name,
            "parameter" if isinstance(tensor, nn.Parameter) else "buffer",
            is_frozen,
            verdict,
            tuple(causes),
            describe(causes, is_frozen, twin),
            _change(evidence.start.get(id(old)), new) if verdict == "moved" else 0.0,
        )


def _frozen_tensors(model: nn.Module) -> set[int]:
    """Return the ids of the frozen parameters, and of the buffers of modules that lie in a frozen part."""
    frozen = {id(parameter) for parameter in model.parameters() if not parameter.requires_grad}
    for _, module, scope in scopes(model):
        if scope and all(id(parameter) in frozen for parameter in scope):
            frozen.update(id(buffer) for buffer in module._buffers.values() if buffer is not None)
    return frozen


def _causes(old: Tensor | None, new: Tensor | None, evidence: Evidence) -> tuple[list[Cause], str]:
    """Return why a tensor moved, and the name of the tensor it is tied to; no cause if it did not move."""
    if old is None or new is None:
        return [Cause.ADDED if old is None else Cause.REMOVED], ""
    if old is not new:
        return [Cause.REPLACED], ""
    key = id(old)
    if same(old.detach(), evidence.start[key]):
        return [], ""
    causes = evidence.causes[key]
    if set(causes) <= {Cause.TIE, Cause.WRITTEN}:
        for name, other in evidence.names.items():
            driven = set(evidence.causes[id(other)]) - {Cause.TIE, Cause.WRITTEN}
            if other is not old and driven and shares_memory(old, other):
                return [Cause.TIE], name
    return causes, ""


def _hindrances(
    parameter: Tensor, evidence: Evidence, optimizers: list[Optimizer], given: bool
) -> list[Hindrance]:
    """Return why a trainable parameter did not move."""
    key = id(parameter)
    if evidence.causes[key]:
        return [Hindrance.PUT_BACK]
    if key in evidence.in_group:
        return evidence.hindrances[key]
    # an optimizer that was only found, while another one stepped, may be left over from an earlier try
    owned = any(key in members(optimizer) for optimizer in optimizers) and (
        given or not evidence.in_group or key in evidence.not_finite
    )
    found = [Hindrance.NO_STEP if owned else Hindrance.NO_GROUP]
    if key in evidence.not_finite:
        found.append(Hindrance.NOT_FINITE)
    return found if key in evidence.pushed else found + evidence.without_gradient(parameter)


def _change(old: Tensor | None, new: Tensor | None) -> float:
    """Return the largest absolute change of a value; NaN if the two cannot be compared."""
    if old is None or new is None or old.shape != new.shape:
        return float("nan")
    if not new.numel():
        return 0.0
    wide = old.dtype if old.dtype in (torch.float64, torch.complex64, torch.complex128) else torch.float32
    return (new.detach().to(wide) - old.to(wide)).abs().max().item()
