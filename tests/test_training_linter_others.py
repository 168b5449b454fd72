"""Other good loops, in the manner of what people write; check_loop has nothing to object to."""

import pytest

from ftlab.training import check_loop

GOOD = {
    "accelerate": """
for epoch in range(epochs):
    model.train()
    for step, batch in enumerate(train_dataloader):
        with accelerator.accumulate(model):
            outputs = model(**batch)
            loss = outputs.loss
            total_loss += loss.detach().float()
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            lr_scheduler.step()
            optimizer.zero_grad()
    model.eval()
    for step, batch in enumerate(eval_dataloader):
        with torch.no_grad():
            outputs = model(**batch)
        predictions = outputs.logits.argmax(dim=-1)
""",
    "kd": """
teacher.eval()
student.train()
for x, y in loader:
    with torch.no_grad():
        t = teacher(x)
    s = student(x)
    soft = F.softmax(t / T, dim=-1)
    logp = F.log_softmax(s / T, dim=-1)
    loss = 0.5 * F.kl_div(logp, soft, reduction="batchmean") + 0.5 * F.cross_entropy(s, y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
""",
    "frozen features": """
backbone.eval()
for x, y in loader:
    with torch.no_grad():
        feats = backbone(x)
    logits = head(feats)
    loss = criterion(logits, y)
    optimizer.zero_grad(); loss.backward(); optimizer.step()
""",
    "frozen bn": """
model.train()
for m in model.modules():
    if isinstance(m, nn.BatchNorm2d):
        m.eval()
for x, y in loader:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
""",
    "sam": """
for x, y in loader:
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.first_step(zero_grad=True)
    F.cross_entropy(model(x), y).backward()
    optimizer.second_step(zero_grad=True)
""",
    "two losses": """
for x, y in loader:
    optimizer.zero_grad()
    loss1 = F.cross_entropy(model(x), y)
    loss2 = F.mse_loss(model(x), z)
    loss1.backward(retain_graph=True)
    loss2.backward()
    optimizer.step()
""",
    "multi-task": """
for x, ys in loader:
    optimizer.zero_grad()
    feats = backbone(x)
    loss = 0
    for head, y in zip(heads, ys):
        loss = loss + F.cross_entropy(head(feats), y)
    loss.backward()
    optimizer.step()
    scheduler.step()
""",
    "warmup": """
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
scheduler = torch.optim.lr_scheduler.SequentialLR(
    optimizer, [LinearLR(optimizer, 0.1), CosineAnnealingLR(optimizer, epochs - 5)], [5]
)
for epoch in range(epochs):
    for x, y in loader:
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    scheduler.step()
""",
    "eval fn": """
@torch.no_grad()
def accuracy(model, loader):
    was = model.training
    model.eval()
    n = sum((model(x).argmax(1) == y).sum().item() for x, y in loader)
    model.train(was)
    return n
for epoch in range(3):
    for x, y in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    print(accuracy(model, val))
""",
    "saliency": """
model.eval()
x.requires_grad_()
score = model(x)[0, 3]
score.backward()
x.grad.abs().max(1)
""",
    "unfreeze": """
for p in model.parameters(): p.requires_grad = False
for p in model.fc.parameters(): p.requires_grad = True
optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
for epoch in range(10):
    if epoch == 5:
        for p in model.parameters(): p.requires_grad = True
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    for x, y in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
""",
    "params list": """
params = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.SGD(params, lr=0.1)
for x, y in loader:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    nn.utils.clip_grad_norm_(params, 1.0)
    optimizer.step()
""",
    "wgan": """
for i, real in enumerate(loader):
    for _ in range(5):
        optim_D.zero_grad()
        fake = G(z).detach()
        loss_D = -D(real).mean() + D(fake).mean()
        loss_D.backward()
        optim_D.step()
    optim_G.zero_grad()
    loss_G = -D(G(z)).mean()
    loss_G.backward()
    optim_G.step()
""",
    "tqdm": """
for epoch in tqdm(range(10)):
    model.train()
    pbar = tqdm(loader)
    for x, y in pbar:
        x, y = x.cuda(), y.cuda()
        opt.zero_grad()
        with torch.autocast('cuda'):
            out = model(x)
            loss = crit(out, y)
        scaler.scale(loss).backward()
        scaler.step(opt)
        scaler.update()
        sched.step()
        pbar.set_description(f'{loss.item():.3f}')
    torch.cuda.empty_cache()
    model.eval()
    preds = []
    with torch.inference_mode():
        for x, y in val:
            preds.append(model(x.cuda()).softmax(1).cpu())
""",
    "early stop": """
best = float('inf')
for epoch in range(100):
    model.train()
    for x, y in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        val_loss = sum(loss_fn(model(x), y) for x, y in val_loader) / len(val_loader)
    scheduler.step(val_loss)
    if val_loss < best:
        best = val_loss
        torch.save(model.state_dict(), 'best.pt')
    else:
        bad += 1
        if bad > 3: break
""",
    "triplet": """
for a, p, n in loader:
    optimizer.zero_grad()
    loss = triplet_loss(net(a), net(p), net(n))
    loss.backward()
    optimizer.step()
""",
    "lightning auto": """
class M(L.LightningModule):
    def training_step(self, batch, i):
        x, y = batch
        loss = F.cross_entropy(self.model(x), y)
        self.log('loss', loss)
        return loss
    def validation_step(self, batch, i):
        x, y = batch
        self.log('acc', (self.model(x).argmax(1) == y).float().mean())
    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters())
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
        return [optimizer], [scheduler]
""",
}


@pytest.mark.parametrize("name", GOOD)
def test_nothing_is_wrong(name):
    assert check_loop(GOOD[name]).ok, check_loop(GOOD[name])
