"""Loops as people write them, each with its slips: the kind, and the line."""

SLIPS = {
    "own net softmax": (
        [("softmax before cross_entropy", "return F.softmax(x, dim=1)")],
        """
class CNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3)
        self.fc1 = nn.Linear(16 * 26 * 26, 128)
        self.fc2 = nn.Linear(128, 10)
    def forward(self, x):
        x = F.relu(self.conv(x))
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = self.fc2(x)
        return F.softmax(x, dim=1)

model = CNN()
criterion = nn.CrossEntropyLoss()
optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
for epoch in range(5):
    running_loss = 0
    for images, labels in trainloader:
        optimizer.zero_grad()
        output = model(images)
        loss = criterion(output, labels)
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
    else:
        print(f"Training loss: {running_loss/len(trainloader)}")
""",
    ),
    "binary squeeze": (
        [("squeeze without a dimension", "loss = self.loss_fn(logits.squeeze(), y.float())")],
        """
class ModelTrainer:
    def __init__(self, model, lr):
        self.model = model
        self.loss_fn = nn.BCEWithLogitsLoss()
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    def _shared_step(self, batch):
        x, y = batch
        return self.model(x), y
    def train_epoch(self, loader):
        self.model.train()
        losses = []
        for batch in loader:
            self.optimizer.zero_grad()
            logits, y = self._shared_step(batch)
            loss = self.loss_fn(logits.squeeze(), y.float())
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        return np.mean(losses)
""",
    ),
    "cuda late": (
        [("CUDA_VISIBLE_DEVICES too late", "os.environ['CUDA_VISIBLE_DEVICES'] = '2'")],
        """
import os
import torch
device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
os.environ['CUDA_VISIBLE_DEVICES'] = '2'
model = torchvision.models.resnet50(weights='DEFAULT').to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
for x, y in loader:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x.to(device)), y.to(device))
    loss.backward()
    optimizer.step()
""",
    ),
    "val leaves eval": (
        [("eval left on", "model.eval()")],
        """
def validate(model, val_loader):
    model.eval()
    losses = 0
    with torch.no_grad():
        for X, y in val_loader:
            losses += loss_fn(model(X.to(device)), y.to(device)).item()
    return losses / len(val_loader)

model.train()
for epoch in trange(20):
    for i, (X, y) in enumerate(train_loader):
        X, y = X.to(device), y.to(device)
        pred = model(X)
        loss = loss_fn(pred, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    val_loss = validate(model, val_loader)
    wandb.log({'val': val_loss})
""",
    ),
    "sched epoch in batch": (
        [("scheduler per batch", "scheduler.step()")],
        """
optimizer = optim.SGD(model.parameters(), lr=0.1)
scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
for epoch in range(25):
    model.train()
    for inputs, labels in dataloaders['train']:
        optimizer.zero_grad()
        outputs = model(inputs)
        _, preds = torch.max(outputs, 1)
        loss = criterion(outputs, labels)
        loss.backward()
        optimizer.step()
        scheduler.step()
""",
    ),
    "onecycle in epoch": (
        [("scheduler per epoch", "self.scheduler.step()")],
        """
class Trainer:
    def __init__(self, model, train_dl, epochs):
        self.model, self.train_dl, self.epochs = model, train_dl, epochs
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, max_lr=1e-2, steps_per_epoch=len(train_dl), epochs=epochs)
    def fit(self):
        for epoch in range(self.epochs):
            self.model.train()
            for xb, yb in self.train_dl:
                self.optimizer.zero_grad()
                loss = F.cross_entropy(self.model(xb), yb)
                loss.backward()
                self.optimizer.step()
            self.scheduler.step()
""",
    ),
    "clip before unscale": (
        [("clip before unscale", "torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)")],
        """
for epoch in range(num_epochs):
    model.train()
    pbar = tqdm(train_loader, desc=f'Epoch {epoch}')
    for images, targets in pbar:
        images = images.to(device, non_blocking=True)
        targets = targets.to(device, non_blocking=True)
        optimizer.zero_grad(set_to_none=True)
        with torch.amp.autocast('cuda'):
            logits = model(images)
            loss = criterion(logits, targets)
        scaler.scale(loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        scaler.step(optimizer)
        scaler.update()
        pbar.set_postfix(loss=f'{loss.item():.4f}')
""",
    ),
    "accumulation undivided": (
        [("accumulation not divided", "loss.backward()")],
        """
accumulation_steps = 8
optimizer.zero_grad()
for i, (images, labels) in enumerate(tqdm(train_loader)):
    outputs = model(images.cuda())
    loss = criterion(outputs, labels.cuda())
    loss.backward()
    if (i + 1) % accumulation_steps == 0 or (i + 1) == len(train_loader):
        optimizer.step()
        optimizer.zero_grad()
""",
    ),
    "total loss graph": (
        [("total keeps graphs", "train_losses.append(loss)")],
        """
def fit(model, train_dl, val_dl, epochs, opt):
    history = []
    for epoch in range(epochs):
        model.train()
        train_losses = []
        for batch in train_dl:
            images, labels = batch
            out = model(images)
            loss = F.cross_entropy(out, labels)
            train_losses.append(loss)
            loss.backward()
            opt.step()
            opt.zero_grad()
        history.append(torch.stack(train_losses).mean().item())
    return history
""",
    ),
    "best live view": (
        [("best is a live view", "best_model_wts = model.state_dict()")],
        """
best_acc = 0.0
for epoch in range(num_epochs):
    model.train()
    for inputs, labels in train_loader:
        optimizer.zero_grad()
        loss = criterion(model(inputs), labels)
        loss.backward()
        optimizer.step()
    model.eval()
    correct = 0
    with torch.no_grad():
        for inputs, labels in val_loader:
            correct += (model(inputs).argmax(1) == labels).sum().item()
    acc = correct / len(val_loader.dataset)
    if acc > best_acc:
        best_acc = acc
        best_model_wts = model.state_dict()
model.load_state_dict(best_model_wts)
""",
    ),
    "gan detach": (
        [("no zero_grad", "g_loss.backward()")],
        """
for epoch in range(n_epochs):
    for i, (imgs, _) in enumerate(dataloader):
        valid = torch.ones(imgs.size(0), 1)
        fake = torch.zeros(imgs.size(0), 1)
        z = torch.randn(imgs.shape[0], latent_dim)
        gen_imgs = generator(z)
        g_loss = adversarial_loss(discriminator(gen_imgs), valid)
        g_loss.backward()
        optimizer_G.step()
        optimizer_D.zero_grad()
        real_loss = adversarial_loss(discriminator(imgs), valid)
        fake_loss = adversarial_loss(discriminator(gen_imgs.detach()), fake)
        d_loss = (real_loss + fake_loss) / 2
        d_loss.backward()
        optimizer_D.step()
""",
    ),
    "head after optimizer": (
        [
            ("optimizer before .to", "optimizer = optim.Adam(model.parameters(), lr=1e-3)"),
            ("optimizer before the head", "optimizer = optim.Adam(model.parameters(), lr=1e-3)"),
        ],
        """
model = models.resnet18(pretrained=True)
for param in model.parameters():
    param.requires_grad = False
optimizer = optim.Adam(model.parameters(), lr=1e-3)
num_ftrs = model.fc.in_features
model.fc = nn.Linear(num_ftrs, 2)
model = model.to(device)
criterion = nn.CrossEntropyLoss()
for epoch in range(10):
    for inputs, labels in train_loader:
        inputs, labels = inputs.to(device), labels.to(device)
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = criterion(outputs, labels)
        loss.backward()
        optimizer.step()
""",
    ),
    "val without no_grad": (
        [("validation without no_grad", "pred = model(X)")],
        """
for epoch in range(EPOCHS):
    model.train()
    for X, y in train_loader:
        pred = model(X)
        loss = loss_fn(pred, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    test_loss, correct = 0, 0
    for X, y in test_loader:
        pred = model(X)
        test_loss += loss_fn(pred, y).item()
        correct += (pred.argmax(1) == y).type(torch.float).sum().item()
    print(f"Accuracy: {100*correct/len(test_loader.dataset):.1f}%")
""",
    ),
    "missing parens": (
        [("not called", "optimizer.zero_grad")],
        """
for epoch in range(10):
    for data, target in train_loader:
        optimizer.zero_grad
        output = model(data)
        loss = F.nll_loss(F.log_softmax(output, dim=1), target)
        loss.backward()
        optimizer.step()
""",
    ),
    "loss item backward": (
        [
            (
                "number instead of loss",
                "loss = F.cross_entropy(logits.view(-1, logits.size(-1)), yb.view(-1)).item()",
            )
        ],
        """
for step in range(1000):
    xb, yb = get_batch('train')
    logits = model(xb)
    loss = F.cross_entropy(logits.view(-1, logits.size(-1)), yb.view(-1)).item()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    losses.append(loss)
""",
    ),
    "lbfgs without zero": (
        [("no zero_grad", "loss.backward()")],
        """
optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5)
for epoch in range(10):
    def closure():
        out = model(x_train)
        loss = criterion(out, y_train)
        loss.backward()
        return loss
    optimizer.step(closure)
""",
    ),
    "plateau": (
        [("plateau without a metric", "scheduler.step()")],
        """
scheduler = ReduceLROnPlateau(optimizer, mode='min', factor=0.1, patience=5)
for epoch in range(epochs):
    train_loss = train_fn(train_loader, model, criterion, optimizer, epoch, scheduler, device)
    val_loss, preds = valid_fn(valid_loader, model, criterion, device)
    scheduler.step()
""",
    ),
    "params exhausted": (
        [("exhausted generator", "torch.nn.utils.clip_grad_norm_(params, 5.0)")],
        """
params = filter(lambda p: p.requires_grad, model.parameters())
optimizer = torch.optim.Adam(params, lr=1e-3)
for epoch in range(10):
    for x, y in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 5.0)
        optimizer.step()
""",
    ),
    "sigmoid net": (
        [
            (
                "sigmoid before with_logits",
                "self.net = nn.Sequential(nn.Linear(n, 64), nn.ReLU(), nn.Linear(64, 1), nn.Sigmoid())",
            )
        ],
        """
class Classifier(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(n, 64), nn.ReLU(), nn.Linear(64, 1), nn.Sigmoid())
    def forward(self, x):
        return self.net(x)
clf = Classifier(30)
loss_function = nn.BCEWithLogitsLoss()
opt = torch.optim.Adam(clf.parameters())
for epoch in range(100):
    for x, y in dl:
        y_hat = clf(x)
        loss = loss_function(y_hat, y.unsqueeze(1))
        opt.zero_grad()
        loss.backward()
        opt.step()
""",
    ),
    "scheduler never": (
        [
            (
                "scheduler never stepped",
                "scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=200)",
            )
        ],
        """
def main():
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=200)
    for epoch in range(200):
        train(net, optimizer, trainloader)
        test(net, testloader)
def train(net, optimizer, loader):
    net.train()
    for x, y in loader:
        optimizer.zero_grad()
        loss = nn.CrossEntropyLoss()(net(x), y)
        loss.backward()
        optimizer.step()
def test(net, loader):
    net.eval()
    with torch.no_grad():
        return sum((net(x).argmax(1) == y).sum() for x, y in loader)
main()
""",
    ),
    "mixup step first": (
        [("step before backward", "optimizer.step()")],
        """
for epoch in range(epochs):
    for images, labels in loader:
        lam = np.random.beta(0.2, 0.2)
        idx = torch.randperm(len(images))
        mixed = lam * images + (1 - lam) * images[idx]
        optimizer.zero_grad()
        out = model(mixed)
        loss = lam * F.cross_entropy(out, labels) + (1 - lam) * F.cross_entropy(out, labels[idx])
        optimizer.step()
        loss.backward()
""",
    ),
    "student under no_grad": (
        [("no_grad around the forward", "student_logits = student(images)")],
        """
teacher.eval()
for images, labels in loader:
    images, labels = images.to(device), labels.to(device)
    with torch.no_grad():
        student_logits = student(images)
        teacher_logits = teacher(images)
    soft_targets = F.softmax(teacher_logits / T, dim=-1)
    soft_prob = F.log_softmax(student_logits / T, dim=-1)
    kd = torch.sum(soft_targets * (soft_targets.log() - soft_prob)) / soft_prob.size(0) * T**2
    label_loss = ce_loss(student_logits, labels)
    loss = 0.25 * kd + 0.75 * label_loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
""",
    ),
}
