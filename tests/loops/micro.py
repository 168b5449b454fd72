"""In the manner of nanoGPT: micro steps that are divided, the rate set by hand, a scaler, a loop with a break."""
# ruff: noqa: C901 - the original's long function

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F


def get_lr(it, warmup_iters=2, max_iters=10, learning_rate=0.1, min_lr=0.01):
    if it < warmup_iters:
        return learning_rate * (it + 1) / (warmup_iters + 1)
    if it > max_iters:
        return min_lr
    coeff = 0.5 * (1.0 + math.cos(math.pi * (it - warmup_iters) / (max_iters - warmup_iters)))
    return min_lr + coeff * (learning_rate - min_lr)


@torch.no_grad()
def estimate_loss(model, get_batch, eval_iters=2):
    out = {}
    model.eval()
    for split in ["train", "val"]:
        losses = torch.zeros(eval_iters)
        for k in range(eval_iters):
            X, Y = get_batch(split)
            logits = model(X)
            losses[k] = F.cross_entropy(logits, Y).item()
        out[split] = losses.mean()
    model.train()
    return out


def train(model, optimizer, get_batch, scaler, gradient_accumulation_steps=4, grad_clip=1.0, max_iters=6):
    ctx = nullcontext()
    X, Y = get_batch("train")
    iter_num = 0
    best_val_loss = 1e9
    while True:
        lr = get_lr(iter_num)
        for param_group in optimizer.param_groups:
            param_group["lr"] = lr

        if iter_num % 2 == 0:
            losses = estimate_loss(model, get_batch)
            if losses["val"] < best_val_loss:
                best_val_loss = losses["val"]

        for _ in range(gradient_accumulation_steps):
            with ctx:
                logits = model(X)
                loss = F.cross_entropy(logits, Y)
                loss = loss / gradient_accumulation_steps
            X, Y = get_batch("train")
            scaler.scale(loss).backward()
        if grad_clip != 0.0:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

        if iter_num % 10 == 0:
            lossf = loss.item() * gradient_accumulation_steps
            print(f"iter {iter_num}: loss {lossf:.4f}")
        iter_num += 1
        if iter_num > max_iters:
            break
