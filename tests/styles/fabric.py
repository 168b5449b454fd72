"""A fabric that does the backward."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.styles.parts import dl


def train(fabric, model, optimizer, train_dataloader, val_dataloader, max_epochs=2):
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=max_epochs * len(train_dataloader) // 2
    )
    iteration = 0
    for _epoch in range(max_epochs):
        model.train()
        for batch_idx, (x, y) in enumerate(train_dataloader):
            is_accumulating = (batch_idx + 1) % 2 != 0 and batch_idx + 1 != len(train_dataloader)
            out = model(x)
            loss = F.cross_entropy(out, y) / 2
            fabric.backward(loss)
            if not is_accumulating:
                fabric.clip_gradients(model, optimizer, max_norm=1.0)
                optimizer.step()
                optimizer.zero_grad()
                scheduler.step()
            iteration += 1
        validate(fabric, model, val_dataloader)


@torch.no_grad()
def validate(fabric, model, val_dataloader):
    model.eval()
    losses = torch.zeros(len(val_dataloader))
    for k, (x, y) in enumerate(val_dataloader):
        losses[k] = F.cross_entropy(model(x), y)
    model.train()
    return losses.mean()


class Fabric:
    def backward(self, loss):
        loss.backward()

    def clip_gradients(self, model, optimizer, max_norm):
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)


def case():
    """Return the function, and what it needs."""
    return train, {"fabric": Fabric(), "train_dataloader": dl(), "val_dataloader": dl()}
