"""The order inside the loop: zero_grad, backward, unscale, clip, step; windows of several batches."""

import copy

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD

from ftlab.exercises.core import Mistake, Raised, Wrong, exercise


class _Recorded(SGD):
    """SGD that notes at each step the norm and the values of the gradients that it uses."""

    def __init__(self, parameters, **options):
        super().__init__(parameters, **options)
        self.used = []

    def step(self, closure=None):
        grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        self.used.append(torch.cat([g.flatten() for g in grads]).clone() if grads else torch.zeros(1))
        return super().step(closure)


def _model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def _batches(count: int = 4, size: int = 5, scale: float = 1.0) -> list:
    return [(scale * torch.randn(size, 6), torch.randint(3, (size,))) for _ in range(count)]


# --- train_clipped


def check_train_clipped(answer):
    """The gradient of every optimizer step: its norm, its direction, and that it is that of one batch alone."""
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    optimizer = _Recorded(model[2].parameters(), lr=0.01)  # the body is not frozen, and nobody trains it
    batches = _batches(6, scale=30.0)
    wanted = _one_batch_each(model, batches, 0.01, 0.05)
    answer(model, batches, optimizer, 0.05)
    if len(optimizer.used) != len(batches):
        text = f"For {len(batches)} batches the optimizer made {len(optimizer.used)} steps."
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


@exercise(
    check=check_train_clipped,
    broken=_clip_first,
    hints=[
        "There are two slips. When is there a gradient to clip? And whose gradients are counted?",
        "`optimizer.zero_grad()` clears what the optimizer owns. What happens to the rest of the model's?",
        "Collect the tensors from `optimizer.param_groups`, in a list: a generator is used up after one round.",
    ],
    also_right=[_zero_at_the_end, _clipped_by_hand],
    mistakes=[
        Mistake(_clip_after_step, says="Step 0 used gradients with a norm of"),
        Mistake(_clip_the_whole_model, says="cut down more than needed"),
        Mistake(_clip_values, says="goes in another direction"),
        Mistake(_clip_one_by_one, says="used gradients with a norm of"),
        Mistake(_used_up_generator, says="Step 1 used gradients with a norm of"),
        Mistake(_zero_between, says="used no gradient at all"),
        Mistake(_never_zero, says="goes in another direction"),
        Mistake(_step_per_epoch, says="For 6 batches the optimizer made 1 steps"),
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


# --- mixed_step


def check_mixed_step(answer):
    """The gradient that a real gradient scaler lets the optimizer use: a usual batch, then one that overflows."""
    model = _model()
    optimizer = _Recorded(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14)
    x, y = _batches(1, scale=30.0)[0]
    before = copy.deepcopy(model.state_dict())
    for step in range(2):  # the second one finds what the first has left behind
        _call_mixed(answer, F.cross_entropy(model(x), y), model, optimizer, scaler)
        _judge_mixed(optimizer, step + 1)
    if all(torch.equal(before[name], value) for name, value in model.state_dict().items()):
        raise Wrong("After two steps no parameter has moved.", ask="Who makes the step?")
    _judge_overflow(answer, model, optimizer, scaler, x)


def _call_mixed(answer, loss, model, optimizer, scaler) -> None:
    try:
        answer(loss, model, optimizer, scaler, 0.05)
    except Raised as raised:
        if "unscale_" not in str(raised.error):
            raise
        ask = "What has been scaled before, how often is unscaled in a round, and which call ends the round?"
        raise Wrong(raised.message, ask=ask) from None


def _judge_mixed(optimizer: _Recorded, steps: int) -> None:
    if len(optimizer.used) != steps:
        text = f"After {steps} calls the optimizer has made {len(optimizer.used)} steps."
        raise Wrong(text, ask="Is there one step in each call?")
    norm = optimizer.used[-1].norm().item()
    if norm > 0.0501:
        text = f"The optimizer used gradients with a norm of {norm:.3g}; at most 0.05 was wanted."
        raise Wrong(
            text, ask="Are the gradients clipped that the optimizer uses, and are they back to their scale?"
        )
    if norm < 0.0499:
        text = f"The optimizer used gradients with a norm of {norm:.3g}: next to nothing."
        ask = "At which scale were the gradients when they were clipped, and what came after?"
        raise Wrong(text, ask=ask)


def _judge_overflow(answer, model, optimizer, scaler, x) -> None:
    before, scale = copy.deepcopy(model.state_dict()), scaler.get_scale()
    steps = len(optimizer.used)
    _call_mixed(answer, (model(x) * 1e38).sum(), model, optimizer, scaler)
    if len(optimizer.used) != steps or any(
        not torch.equal(before[name], value) for name, value in model.state_dict().items()
    ):
        text = "A batch whose scaled gradients overflow was not passed over: the parameters have changed."
        raise Wrong(text, ask="Who looks for gradients that are no numbers, before the step is made?")
    if scaler.get_scale() >= scale:
        text = "After an overflow the scale is as large as before, so the next batch overflows, too."
        raise Wrong(text, ask="Which call tells the scaler that a round is over?")


def _clip_scaled(loss, model, optimizer, scaler, max_norm):
    scaler.scale(loss).backward()
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    scaler.step(optimizer)
    scaler.update()


def _zeroed_first(loss, model, optimizer, scaler, max_norm):
    model.zero_grad()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], max_norm)
    scaler.step(optimizer)
    scaler.update()


def _clip_to_a_scaled_norm(loss, model, optimizer, scaler, max_norm):
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    nn.utils.clip_grad_norm_(model.parameters(), max_norm * scaler.get_scale())
    scaler.step(optimizer)
    scaler.update()


def _plain_step(loss, model, optimizer, scaler, max_norm):
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    scaler.update()


def _no_update(loss, model, optimizer, scaler, max_norm):
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    scaler.step(optimizer)


def _loss_not_scaled(loss, model, optimizer, scaler, max_norm):
    optimizer.zero_grad()
    loss.backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    scaler.step(optimizer)
    scaler.update()


def _no_clip(loss, model, optimizer, scaler, max_norm):
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()


def _unscale_twice(loss, model, optimizer, scaler, max_norm):
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()


@exercise(
    check=check_mixed_step,
    broken=_clip_scaled,
    hints=[
        "Print `scaler.get_scale()`, and the norm that the clip returns. How large is the real gradient?",
        "`scaler.step` divides by the scale, unless that has been done already. The clip comes before it.",
        "`scaler.unscale_(optimizer)` brings the gradients back to their size. And who clears the old ones?",
    ],
    also_right=[_zeroed_first, _clip_to_a_scaled_norm],
    mistakes=[
        Mistake(_plain_step, says="was not passed over"),
        Mistake(_no_update, says="unscale_() is being called after step()"),
        Mistake(_loss_not_scaled, says="your script did not use scaler.scale"),
        Mistake(_no_clip, says="The optimizer used gradients with a norm of"),
        Mistake(_unscale_twice, says="unscale_() has already been called"),
    ],
    remember="scale, backward, unscale_, clip, scaler.step, update: the clip sees real gradients.",
)
def mixed_step(
    loss: torch.Tensor,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    max_norm: float,
) -> None:
    """Repair: make one step with a gradient scaler, with the gradients clipped to the norm `max_norm`.

    `loss` has its graph. The call is made once per batch; what the last one left behind is to be cleared.
    """
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    scaler.step(optimizer)
    scaler.update()
