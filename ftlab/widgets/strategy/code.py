"""The present settings of the panel as plain PyTorch that stands alone."""

from typing import Any

from ftlab.strategy import DepthTrials, draw
from ftlab.strategy.running import BATCH


def strategy_code(trials: DepthTrials, s: dict[str, Any], epochs: int) -> str:
    """Return the settings as plain PyTorch; what is frozen is run in each epoch here."""
    everything = s["images"] == len(trials.targets)
    places = "range(len(train))" if everything else str(draw(trials.train, s["images"], s["seed"]).indices)
    depth, blocks = s["depth"], len(trials.blocks)
    learns = "[]" if depth == 1 else '[""]' if depth == blocks else repr([f"{p}." for p in trials.parts(depth)])
    size = BATCH
    while s["images"] % size == 1:
        size += 1
    return _CODE.format(
        head=trials.head, classes=len(trials.classes), seed=s["seed"], places=places, learns=learns,
        body_lr=f"{s['body_lr'] or 3e-4:.6g}", batch=size, epochs=epochs,
    )  # fmt: skip


_CODE = """\
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset

# `model` is a pretrained classifier, `train` and `test` give images and class numbers
torch.manual_seed({seed})
old = model.get_submodule("{head}")
head = nn.Linear(old.in_features, {classes})
model.set_submodule("{head}", head)

chosen = {places}
learns = {learns}  # beginnings of names in the body

body = []
for name, parameter in model.named_parameters():
    is_head = any(parameter is one for one in head.parameters())
    parameter.requires_grad = is_head or name.startswith(tuple(learns))
    if parameter.requires_grad and not is_head:
        body.append(parameter)
groups = [{{"params": head.parameters(), "lr": 0.003}}, {{"params": body, "lr": {body_lr}}}]
optimizer = torch.optim.AdamW(groups)

# what is frozen is in eval mode, and no batch norm moves
model.eval()
for module in model.modules():
    if any(parameter.requires_grad for parameter in module.parameters()):
        for part in [module, *module.children()]:
            own = list(part.parameters())
            is_norm = isinstance(part, nn.modules.batchnorm._BatchNorm)
            if not is_norm and (not own or any(parameter.requires_grad for parameter in own)):
                part.training = True

torch.manual_seed({seed})
for epoch in range({epochs}):
    for images, targets in DataLoader(Subset(train, chosen), batch_size={batch}, shuffle=True):
        optimizer.zero_grad()
        F.cross_entropy(model(images), targets).backward()
        optimizer.step()

model.eval()
with torch.no_grad():
    right = [(model(images).argmax(1) == targets) for images, targets in DataLoader(test, batch_size=64)]
accuracy = torch.cat(right).float().mean().item()
print(f"{{accuracy:.1%}}")
"""
