"""Compile, fit and evaluate around a network."""

import torch
from torch import nn, optim

from ftlab.training.linter.arguments import small_model
from tests.styles.parts import dl


class Model:
    """A small wrapper with compile, fit and evaluate."""

    def __init__(self, network):
        self.network = network
        self.history = {"loss": [], "accuracy": []}

    def compile(self, optimizer, loss, metrics=()):
        self.optimizer = optimizer
        self.loss = loss
        self.metrics = metrics

    def train_on_batch(self, x, y):
        self.network.train()
        y_pred = self.network(x)
        loss = self.loss(y_pred, y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def test_on_batch(self, x, y):
        self.network.eval()
        with torch.no_grad():
            y_pred = self.network(x)
            loss = self.loss(y_pred, y)
        return loss.item(), (y_pred.argmax(1) == y).float().mean().item()

    def fit(self, train, validation=None, epochs=2):
        for _epoch in range(epochs):
            running = 0.0
            for x, y in train:
                running += self.train_on_batch(x, y)
            self.history["loss"].append(running / len(train))
            if validation is not None:
                accs = [self.test_on_batch(x, y)[1] for x, y in validation]
                self.history["accuracy"].append(sum(accs) / len(accs))
        return self.history


def case():
    """Return the function, and what it needs."""
    m = Model(small_model())
    m.compile(optim.Adam(m.network.parameters()), nn.CrossEntropyLoss())
    return m.fit, {"train": dl(), "validation": dl()}
