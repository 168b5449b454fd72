"""A step with a gradient scaler: scale, unscale, clip, step, update."""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from ftlab.exercises.core import Mistake, Raised, Wrong, exercise
from ftlab.exercises.training.recording import Recorded, small_batches, small_model
from ftlab.plural import plural


def check_mixed_step(answer):
    """The gradient that a real gradient scaler lets the optimizer use: one overflows, the others are usual."""
    model = small_model()
    optimizer = Recorded(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14)
    x, y = small_batches(1, scale=30.0)[0]
    before = copy.deepcopy(model.state_dict())
    for step in range(2):  # the second one finds what the first has left behind
        _call_mixed(answer, F.cross_entropy(model(x), y), model, optimizer, scaler)
        _judge_mixed(optimizer, step + 1)
    if all(torch.equal(before[name], value) for name, value in model.state_dict().items()):
        raise Wrong("After two steps no parameter has moved.", ask="Who makes the step?")
    _judge_overflow(answer, model, optimizer, scaler, x)
    _judge_after_overflow(answer, F.cross_entropy(model(x), y), model, optimizer, scaler)


def _call_mixed(answer, loss, model, optimizer, scaler) -> None:
    try:
        answer(loss, model, optimizer, scaler, 0.05)
    except Raised as raised:
        if "No inf checks" in str(raised.error):
            ask = "`scaler.step` looks at the gradients. Which line has cleared them before it does?"
            raise Wrong(raised.message, ask=ask) from None
        if "unscale_" not in str(raised.error):
            raise
        ask = "What has been scaled before, how often is unscaled in a round, and which call ends the round?"
        raise Wrong(raised.message, ask=ask) from None


def _judge_mixed(optimizer: Recorded, steps: int) -> None:
    if len(optimizer.used) != steps:
        made = plural(len(optimizer.used), "step")
        text = f"After {plural(steps, 'call')} the optimizer has made {made}."
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


def _judge_after_overflow(answer, loss, model, optimizer, scaler) -> None:
    steps = len(optimizer.used)
    _call_mixed(answer, loss, model, optimizer, scaler)
    if len(optimizer.used) == steps:
        text = "After a batch that overflowed, a usual one made no step either: its gradients were no numbers."
        raise Wrong(text, ask="What did the batch before leave behind, and who clears it?")
    _judge_mixed(optimizer, steps + 1)


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


def _cleared_too_early(loss, model, optimizer, scaler, max_norm):
    scaler.scale(loss).backward()
    optimizer.zero_grad()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    scaler.step(optimizer)
    scaler.update()


def _two_steps(loss, model, optimizer, scaler, max_norm):
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    scaler.step(optimizer)
    optimizer.step()
    scaler.update()


def _no_clip(loss, model, optimizer, scaler, max_norm):
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()


def _never_cleared(loss, model, optimizer, scaler, max_norm):
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    scaler.step(optimizer)
    scaler.update()


def _cleared_at_the_end(loss, model, optimizer, scaler, max_norm):
    _never_cleared(loss, model, optimizer, scaler, max_norm)
    optimizer.zero_grad()


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
    also_right=[_zeroed_first, _cleared_at_the_end, _clip_to_a_scaled_norm],
    mistakes=[
        Mistake(_plain_step, says="was not passed over"),
        Mistake(_no_update, says="unscale_() is being called after step()"),
        Mistake(_loss_not_scaled, says="your script did not use scaler.scale"),
        Mistake(_never_cleared, says="a usual one made no step either"),
        Mistake(_no_clip, says="The optimizer used gradients with a norm of"),
        Mistake(_cleared_too_early, says="No inf checks were recorded"),
        Mistake(_two_steps, says="After 1 call the optimizer has made 2 steps"),
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
