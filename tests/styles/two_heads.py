"""Two losses of two heads."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.cls = nn.Linear(4, 3)
        self.reg = nn.Linear(4, 1)

    def forward(self, x):
        h = self.backbone(x)
        return self.cls(h), self.reg(h)


def train(train_loader, epochs=2, lam=0.1):
    model = Net()
    opt = torch.optim.Adam(model.parameters(), lr=1e-3)
    ce = nn.CrossEntropyLoss()
    mse = nn.MSELoss()
    stats = {"cls": 0.0, "reg": 0.0}
    for _ in range(epochs):
        for x, y in train_loader:
            logits, value = model(x)
            loss_cls = ce(logits, y)
            loss_reg = mse(value.squeeze(1), y.float())
            total = loss_cls + lam * loss_reg
            opt.zero_grad()
            total.backward()
            opt.step()
            stats["cls"] += loss_cls.item()
            stats["reg"] += loss_reg.item()
    return stats


def case():
    """Return the function, and what it needs."""
    return train, {}
