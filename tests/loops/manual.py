"""In the manner of Lightning's manual optimization: closures, with LBFGS in plain PyTorch beside it."""

import torch
import torch.nn.functional as F
from torch import nn


class Module(nn.Module):
    """As much of a LightningModule as the loop needs."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.opt = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def optimizers(self):
        return self.opt

    def manual_backward(self, loss):
        loss.backward()

    def training_step(self, batch, batch_idx=0):
        opt = self.optimizers()
        images, labels = batch

        def closure():
            loss = F.cross_entropy(self.model(images), labels)
            opt.zero_grad()
            self.manual_backward(loss)
            return loss

        opt.step(closure=closure)

    def validation_step(self, batch, batch_idx=0):
        images, labels = batch
        return F.cross_entropy(self.model(images), labels)


def train_lbfgs(model, loader, epochs=2):
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    for _ in range(epochs):
        for images, targets in loader:

            def closure(images=images, targets=targets):
                optimizer.zero_grad()
                output = model(images)
                loss = F.cross_entropy(output, targets)
                loss.backward()
                return loss

            optimizer.step(closure)
