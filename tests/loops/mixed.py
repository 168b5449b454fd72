"""In the manner of the examples for mixed precision: autocast, a scaler, and clipping in between."""

import torch
from torch.nn.utils import clip_grad_norm_


def train(model, optimizer, loss_fn, data, epochs=2, max_norm=1.0):
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)

    for _epoch in range(epochs):
        for input, target in data:
            optimizer.zero_grad()
            with torch.autocast(device_type="cpu", dtype=torch.bfloat16):
                output = model(input)
                loss = loss_fn(output, target)
            scaler.scale(loss).backward()

            # the gradients as they would be without the scaler
            scaler.unscale_(optimizer)
            clip_grad_norm_(model.parameters(), max_norm)

            # steps only if all gradients are finite
            scaler.step(optimizer)
            scaler.update()
