"""Mixed precision with a scaler that may be off."""

import torch
from torch import nn, optim
from torch.optim.lr_scheduler import OneCycleLR


def train(model, train_loader, device="cpu", epochs=2, use_amp=False):
    model.to(device)
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    scaler = torch.amp.GradScaler(device, enabled=use_amp)
    scheduler = OneCycleLR(optimizer, 0.1, total_steps=epochs * len(train_loader))
    criterion = nn.CrossEntropyLoss()
    for _epoch in range(epochs):
        for _i, batch in enumerate(train_loader):
            data, target = (t.to(device, non_blocking=True) for t in batch)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device_type=device, dtype=torch.bfloat16):
                output = model(data)
                loss = criterion(output, target)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
            scale = scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
            if scale <= scaler.get_scale():
                scheduler.step()
    return model


def case():
    """Return the function, and what it needs."""
    return train, {}
