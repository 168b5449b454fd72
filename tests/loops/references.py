"""In the manner of the torchvision references: a scaler or none, clipping or none, a moving average beside."""

import math
import sys

import torch
from torch import nn


def train_one_epoch(
    model, criterion, optimizer, data_loader, device, epoch, scaler=None, clip_grad_norm=None, model_ema=None,
    ema_steps=32, warmup_epochs=0,
):  # fmt: skip
    model.train()
    for i, (image, target) in enumerate(data_loader):
        image, target = image.to(device), target.to(device)
        with torch.amp.autocast("cpu", enabled=scaler is not None):
            output = model(image)
            loss = criterion(output, target)

        if not math.isfinite(loss.item()):
            sys.exit(1)

        optimizer.zero_grad()
        if scaler is not None:
            scaler.scale(loss).backward()
            if clip_grad_norm is not None:
                # the gradients are unscaled before they are clipped
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), clip_grad_norm)
            scaler.step(optimizer)
            scaler.update()
        else:
            loss.backward()
            if clip_grad_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip_grad_norm)
            optimizer.step()

        if model_ema and i % ema_steps == 0:
            model_ema.update_parameters(model)
            if epoch < warmup_epochs:
                model_ema.n_averaged.fill_(0)


def evaluate(model, criterion, data_loader, device):
    model.eval()
    total, right = 0.0, 0
    with torch.inference_mode():
        for image, target in data_loader:
            image = image.to(device, non_blocking=True)
            target = target.to(device, non_blocking=True)
            output = model(image)
            total += criterion(output, target).item()
            right += (output.argmax(1) == target).sum().item()
    return total, right


def main(model, data_loader, data_loader_test, args):
    device = torch.device(args.device)
    model.to(device)
    criterion = nn.CrossEntropyLoss(label_smoothing=args.label_smoothing)
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)
    scaler = torch.amp.GradScaler("cuda") if args.amp else None
    lr_scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=args.lr_step_size, gamma=args.lr_gamma)
    for epoch in range(args.start_epoch, args.epochs):
        train_one_epoch(model, criterion, optimizer, data_loader, device, epoch, scaler, args.clip_grad_norm)
        lr_scheduler.step()
        evaluate(model, criterion, data_loader_test, device=device)
