"""In the manner of timm: accumulation whose last window is a short one, a moving average, a scaler object."""
# ruff: noqa: C901 - the original's long function

import copy
from contextlib import nullcontext

import torch
from torch import nn


class NativeScaler:
    """Scale, go backward, clip and step, in one call."""

    def __init__(self, device="cpu"):
        self._scaler = torch.amp.GradScaler(device)

    def __call__(self, loss, optimizer, clip_grad=None, parameters=None, create_graph=False, need_update=True):
        self._scaler.scale(loss).backward(create_graph=create_graph)
        if need_update:
            if clip_grad is not None:
                self._scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(parameters, clip_grad)
            self._scaler.step(optimizer)
            self._scaler.update()


class ModelEma:
    """A moving average of the parameters."""

    def __init__(self, model, decay=0.99):
        self.module = copy.deepcopy(model).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, model):
        for ema_v, model_v in zip(self.module.state_dict().values(), model.state_dict().values(), strict=True):
            if ema_v.is_floating_point():
                ema_v.mul_(self.decay).add_(model_v, alpha=1 - self.decay)


def train_one_epoch(
    epoch, model, loader, optimizer, loss_fn, lr_scheduler=None, loss_scaler=None, model_ema=None, clip_grad=1.0,
    accum_steps=4, amp_autocast=nullcontext,
):  # fmt: skip
    model.train()
    last_accum_steps = len(loader) % accum_steps
    last_batch_idx = len(loader) - 1
    last_batch_idx_to_accum = len(loader) - last_accum_steps
    num_updates = epoch * len(loader)
    total, seen = 0.0, 0
    optimizer.zero_grad()
    for batch_idx, (input, target) in enumerate(loader):
        last_batch = batch_idx == last_batch_idx
        need_update = last_batch or (batch_idx + 1) % accum_steps == 0
        if batch_idx >= last_batch_idx_to_accum:
            accum_steps = last_accum_steps
        with amp_autocast():
            output = model(input)
            loss = loss_fn(output, target)
        if accum_steps > 1:
            loss /= accum_steps

        if loss_scaler is not None:
            loss_scaler(
                loss, optimizer, clip_grad=clip_grad, parameters=model.parameters(), need_update=need_update
            )
        else:
            loss.backward()
            if need_update:
                nn.utils.clip_grad_norm_(model.parameters(), clip_grad)
                optimizer.step()

        total += loss.item() * accum_steps * input.size(0)
        seen += input.size(0)
        if not need_update:
            continue

        num_updates += 1
        optimizer.zero_grad()
        if model_ema is not None:
            model_ema.update(model)
        if lr_scheduler is not None:
            lr_scheduler.step()
    return total / seen


def validate(model, loader, loss_fn):
    model.eval()
    losses = []
    with torch.no_grad():
        for input, target in loader:
            output = model(input)
            losses.append(loss_fn(output, target).item())
    return sum(losses) / len(losses)
