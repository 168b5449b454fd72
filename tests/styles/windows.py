"""Gradient accumulation."""

from torch import nn


def train(model, loader, optimizer, criterion, accum_steps=4, epochs=2):
    model.train()
    for _epoch in range(epochs):
        optimizer.zero_grad()
        running_loss = 0.0
        for idx, (images, labels) in enumerate(loader):
            loss = criterion(model(images), labels)
            loss = loss / accum_steps
            loss.backward()
            running_loss += loss.item() * accum_steps
            if (idx + 1) % accum_steps == 0 or idx + 1 == len(loader):
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()


def case():
    """Return the function, and what it needs."""
    return train, {}
