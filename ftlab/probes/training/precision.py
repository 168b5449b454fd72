"""Mixed precision: autocast, and the scaler."""

import math

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD

from ftlab.probes import probe
from ftlab.probes._outcomes import raises


@probe(
    "Under autocast parameters and gradients stay float32, outputs of layers are bfloat16, the loss is float32."
)
def types_under_autocast() -> bool:
    layer = nn.Linear(4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = layer(torch.randn(2, 4))
        loss = F.cross_entropy(outputs, torch.tensor([0, 1]))
    loss.backward()
    found = [tensor.dtype for tensor in (layer.weight, layer.weight.grad, outputs, loss)]
    saved = {tensor.dtype for tensor in layer.state_dict().values()}
    return found == [torch.float32, torch.float32, torch.bfloat16, torch.float32] and saved == {torch.float32}


@probe("A gradient of 1e-8 is 0 in float16, and not in bfloat16; scaled by 65536 float16 has it.")
def small_gradients_vanish() -> bool:
    tiny = torch.tensor(1e-8)
    return tiny.half() == 0 and tiny.bfloat16() != 0 and (tiny * 65536).half() != 0


def _scaled_step(unscale: bool) -> float:
    weight = nn.Parameter(torch.zeros(4))
    optimizer, scaler = SGD([weight], lr=1.0), torch.amp.GradScaler("cpu", init_scale=65536.0)
    scaler.scale(weight.sum()).backward()
    if unscale:
        scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_([weight], 1.0)
    scaler.step(optimizer)
    scaler.update()
    return weight.detach().norm().item()


@probe("A clip before `scaler.unscale_` makes the step vanish: it is divided by the scale.")
def clip_after_unscale() -> bool:
    return abs(_scaled_step(True) - 1) < 1e-4 and _scaled_step(False) < 2e-5


@probe("A scaler that meets a gradient which is no number skips the step and halves its scale.")
def scaler_skips() -> bool:
    weight = nn.Parameter(torch.ones(1))
    optimizer, scaler = SGD([weight], lr=1.0), torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale((weight * math.inf).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    return weight.item() == 1 and scaler.get_scale() == 4


@probe("`unscale_` twice in a round raises; a round ends with `scaler.update()`.")
def unscale_once() -> bool:
    weight = nn.Parameter(torch.ones(1))
    optimizer, scaler = SGD([weight], lr=1.0), torch.amp.GradScaler("cpu")
    scaler.scale(weight.sum()).backward()
    scaler.unscale_(optimizer)
    return raises(RuntimeError, lambda: scaler.unscale_(optimizer))


@probe("The state of a disabled scaler is empty, and cannot be loaded into an enabled one.")
def disabled_scalers_save_nothing() -> bool:
    state = torch.amp.GradScaler("cpu", enabled=False).state_dict()
    return state == {} and raises(RuntimeError, lambda: torch.amp.GradScaler("cpu").load_state_dict(state))
