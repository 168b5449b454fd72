"""check_loop on short cells: what is a slip, and what only looks like one."""

import pytest

from ftlab.training import check_loop

HEAD = "import os, copy\nimport torch\nfrom torch import nn, optim\nimport torch.nn.functional as F\n"
STEP = "    loss.backward()\n    optimizer.step()\n    optimizer.zero_grad()\n"
BATCHES = "for images, targets in loader:\n"
PLAIN = BATCHES + "    loss = F.cross_entropy(model(images), targets)\n" + STEP


def epochs(made, per_batch="", per_epoch=""):
    """Return a loop over epochs and batches with a scheduler."""
    body = "".join(f"    {line}\n" for line in PLAIN.splitlines())
    batch = f"        {per_batch}\n" if per_batch else ""
    epoch = f"    {per_epoch}\n" if per_epoch else ""
    return f"scheduler = optim.lr_scheduler.{made}\nfor epoch in range(epochs):\n{body}{batch}{epoch}"


CYCLE = "OneCycleLR(optimizer, 0.1, epochs=epochs, steps_per_epoch=len(loader))"
CLIP = "nn.utils.clip_grad_norm_(model.parameters(), 1.0)"


def with_loss(line):
    return BATCHES + f"    {line}\n" + STEP


def in_a_class(made, line, name="train_epoch"):
    """Return a trainer with an attribute, and a line between its backward and its step."""
    before, after = (line, "pass") if "clip" in line else ("pass", line)
    return (
        "class Trainer:\n    def __init__(self, model):\n        self.model = model\n"
        "        self.optimiser = optim.AdamW(model.parameters())\n"
        f"        {made}\n\n    def {name}(self, loader):\n        for images, targets in loader:\n"
        "            self.optimiser.zero_grad()\n"
        "            loss = F.cross_entropy(self.model(images), targets)\n            loss.backward()\n"
        f"            {before}\n            self.optimiser.step()\n            {after}\n"
    )


SLIPS = {
    "scheduler per batch": (
        epochs("StepLR(optimizer, 7)", per_batch="scheduler.step()"),
        epochs("StepLR(optimizer, 7)", per_epoch="scheduler.step()"),
    ),
    "scheduler per batch ": (
        epochs("CosineAnnealingLR(optimizer, T_max=epochs)", per_batch="scheduler.step()"),
        epochs("CosineAnnealingLR(optimizer, T_max=epochs * len(loader))", per_batch="scheduler.step()"),
    ),
    "scheduler per epoch": (
        epochs(CYCLE, per_epoch="scheduler.step()"),
        epochs(CYCLE, per_batch="scheduler.step()"),
    ),
    "plateau without a metric": (
        epochs("ReduceLROnPlateau(optimizer)", per_epoch="scheduler.step()"),
        epochs("ReduceLROnPlateau(optimizer)", per_epoch="scheduler.step(loss.item())"),
    ),
    "accumulation not divided": (
        "for i, (images, targets) in enumerate(loader):\n    loss = F.cross_entropy(model(images), targets)\n"
        "    loss.backward()\n    if (i + 1) % 4 == 0 or i + 1 == len(loader):\n"
        "        optimizer.step()\n        optimizer.zero_grad()\n",
        "for i, (images, targets) in enumerate(loader):\n    loss = F.cross_entropy(model(images), targets) / 4\n"
        "    loss.backward()\n    if (i + 1) % 4 == 0 or i + 1 == len(loader):\n"
        "        optimizer.step()\n        optimizer.zero_grad()\n",
    ),
    "log_softmax before cross_entropy": (
        with_loss("loss = F.cross_entropy(F.log_softmax(model(images), 1), targets)"),
        with_loss("loss = F.nll_loss(F.log_softmax(model(images), 1), targets)"),
    ),
    "softmax before cross_entropy": (
        "model = nn.Sequential(nn.Linear(4, 3), nn.Softmax(1))\ncriterion = nn.CrossEntropyLoss()\n"
        + with_loss("loss = criterion(model(images), targets)"),
        "model = nn.Sequential(nn.Linear(4, 3), nn.Softmax(1))\n"
        + with_loss("loss = F.mse_loss(model(images), F.one_hot(targets, 3).float())"),
    ),
    "sigmoid before with_logits": (
        "criterion = nn.BCEWithLogitsLoss()\n"
        + with_loss("loss = criterion(torch.sigmoid(model(images)), targets)"),
        "criterion = nn.BCELoss()\n" + with_loss("loss = criterion(torch.sigmoid(model(images)), targets)"),
    ),
    "nll_loss of logits": (
        "model = nn.Sequential(nn.Linear(4, 3))\n" + with_loss("loss = F.nll_loss(model(images), targets)"),
        "model = nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(1))\n"
        + with_loss("loss = F.nll_loss(model(images), targets)"),
    ),
    "one_hot without num_classes": (
        with_loss("loss = F.cross_entropy(model(images), F.one_hot(targets).float())"),
        with_loss("loss = F.cross_entropy(model(images), F.one_hot(targets, 3).float())"),
    ),
    "one_hot as integers": (
        with_loss("loss = F.cross_entropy(model(images), F.one_hot(targets, num_classes=3))"),
        with_loss("loss = F.cross_entropy(model(images), F.one_hot(targets, num_classes=3).to(torch.float))"),
    ),
    "squeeze without a dimension": (
        with_loss("loss = F.binary_cross_entropy_with_logits(model(images).squeeze(), targets)"),
        with_loss("loss = F.binary_cross_entropy_with_logits(model(images).squeeze(1), targets)"),
    ),
    "data changed in place": (
        with_loss("targets.resize_(4, 1); loss = F.cross_entropy(model(images), targets)"),
        with_loss("targets = targets.view(4, 1); loss = F.cross_entropy(model(images), targets)"),
    ),
    "total keeps graphs": (
        "total = 0\n" + PLAIN + "    total = total + loss\n",
        "total = 0\n" + PLAIN + "    total = total + loss.item()\n",
    ),
    "total keeps graphs ": (
        "losses = []\n" + PLAIN + "    losses.append(loss)\n",
        "losses = []\n" + PLAIN + "    losses.append(loss.detach())\n",
    ),
    "total keeps graphs  ": (
        "total = 0\n" + PLAIN + "    total += loss\n",
        BATCHES + "    loss = 0\n    for head in heads:\n"
        "        loss += F.cross_entropy(head(images), targets)\n" + STEP,
    ),
    "total keeps graphs   ": (
        "mean = 0.0\n" + PLAIN + "    mean = 0.9 * mean + 0.1 * loss\n",
        "mean = 0.0\n" + PLAIN + "    mean = 0.9 * mean + 0.1 * loss.item()\n",
    ),
    "no zero_grad  ": (
        "def train(net, dl, adam):\n    for x, y in dl:\n        F.cross_entropy(net(x), y).backward()\n"
        "        adam.step()\n",
        "def train(net, dl, adam):\n    for x, y in dl:\n        adam.zero_grad()\n"
        "        F.cross_entropy(net(x), y).backward()\n        adam.step()\n",
    ),
    "validation in train mode": (
        PLAIN + "with torch.no_grad():\n    for images, targets in val_loader:\n"
        "        right += (model(images).argmax(1) == targets).sum().item()\n",
        PLAIN + "model.eval()\nwith torch.no_grad():\n    for images, targets in val_loader:\n"
        "        right += (model(images).argmax(1) == targets).sum().item()\n",
    ),
    "eval left on": (
        "for epoch in range(3):\n" + "".join(f"    {line}\n" for line in PLAIN.splitlines())
        + "    model.eval()\n    with torch.no_grad():\n        val = F.cross_entropy(model(x), y).item()\n",
        "for epoch in range(3):\n    model.train()\n" + "".join(f"    {line}\n" for line in PLAIN.splitlines())
        + "    model.eval()\n    with torch.no_grad():\n        val = F.cross_entropy(model(x), y).item()\n",
    ),
    "optimizer before the head": (
        "optimizer = optim.SGD(model.parameters(), lr=0.1)\nmodel.fc = nn.Linear(512, 3)\n" + PLAIN,
        "model.fc = nn.Linear(512, 3)\noptimizer = optim.SGD(model.parameters(), lr=0.1)\n" + PLAIN,
    ),
    "optimizer before .to": (
        "optimizer = optim.SGD(model.parameters(), lr=0.1)\nmodel.to(device)\n" + PLAIN,
        "model.to(device)\noptimizer = optim.SGD(model.parameters(), lr=0.1)\n" + PLAIN,
    ),
    "clip before backward": (
        PLAIN.replace("    loss.b", f"    {CLIP}\n    loss.b"),
        PLAIN.replace("    optimizer.step", f"    {CLIP}\n    optimizer.step"),
    ),
    "CUDA_VISIBLE_DEVICES too late": (
        'model.to("cuda")\nos.environ["CUDA_VISIBLE_DEVICES"] = "1"\n',
        'os.environ["CUDA_VISIBLE_DEVICES"] = "1"\nmodel.to("cuda")\n',
    ),
    "CUDA_VISIBLE_DEVICES is no string": (
        'os.environ["CUDA_VISIBLE_DEVICES"] = 1\n',
        'os.environ["CUDA_VISIBLE_DEVICES"] = "1"\n',
    ),
    "CUDA_VISIBLE_DEVICES too late ": (
        'model.cuda()\nos.environ.update({"CUDA_VISIBLE_DEVICES": "1"})\n',
        'os.environ.update(CUDA_VISIBLE_DEVICES="1", **more)\nmodel.cuda()\n',
    ),
    "CUDA_VISIBLE_DEVICES too late  ": (
        'model.cuda()\nos.environ.setdefault("CUDA_VISIBLE_DEVICES", "1")\n',
        'model.cuda()\nos.environ.setdefault("OMP_NUM_THREADS", "1")\n',
    ),
    "scheduler per batch  ": (
        epochs("StepLR(optimizer, step_size=30)", per_batch="scheduler.step()"),
        epochs("StepLR(optimizer, step_size=30 * steps_per_epoch)", per_batch="scheduler.step()"),
    ),
    "scheduler per batch   ": (
        epochs("MultiStepLR(optimizer, [60, 80])", per_batch="scheduler.step()"),
        epochs("MultiStepLR(optimizer, [60000, 80000])", per_batch="scheduler.step()"),
    ),
    "scheduler per batch    ": (
        in_a_class("self.plan = lr_scheduler.StepLR(self.optimiser, 9)", "self.plan.step()", "train_epoch"),
        in_a_class("self.plan = lr_scheduler.StepLR(self.optimiser, 9)", "self.plan.step()", "train_once"),
    ),
    "exhausted generator": (
        in_a_class("self.params = (p for p in model.parameters())", "clip_grad_norm_(self.params, 1.0)"),
        in_a_class("self.params = [p for p in model.parameters()]", "clip_grad_norm_(self.params, 1.0)"),
    ),
    "clip part by part": (
        PLAIN.replace(
            "    optimizer.step",
            '    for group in optimizer.param_groups:\n        nn.utils.clip_grad_norm_(group["params"], 1.0)\n'
            "    optimizer.step",
        ),
        PLAIN.replace(
            "    optimizer.step",
            '    for group in optimizer.param_groups:\n        group["lr"] *= 0.9\n'
            f"    {CLIP}\n    optimizer.step",
        ),
    ),
    "no zero_grad": (
        PLAIN.replace("    optimizer.zero_grad()\n", ""),
        PLAIN.replace("optimizer.zero_grad()", "for p in model.parameters():\n        p.grad = None"),
    ),
    "no zero_grad ": (
        "def step(model, images, targets, optimizer):\n    loss = F.cross_entropy(model(images), targets)\n"
        "    loss.backward()\n    optimizer.step()\n",
        "loss = F.cross_entropy(model(images), targets)\nloss.backward()\noptimizer.step()\n",
    ),
    "step twice": (
        PLAIN.replace("    optimizer.step()\n", "    optimizer.step()\n    optimizer.step()\n"),
        PLAIN + PLAIN,
    ),
    "scheduler twice": (
        epochs("StepLR(optimizer, 7)", per_epoch="scheduler.step()") + "    scheduler.step()\n",
        epochs("StepLR(optimizer, 7)", per_epoch="scheduler.step()"),
    ),
    "retain_graph": (
        PLAIN.replace("backward()", "backward(retain_graph=True)"),
        PLAIN.replace("loss.backward()", "loss.backward(retain_graph=True)\n    penalty.backward()"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SLIPS)
def test_a_slip_is_named_and_its_twin_is_not(kind):
    wrong, right = SLIPS[kind]
    assert check_loop(HEAD + wrong).kinds == [kind.strip()]
    assert check_loop(HEAD + right).ok, check_loop(HEAD + right)
