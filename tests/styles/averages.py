"""A moving average of the parameters."""

import copy

import torch
import torch.nn.functional as F


class EMA:
    def __init__(self, model, decay=0.99):
        self.decay = decay
        self.shadow = copy.deepcopy(model).eval()
        for p in self.shadow.parameters():
            p.requires_grad_(False)

    @torch.no_grad()
    def update(self, model):
        for s, p in zip(self.shadow.parameters(), model.parameters(), strict=False):
            s.lerp_(p, 1 - self.decay)
        for s, b in zip(self.shadow.buffers(), model.buffers(), strict=False):
            s.copy_(b)


def train(model, train_loader, val_loader, epochs=2):
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    ema = EMA(model)
    for _epoch in range(epochs):
        model.train()
        for xb, yb in train_loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(xb), yb)
            loss.backward()
            optimizer.step()
            ema.update(model)
        evaluate(ema.shadow, val_loader)
    return ema.shadow


@torch.inference_mode()
def evaluate(net, loader):
    net.eval()
    return sum((net(x).argmax(1) == y).sum() for x, y in loader)


def case():
    """Return the function, and what it needs."""
    return train, {}
