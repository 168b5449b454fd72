"""Accelerate."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from ftlab.training.linter.arguments import small_model


class Accelerator:
    sync_gradients = True

    def prepare(self, *things):
        return things

    def backward(self, loss):
        loss.backward()

    def clip_grad_norm_(self, parameters, max_norm):
        return nn.utils.clip_grad_norm_(parameters, max_norm)

    def gather_for_metrics(self, things):
        return things

    is_main_process = True


def training_function(train_dataloader, eval_dataloader, num_epochs=2):
    accelerator = Accelerator()
    model = small_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    lr_scheduler = OneCycleLR(optimizer, max_lr=1e-2, epochs=num_epochs, steps_per_epoch=len(train_dataloader))
    model, optimizer, lr_scheduler = accelerator.prepare(model, optimizer, lr_scheduler)
    for epoch in range(num_epochs):
        model.train()
        total_loss = 0
        for _step, (inputs, targets) in enumerate(train_dataloader):
            outputs = model(inputs)
            loss = F.cross_entropy(outputs, targets)
            total_loss += loss.detach().float()
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            lr_scheduler.step()
            optimizer.zero_grad()
        model.eval()
        accurate = num_elems = 0
        for _, (inputs, targets) in enumerate(eval_dataloader):
            with torch.inference_mode():
                outputs = model(inputs)
            predictions = outputs.argmax(dim=-1)
            predictions, references = accelerator.gather_for_metrics((predictions, targets))
            accurate += (predictions == references).long().sum()
            num_elems += len(references)
        if accelerator.is_main_process:
            print(epoch, accurate.item() / num_elems, total_loss.item() / len(train_dataloader))


def case():
    """Return the function, and what it needs."""
    return training_function, {}
