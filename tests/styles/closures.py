"""Functions that make the steps."""

import torch
from torch import nn, optim

from ftlab.training.linter.arguments import small_model


def make_train_step(model, loss_fn, optimizer):
    def train_step(x, y):
        model.train()
        yhat = model(x)
        loss = loss_fn(yhat, y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return train_step


def make_val_step(model, loss_fn):
    def val_step(x, y):
        model.eval()
        with torch.no_grad():
            yhat = model(x)
            return loss_fn(yhat, y).item()

    return val_step


def main(train_loader, val_loader, n_epochs=3):
    model = small_model()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    loss_fn = nn.CrossEntropyLoss(reduction="mean")
    train_step = make_train_step(model, loss_fn, optimizer)
    val_step = make_val_step(model, loss_fn)
    losses, val_losses = [], []
    for _epoch in range(n_epochs):
        batch_losses = []
        for x_batch, y_batch in train_loader:
            batch_losses.append(train_step(x_batch, y_batch))
        losses.append(sum(batch_losses) / len(batch_losses))
        batch_losses = []
        for x_batch, y_batch in val_loader:
            batch_losses.append(val_step(x_batch, y_batch))
        val_losses.append(sum(batch_losses) / len(batch_losses))
    return losses, val_losses


def case():
    """Return the function, and what it needs."""
    return main, {}
