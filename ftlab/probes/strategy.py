"""What lesson 08 says about strategies."""

import torch
from torch import nn
from torchvision import models

from ftlab.probes import probe


@probe("A frozen body in eval mode gives the same for an image in each call, whatever else is in the batch.")
def frozen_and_quiet_is_steady() -> bool:
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).requires_grad_(False).eval()
    images = torch.randn(6, 3, 8, 8)
    return torch.allclose(body(images)[:2], body(images[:2]), atol=1e-6)


@probe("The flag alone does not make it so: in train mode frozen batch norm and dropout give something else.")
def frozen_is_not_quiet() -> bool:
    images = torch.randn(6, 3, 8, 8)
    parts = (nn.BatchNorm2d(3).requires_grad_(False), nn.Dropout(0.5))
    return not any(torch.allclose(part.train()(images)[:2], part(images[:2])) for part in parts)


@probe("`add_param_group` keeps what the optimizer knows of the parameters that it has.")
def adding_keeps_the_state() -> bool:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    optimizer = torch.optim.AdamW(model[1].parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    before = optimizer.state[model[1].weight]["exp_avg"].clone()
    optimizer.add_param_group({"params": model[0].parameters(), "lr": 1e-4})
    return torch.equal(before, optimizer.state[model[1].weight]["exp_avg"])


@probe("Setting the flag again does not give a parameter to the optimizer: it does not move.")
def flag_is_not_enough() -> bool:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    optimizer = torch.optim.AdamW(model[1].parameters())
    before = model[0].weight.clone()
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return torch.equal(before, model[0].weight)


@probe("Batch norm takes a tenth of the new statistics per batch; MobileNetV3 sets a hundredth.")
def some_norms_are_slow() -> bool:
    norms = [m for m in models.mobilenet_v3_small().modules() if isinstance(m, nn.BatchNorm2d)]
    return nn.BatchNorm2d(1).momentum == 0.1 and {norm.momentum for norm in norms} == {0.01}


@probe("After 20 batches at momentum 0.01 there is 82 % of the old running mean left, at 0.1 there is 12 %.")
def old_statistics_stay() -> bool:
    left = {}
    for momentum in (0.01, 0.1):
        norm = nn.BatchNorm1d(1, momentum=momentum)
        norm.running_mean.fill_(1.0)
        for _ in range(20):
            norm(torch.zeros(4, 1))
        left[momentum] = norm.running_mean.item()
    return abs(left[0.01] - 0.82) < 0.005 and abs(left[0.1] - 0.12) < 0.005


@probe("`nn.Identity()` in the place of the head lets the features through.")
def identity_lets_through() -> bool:
    model = models.resnet18().eval()
    model.fc = nn.Identity()
    return model(torch.zeros(2, 3, 32, 32)).shape == (2, 512)
