"""A class with a method for each part."""

import copy
import math

import torch
from torch import nn, optim
from torch.optim.lr_scheduler import CosineAnnealingLR

from ftlab.training.linter.arguments import small_model
from tests.styles.parts import dl


class Trainer:
    def __init__(self, model, train_loader, val_loader, config):
        self.model = model
        self.train_loader = train_loader
        self.val_loader = val_loader
        self.epochs = config["epochs"]
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = optim.AdamW(model.parameters(), lr=config["lr"])
        self.scheduler = CosineAnnealingLR(self.optimizer, T_max=self.epochs)
        self.best = math.inf
        self.best_state = None
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model.to(self.device)

    def _run_batch(self, source, targets):
        self.optimizer.zero_grad()
        output = self.model(source)
        loss = self.criterion(output, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.item()

    def _run_epoch(self, epoch):
        self.model.train()
        losses = []
        for source, targets in self.train_loader:
            source, targets = source.to(self.device), targets.to(self.device)
            losses.append(self._run_batch(source, targets))
        return sum(losses) / len(losses)

    @torch.no_grad()
    def _validate(self):
        self.model.eval()
        total, correct = 0.0, 0
        for source, targets in self.val_loader:
            source, targets = source.to(self.device), targets.to(self.device)
            output = self.model(source)
            total += self.criterion(output, targets).item() * len(targets)
            correct += (output.argmax(dim=1) == targets).sum().item()
        return total / len(self.val_loader.dataset), correct

    def train(self):
        for epoch in range(self.epochs):
            self._run_epoch(epoch)
            val_loss, _correct = self._validate()
            self.scheduler.step()
            if val_loss < self.best:
                self.best = val_loss
                self.best_state = copy.deepcopy(self.model.state_dict())
        self.model.load_state_dict(self.best_state)


def case():
    """Return the function, and what it needs."""
    m = Trainer(small_model(), dl(), dl(), {"epochs": 3, "lr": 1e-3})
    return m.train, {}
