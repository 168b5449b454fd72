"""The head first, then everything."""

import torch
import torch.nn.functional as F
from torch import nn

from ftlab.training.linter.arguments import small_model


def run(train_loader, num_classes=3):
    model = small_model()
    for param in model.parameters():
        param.requires_grad = False
    model.fc = nn.Linear(model.fc.in_features, num_classes)
    optimizer = torch.optim.SGD(filter(lambda p: p.requires_grad, model.parameters()), lr=0.1)
    for _epoch in range(2):
        model.train()
        for x, y in train_loader:
            optimizer.zero_grad()
            out = model(x)
            loss = F.cross_entropy(out, y)
            loss.backward()
            optimizer.step()
    for param in model.parameters():
        param.requires_grad = True
    optimizer = torch.optim.SGD(
        [{"params": model.features.parameters(), "lr": 1e-3}, {"params": model.fc.parameters(), "lr": 1e-2}]
    )
    for _epoch in range(2):
        model.train()
        for x, y in train_loader:
            optimizer.zero_grad()
            out = model(x)
            loss = F.cross_entropy(out, y)
            loss.backward()
            optimizer.step()
    return model


def case():
    """Return the function, and what it needs."""
    return run, {}
