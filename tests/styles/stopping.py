"""Early stopping."""

import torch
from torch import nn


class EarlyStopping:
    def __init__(self, patience=3):
        self.patience, self.best, self.wait, self.stop = patience, None, 0, False

    def step(self, metric):
        if self.best is None or metric < self.best:
            self.best, self.wait = metric, 0
        else:
            self.wait += 1
            self.stop = self.wait >= self.patience


def fit(model, train_loader, valid_loader, epochs=3):
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)
    early_stopping = EarlyStopping()
    train_losses, _avg = [], []
    for _epoch in range(1, epochs + 1):
        model.train()
        for data, target in train_loader:
            optimizer.zero_grad()
            output = model(data)
            loss = criterion(output, target)
            loss.backward()
            optimizer.step()
            train_losses.append(loss.item())
        model.eval()
        valid_losses = []
        with torch.no_grad():
            for data, target in valid_loader:
                output = model(data)
                loss = criterion(output, target)
                valid_losses.append(loss.item())
        valid_loss = sum(valid_losses) / len(valid_losses)
        scheduler.step(valid_loss)
        early_stopping.step(valid_loss)
        if early_stopping.stop:
            print("early stopping")
            break


def case():
    """Return the function, and what it needs."""
    return fit, {}
