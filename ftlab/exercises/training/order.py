"""The order inside the loop: zero_grad, backward, clip, step."""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from ftlab.exercises.core import Mistake, Wrong, exercise
from ftlab.exercises.training.recording import Recorded, small_batches
from ftlab.plural import plural


def check_train_clipped(answer):
    """The gradient of every optimizer step: its norm, its direction, and that it is that of one batch alone."""
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    optimizer = Recorded(model[2].parameters(), lr=0.01)  # the body is not frozen, and nobody trains it
    batches = small_batches(6, scale=30.0)
    wanted = _one_batch_each(model, batches, 0.01, 0.05)
    answer(model, batches, optimizer, 0.05)
    if len(optimizer.used) != len(batches):
        text = f"For {len(batches)} batches the optimizer made {plural(len(optimizer.used), 'step')}."
        raise Wrong(text, ask="Which lines stand inside the loop?")
    _judge_clipped(optimizer.used, wanted)


def _one_batch_each(model: nn.Module, batches: list, lr: float, max_norm: float) -> list:
    """Return for each step the gradient of its batch alone, before and after the clip."""
    model, found = copy.deepcopy(model), []
    head = list(model[2].parameters())
    for x, y in batches:
        grads = torch.autograd.grad(F.cross_entropy(model(x), y), head)
        flat = torch.cat([g.flatten() for g in grads])
        factor = min(1.0, max_norm / flat.norm().item())
        found.append((flat, flat * factor))
        with torch.no_grad():
            for parameter, grad in zip(head, grads, strict=True):
                parameter -= lr * factor * grad
    return found


def _judge_clipped(used: list, wanted: list) -> None:
    for step, (grad, (before, after)) in enumerate(zip(used, wanted, strict=True)):
        norm = grad.norm().item()
        if norm == 0:
            raise Wrong(f"Step {step} used no gradient at all.", ask="What does `zero_grad` clear, and when?")
        if norm > 0.0501:
            text = f"Step {step} used gradients with a norm of {norm:.3g}; at most 0.05 was wanted."
            raise Wrong(
                text, ask="Which gradients were there when the clip was called, and which tensors did it get?"
            )
        if grad.numel() != after.numel():
            raise Wrong("Some gradients are missing from the step.", ask="Which are cleared before the step?")
        if _angle(grad, before) > 1e-3:  # what a clip left of the last batch's gradient turns it by a little only
            text = f"Step {step} goes in another direction than the gradient of its batch."
            ask = "Does it still have gradients of the batch before, and has each number the same factor?"
            raise Wrong(text, ask=ask)
        if not abs(norm - after.norm().item()) <= 1e-3 * after.norm().item():
            text = f"Step {step} used a gradient of norm {norm:.3g}: it was cut down more than needed."
            raise Wrong(text, ask="Of which tensors is the norm measured: those of the optimizer, or more?")


def _angle(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return by how much two directions differ, in radians; in double, for small angles."""
    one, other = one.double(), other.double()
    return (one / one.norm() - other / other.norm()).norm().item()


def _clip_first(model, batches, optimizer, max_norm):
    for x, y in batches:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        loss.backward()
        optimizer.step()


def _clip_after_step(model, batches, optimizer, max_norm):
    for x, y in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)


def _clip_the_whole_model(model, batches, optimizer, max_norm):
    for x, y in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()


def _clip_values(model, batches, optimizer, max_norm):
    for x, y in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_value_(optimizer.param_groups[0]["params"], max_norm / 100)
        optimizer.step()


def _clip_one_by_one(model, batches, optimizer, max_norm):
    for x, y in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        for parameter in optimizer.param_groups[0]["params"]:
            nn.utils.clip_grad_norm_(parameter, max_norm)
        optimizer.step()


def _used_up_generator(model, batches, optimizer, max_norm):
    parameters = filter(lambda p: p.requires_grad, model[2].parameters())
    for x, y in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(parameters, max_norm)
        optimizer.step()


def _zero_between(model, batches, optimizer, max_norm):
    for x, y in batches:
        F.cross_entropy(model(x), y).backward()
        optimizer.zero_grad()
        optimizer.step()


def _never_zero(model, batches, optimizer, max_norm):
    for x, y in batches:
        F.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], max_norm)
        optimizer.step()


def _step_per_epoch(model, batches, optimizer, max_norm):
    for x, y in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], max_norm)
    optimizer.step()


def _zero_at_the_end(model, batches, optimizer, max_norm):
    owned = [p for group in optimizer.param_groups for p in group["params"]]
    for x, y in batches:
        F.cross_entropy(model(x), y).backward()
        torch.nn.utils.clip_grad_norm_(owned, max_norm)
        optimizer.step()
        model.zero_grad()


def _clipped_by_hand(model, batches, optimizer, max_norm):
    owned = [p for group in optimizer.param_groups for p in group["params"]]
    for x, y in batches:
        optimizer.zero_grad(set_to_none=False)
        F.cross_entropy(model(x), y).backward()
        norm = sum(p.grad.square().sum() for p in owned).sqrt()
        if norm > max_norm:
            for p in owned:
                p.grad *= max_norm / norm
        optimizer.step()


def _in_a_closure(model, batches, optimizer, max_norm):
    for batch in batches:

        def closure(batch=batch):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(batch[0]), batch[1])
            loss.backward()
            nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], max_norm)
            return loss

        optimizer.step(closure)


@exercise(
    check=check_train_clipped,
    broken=_clip_first,
    hints=[
        "There are two slips. When is there a gradient to clip? And whose gradients are counted?",
        "`optimizer.zero_grad()` clears what the optimizer owns. What happens to the rest of the model's?",
        "Collect the tensors from `optimizer.param_groups`, in a list: a generator is used up after one round.",
    ],
    also_right=[_zero_at_the_end, _clipped_by_hand, _in_a_closure],
    mistakes=[
        Mistake(_clip_after_step, says="Step 0 used gradients with a norm of"),
        Mistake(_clip_the_whole_model, says="cut down more than needed"),
        Mistake(_clip_values, says="goes in another direction"),
        Mistake(_clip_one_by_one, says="used gradients with a norm of"),
        Mistake(_used_up_generator, says="Step 1 used gradients with a norm of"),
        Mistake(_zero_between, says="used no gradient at all"),
        Mistake(_never_zero, says="goes in another direction"),
        Mistake(_step_per_epoch, says="For 6 batches the optimizer made 1 step."),
    ],
    remember="zero_grad, backward, clip, step; and clip what the optimizer owns.",
)
def train_clipped(model: nn.Module, batches: list, optimizer: torch.optim.Optimizer, max_norm: float) -> None:
    """Repair: make one step per batch, with the gradients clipped to one global norm of at most `max_norm`.

    `optimizer` owns only a part of the parameters. Clip those that it owns, together, and no others.
    """
    owned = [p for group in optimizer.param_groups for p in group["params"]]
    for x, y in batches:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(owned, max_norm)
        optimizer.step()
