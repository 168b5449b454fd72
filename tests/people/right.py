"""Loops as people write them, in notebooks, homework and research: nothing is wrong with them."""

RIGHT = {
    "kaggle fold": """
def train_one_epoch(model, optimizer, scheduler, dataloader, device, epoch):
    model.train()
    dataset_size = 0
    running_loss = 0.0
    bar = tqdm(enumerate(dataloader), total=len(dataloader))
    for step, data in bar:
        images = data['image'].to(device, dtype=torch.float)
        labels = data['label'].to(device, dtype=torch.long)
        batch_size = images.size(0)
        with amp.autocast(enabled=True):
            outputs = model(images, labels)
            loss = criterion(outputs, labels)
            loss = loss / CONFIG['n_accumulate']
        scaler.scale(loss).backward()
        if (step + 1) % CONFIG['n_accumulate'] == 0 or step + 1 == len(dataloader):
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            if scheduler is not None:
                scheduler.step()
        running_loss += (loss.item() * batch_size)
        dataset_size += batch_size
        epoch_loss = running_loss / dataset_size
        bar.set_postfix(Epoch=epoch, Train_Loss=epoch_loss, LR=optimizer.param_groups[0]['lr'])
    gc.collect()
    return epoch_loss

@torch.inference_mode()
def valid_one_epoch(model, dataloader, device, epoch):
    model.eval()
    running_loss, dataset_size = 0.0, 0
    for step, data in enumerate(dataloader):
        images = data['image'].to(device)
        labels = data['label'].to(device)
        outputs = model(images, labels)
        loss = criterion(outputs, labels)
        running_loss += loss.item() * images.size(0)
        dataset_size += images.size(0)
    return running_loss / dataset_size

def run_training(model, optimizer, scheduler, device, num_epochs):
    best_model_wts = copy.deepcopy(model.state_dict())
    best_loss = np.inf
    history = defaultdict(list)
    for epoch in range(1, num_epochs + 1):
        train_loss = train_one_epoch(model, optimizer, scheduler, train_loader, CONFIG['device'], epoch)
        val_loss = valid_one_epoch(model, valid_loader, CONFIG['device'], epoch)
        history['Train Loss'].append(train_loss)
        history['Valid Loss'].append(val_loss)
        if val_loss <= best_loss:
            best_loss = val_loss
            best_model_wts = copy.deepcopy(model.state_dict())
            torch.save(model.state_dict(), 'best.bin')
    model.load_state_dict(best_model_wts)
    return model, history
""",
    "homework": """
net = Net().to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(net.parameters(), lr=3e-4, weight_decay=1e-5)
n_epochs = 4
patience = 300
stale = 0
best_acc = 0
for epoch in range(n_epochs):
    net.train()
    train_loss = []
    train_accs = []
    for batch in tqdm(train_loader):
        imgs, labels = batch
        logits = net(imgs.to(device))
        loss = criterion(logits, labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(net.parameters(), max_norm=10)
        optimizer.step()
        acc = (logits.argmax(dim=-1) == labels.to(device)).float().mean()
        train_loss.append(loss.item())
        train_accs.append(acc)
    train_loss = sum(train_loss) / len(train_loss)
    train_acc = sum(train_accs) / len(train_accs)
    net.eval()
    valid_loss = []
    valid_accs = []
    for batch in tqdm(valid_loader):
        imgs, labels = batch
        with torch.no_grad():
            logits = net(imgs.to(device))
        loss = criterion(logits, labels.to(device))
        acc = (logits.argmax(dim=-1) == labels.to(device)).float().mean()
        valid_loss.append(loss.item())
        valid_accs.append(acc)
    valid_acc = sum(valid_accs) / len(valid_accs)
    if valid_acc > best_acc:
        torch.save(net.state_dict(), "sample_best.ckpt")
        best_acc = valid_acc
        stale = 0
    else:
        stale += 1
        if stale > patience:
            break
""",
    "mixup": """
def mixup_data(x, y, alpha=1.0):
    lam = np.random.beta(alpha, alpha) if alpha > 0 else 1
    index = torch.randperm(x.size(0), device=x.device)
    mixed_x = lam * x + (1 - lam) * x[index, :]
    return mixed_x, y, y[index], lam

def mixup_criterion(criterion, pred, y_a, y_b, lam):
    return lam * criterion(pred, y_a) + (1 - lam) * criterion(pred, y_b)

def train(epoch):
    net.train()
    train_loss = reg_loss = correct = total = 0
    for batch_idx, (inputs, targets) in enumerate(trainloader):
        if use_cuda:
            inputs, targets = inputs.cuda(), targets.cuda()
        inputs, targets_a, targets_b, lam = mixup_data(inputs, targets, args.alpha)
        outputs = net(inputs)
        loss = mixup_criterion(criterion, outputs, targets_a, targets_b, lam)
        train_loss += loss.item()
        _, predicted = torch.max(outputs.data, 1)
        total += targets.size(0)
        correct += (lam * predicted.eq(targets_a.data).cpu().sum().float()
                    + (1 - lam) * predicted.eq(targets_b.data).cpu().sum().float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return train_loss / batch_idx

def test(epoch):
    net.eval()
    test_loss = correct = 0
    with torch.no_grad():
        for batch_idx, (inputs, targets) in enumerate(testloader):
            outputs = net(inputs)
            test_loss += criterion(outputs, targets).item()
            correct += outputs.max(1)[1].eq(targets).sum().item()
    return test_loss

for epoch in range(start_epoch, args.epoch):
    train_loss = train(epoch)
    test_loss = test(epoch)
    adjust_learning_rate(optimizer, epoch)
""",
    "lbfgs": """
optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=20, line_search_fn="strong_wolfe")
for epoch in range(10):
    def closure():
        optimizer.zero_grad()
        out = model(x_train)
        loss = criterion(out, y_train)
        loss.backward()
        return loss
    loss = optimizer.step(closure)
    print(epoch, loss.item())
""",
    "style transfer": """
run = [0]
optimizer = optim.LBFGS([input_img])
while run[0] <= num_steps:
    def closure():
        with torch.no_grad():
            input_img.clamp_(0, 1)
        optimizer.zero_grad()
        model(input_img)
        style_score = 0
        content_score = 0
        for sl in style_losses:
            style_score += sl.loss
        for cl in content_losses:
            content_score += cl.loss
        loss = style_score * style_weight + content_score
        loss.backward()
        run[0] += 1
        return loss
    optimizer.step(closure)
""",
    "ema": """
ema = copy.deepcopy(model).eval().requires_grad_(False)
for epoch in range(epochs):
    model.train()
    for images, targets in loader:
        images, targets = images.to(device), targets.to(device)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device_type="cuda", dtype=torch.bfloat16):
            loss = F.cross_entropy(model(images), targets, label_smoothing=0.1)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        with torch.no_grad():
            for p_ema, p in zip(ema.parameters(), model.parameters()):
                p_ema.lerp_(p, 1 - decay)
            for b_ema, b in zip(ema.buffers(), model.buffers()):
                b_ema.copy_(b)
    with torch.inference_mode():
        correct = sum((ema(x.to(device)).argmax(1) == y.to(device)).sum().item() for x, y in val_loader)
    print(epoch, correct / len(val_loader.dataset))
""",
    "distil class": """
class Distiller:
    def __init__(self, teacher, student, loader, T=4.0, alpha=0.7):
        self.teacher = teacher.eval()
        self.student = student
        self.loader = loader
        self.T, self.alpha = T, alpha
        for p in self.teacher.parameters():
            p.requires_grad = False
        self.opt = torch.optim.SGD(self.student.parameters(), lr=0.05, momentum=0.9, nesterov=True)
        self.sched = torch.optim.lr_scheduler.MultiStepLR(self.opt, milestones=[60, 120, 160], gamma=0.2)

    def distill_loss(self, s_logits, t_logits):
        s = F.log_softmax(s_logits / self.T, dim=1)
        t = F.softmax(t_logits / self.T, dim=1)
        return F.kl_div(s, t, reduction="batchmean") * self.T ** 2

    def fit(self, epochs):
        for epoch in range(epochs):
            self.student.train()
            meter = AverageMeter()
            for x, y in self.loader:
                x, y = x.cuda(non_blocking=True), y.cuda(non_blocking=True)
                with torch.no_grad():
                    t_logits = self.teacher(x)
                s_logits = self.student(x)
                hard = F.cross_entropy(s_logits, y)
                loss = self.alpha * self.distill_loss(s_logits, t_logits) + (1 - self.alpha) * hard
                self.opt.zero_grad()
                loss.backward()
                self.opt.step()
                meter.update(loss.item(), x.size(0))
            self.sched.step()
            self.validate()

    @torch.no_grad()
    def validate(self):
        self.student.eval()
        hits = n = 0
        for x, y in self.val_loader:
            hits += (self.student(x.cuda()).argmax(1).cpu() == y).sum().item()
            n += len(y)
        return hits / n
""",
    "two optimizers": """
opt_body = torch.optim.SGD(model.body.parameters(), lr=1e-3, momentum=0.9)
opt_head = torch.optim.AdamW(model.head.parameters(), lr=1e-2)
scheds = [CosineAnnealingLR(o, T_max=epochs) for o in (opt_body, opt_head)]
for epoch in range(epochs):
    for x, y in train_dl:
        for o in (opt_body, opt_head):
            o.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        for o in (opt_body, opt_head):
            o.step()
    for s in scheds:
        s.step()
""",
    "multi task": """
class MultiTask(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = torchvision.models.resnet18(weights="DEFAULT")
        self.encoder.fc = nn.Identity()
        self.age = nn.Linear(512, 1)
        self.gender = nn.Linear(512, 2)
    def forward(self, x):
        z = self.encoder(x)
        return self.age(z).squeeze(1), self.gender(z)

model = MultiTask().to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=2)
mse, ce = nn.MSELoss(), nn.CrossEntropyLoss()
for epoch in range(15):
    model.train()
    for img, age, gender in train_loader:
        optimizer.zero_grad()
        a, g = model(img.to(device))
        loss_age = mse(a, age.to(device).float())
        loss_gender = ce(g, gender.to(device))
        loss = loss_age + 0.5 * loss_gender
        loss.backward()
        optimizer.step()
    model.eval()
    val = 0.0
    with torch.no_grad():
        for img, age, gender in val_loader:
            a, g = model(img.to(device))
            val += (mse(a, age.to(device).float()) + 0.5 * ce(g, gender.to(device))).item()
    scheduler.step(val / len(val_loader))
""",
    "segmentation research": """
def main(cfg):
    model = build_model(cfg).cuda()
    model = torch.compile(model, disable=True)
    params = [{"params": model.backbone.parameters(), "lr": cfg.lr * 0.1}, {"params": model.head.parameters()}]
    optimizer = torch.optim.AdamW(params, lr=cfg.lr)
    max_iters = cfg.epochs * len(train_loader)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda it: (1 - it / max_iters) ** 0.9)
    scaler = torch.amp.GradScaler("cuda", enabled=cfg.amp)
    it = 0
    best = 0.0
    for epoch in range(cfg.epochs):
        model.train()
        for image, mask in train_loader:
            image, mask = image.cuda(), mask.cuda().squeeze(1).long()
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cuda", enabled=cfg.amp):
                out = model(image)["out"]
                loss = F.cross_entropy(out, mask, ignore_index=255)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), cfg.clip)
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
            it += 1
            if it % 50 == 0:
                logger.info(f"{it} {loss.item():.4f} {scheduler.get_last_lr()[0]:.2e}")
        miou = evaluate(model, val_loader)
        if miou > best:
            best = miou
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "best.pth")

@torch.no_grad()
def evaluate(model, loader):
    model.eval()
    inter, union = 0, 0
    for image, mask in loader:
        pred = model(image.cuda())["out"].argmax(1).cpu()
        inter += (pred & mask).sum()
        union += (pred | mask).sum()
    return (inter / union).item()
""",
    "detection": """
def train_one_epoch(model, optimizer, data_loader, device, epoch, print_freq, scaler=None):
    model.train()
    metric_logger = utils.MetricLogger(delimiter="  ")
    lr_scheduler = None
    if epoch == 0:
        warmup_iters = min(1000, len(data_loader) - 1)
        lr_scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.001, total_iters=warmup_iters)
    for images, targets in metric_logger.log_every(data_loader, print_freq, f"Epoch: [{epoch}]"):
        images = list(image.to(device) for image in images)
        targets = [{k: v.to(device) for k, v in t.items()} for t in targets]
        with torch.cuda.amp.autocast(enabled=scaler is not None):
            loss_dict = model(images, targets)
            losses = sum(loss for loss in loss_dict.values())
        loss_value = losses.item()
        if not math.isfinite(loss_value):
            print(f"Loss is {loss_value}, stopping training")
            sys.exit(1)
        optimizer.zero_grad()
        if scaler is not None:
            scaler.scale(losses).backward()
            scaler.step(optimizer)
            scaler.update()
        else:
            losses.backward()
            optimizer.step()
        if lr_scheduler is not None:
            lr_scheduler.step()
        metric_logger.update(loss=losses, lr=optimizer.param_groups[0]["lr"])
    return metric_logger
""",
    "simclr": """
class SimCLR:
    def __init__(self, *args, **kwargs):
        self.args = kwargs['args']
        self.model = kwargs['model'].to(self.args.device)
        self.optimizer = kwargs['optimizer']
        self.scheduler = kwargs['scheduler']
        self.criterion = torch.nn.CrossEntropyLoss().to(self.args.device)
    def train(self, train_loader):
        scaler = GradScaler(enabled=self.args.fp16_precision)
        n_iter = 0
        for epoch_counter in range(self.args.epochs):
            for images, _ in tqdm(train_loader):
                images = torch.cat(images, dim=0).to(self.args.device)
                with autocast(enabled=self.args.fp16_precision):
                    features = self.model(images)
                    logits, labels = self.info_nce_loss(features)
                    loss = self.criterion(logits, labels)
                self.optimizer.zero_grad()
                scaler.scale(loss).backward()
                scaler.step(self.optimizer)
                scaler.update()
                n_iter += 1
            if epoch_counter >= 10:
                self.scheduler.step()
""",
    "fgsm adversarial": """
for epoch in range(epochs):
    for i, (X, y) in enumerate(train_loader):
        X, y = X.cuda(), y.cuda()
        lr = lr_schedule(epoch + (i + 1) / len(train_loader))
        opt.param_groups[0].update(lr=lr)
        delta = torch.zeros_like(X).uniform_(-eps, eps)
        delta.requires_grad = True
        output = model(X + delta)
        loss = F.cross_entropy(output, y)
        loss.backward()
        grad = delta.grad.detach()
        delta.data = torch.clamp(delta + alpha * torch.sign(grad), -eps, eps)
        delta = delta.detach()
        output = model(X + delta)
        loss = F.cross_entropy(output, y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        train_loss += loss.item() * y.size(0)
""",
    "swa": """
swa_model = torch.optim.swa_utils.AveragedModel(model)
swa_scheduler = torch.optim.swa_utils.SWALR(optimizer, swa_lr=0.05)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=300)
for epoch in range(300):
    for input, target in loader:
        optimizer.zero_grad()
        loss_fn(model(input), target).backward()
        optimizer.step()
    if epoch > swa_start:
        swa_model.update_parameters(model)
        swa_scheduler.step()
    else:
        scheduler.step()
torch.optim.swa_utils.update_bn(loader, swa_model)
preds = swa_model(test_input)
""",
    "wgan gp": """
for i, (imgs, _) in enumerate(dataloader):
    real_imgs = imgs.type(Tensor)
    optimizer_D.zero_grad()
    z = torch.randn(imgs.shape[0], 100)
    fake_imgs = generator(z)
    real_validity = discriminator(real_imgs)
    fake_validity = discriminator(fake_imgs)
    gradient_penalty = compute_gradient_penalty(discriminator, real_imgs.data, fake_imgs.data)
    d_loss = -torch.mean(real_validity) + torch.mean(fake_validity) + lambda_gp * gradient_penalty
    d_loss.backward()
    optimizer_D.step()
    optimizer_G.zero_grad()
    if i % n_critic == 0:
        fake_imgs = generator(z)
        fake_validity = discriminator(fake_imgs)
        g_loss = -torch.mean(fake_validity)
        g_loss.backward()
        optimizer_G.step()
""",
    "attention net": """
class Attn(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(d, d), nn.Linear(d, d), nn.Linear(d, d)
        self.softmax = nn.Softmax(dim=-1)
        self.head = nn.Linear(d, 10)
    def forward(self, x):
        a = self.softmax(self.q(x) @ self.k(x).transpose(1, 2) / math.sqrt(x.shape[-1]))
        x = torch.matmul(a, self.v(x))
        return self.head(x.mean(1))
class Gate(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.se = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(d, d, 1), nn.Sigmoid())
    def forward(self, x):
        return x * self.se(x)
model = nn.Sequential(Gate(64), nn.Flatten(2), Attn(64))
opt = torch.optim.AdamW(model.parameters())
crit = nn.CrossEntropyLoss()
for x, y in loader:
    opt.zero_grad()
    loss = crit(model(x), y)
    loss.backward()
    opt.step()
""",
    "binary net with sigmoid and BCELoss": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(30, 16); self.out = nn.Linear(16, 1)
    def forward(self, x):
        return torch.sigmoid(self.out(torch.relu(self.fc1(x)))).squeeze(-1)
net = Net()
criterion = nn.BCELoss()
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
for epoch in range(100):
    net.train()
    for xb, yb in train_dl:
        pred = net(xb)
        loss = criterion(pred, yb)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
""",
    "callbacks": """
class Learner:
    def one_batch(self, xb, yb):
        self.xb, self.yb = xb, yb
        self.pred = self.model(self.xb)
        self.loss = self.loss_func(self.pred, self.yb)
        self('after_loss')
        if self.in_train:
            self.loss.backward()
            self.opt.step()
            self.opt.zero_grad()
    def all_batches(self):
        for xb, yb in self.dl:
            self.one_batch(xb, yb)
    def fit(self, epochs):
        self.opt = self.opt_func(self.model.parameters(), self.lr)
        for epoch in range(epochs):
            self.in_train = True
            self.model.train()
            self.dl = self.train_dl
            self.all_batches()
            self.in_train = False
            self.model.eval()
            self.dl = self.valid_dl
            with torch.no_grad():
                self.all_batches()
""",
    "nanogpt": """
scaler = torch.cuda.amp.GradScaler(enabled=(dtype == 'float16'))
optimizer = model.configure_optimizers(weight_decay, learning_rate, (beta1, beta2), device_type)
@torch.no_grad()
def estimate_loss():
    out = {}
    model.eval()
    for split in ['train', 'val']:
        losses = torch.zeros(eval_iters)
        for k in range(eval_iters):
            X, Y = get_batch(split)
            with ctx:
                logits, loss = model(X, Y)
            losses[k] = loss.item()
        out[split] = losses.mean()
    model.train()
    return out
X, Y = get_batch('train')
while True:
    lr = get_lr(iter_num) if decay_lr else learning_rate
    for param_group in optimizer.param_groups:
        param_group['lr'] = lr
    if iter_num % eval_interval == 0 and master_process:
        losses = estimate_loss()
        if losses['val'] < best_val_loss:
            best_val_loss = losses['val']
            checkpoint = {'model': raw_model.state_dict(), 'optimizer': optimizer.state_dict()}
            torch.save(checkpoint, 'ckpt.pt')
    for micro_step in range(gradient_accumulation_steps):
        with ctx:
            logits, loss = model(X, Y)
            loss = loss / gradient_accumulation_steps
        X, Y = get_batch('train')
        scaler.scale(loss).backward()
    if grad_clip != 0.0:
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    if iter_num % log_interval == 0:
        lossf = loss.item() * gradient_accumulation_steps
    iter_num += 1
    if iter_num > max_iters:
        break
""",
}
