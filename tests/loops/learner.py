"""In the manner of fastai: a class whose methods are the parts of the loop, with callbacks between them."""

import torch


class CancelBatch(Exception):  # noqa: N818 - a signal
    """Leave this batch out."""


class Learner:
    """Hold a model, data, a loss and an optimizer, and train."""

    def __init__(self, dls, model, loss_func, lr=0.1, opt_func=torch.optim.SGD, cbs=()):
        self.dls, self.model, self.loss_func, self.lr, self.cbs = dls, model, loss_func, lr, list(cbs)
        self.opt_func, self.opt, self.losses = opt_func, None, []

    def __call__(self, name):
        for cb in self.cbs:
            getattr(cb, name, lambda learn: None)(self)

    def predict(self):
        self.preds = self.model(self.xb)

    def get_loss(self):
        self.loss = self.loss_func(self.preds, self.yb)

    def backward(self):
        self.loss.backward()

    def step(self):
        self.opt.step()

    def zero_grad(self):
        self.opt.zero_grad()

    def one_batch(self, i, b):
        self.iter = i
        self.xb, self.yb = b
        try:
            self("before_batch")
            self.predict()
            self("after_pred")
            self.get_loss()
            self("after_loss")
            if self.model.training:
                self.backward()
                self("after_backward")
                self.step()
                self("after_step")
                self.zero_grad()
        except CancelBatch:
            self("after_cancel_batch")
        finally:
            self.losses.append(self.loss.detach())
            self("after_batch")

    def one_epoch(self, train):
        self.model.train(train)
        self.dl = self.dls["train" if train else "val"]
        for i, b in enumerate(self.dl):
            self.one_batch(i, b)

    def fit(self, n_epochs=2):
        self.opt = self.opt_func(self.model.parameters(), self.lr)
        for self.epoch in range(n_epochs):
            self.one_epoch(True)
            with torch.no_grad():
                self.one_epoch(False)
