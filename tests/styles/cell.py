"""One cell of a notebook."""

import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

from ftlab.training.linter.arguments import small_model
from tests.styles.parts import dl

device = "cpu"
net = small_model().to(device)
trainloader, testloader = dl(), dl()
lossfunc = nn.CrossEntropyLoss()
opt = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
sched = StepLR(opt, step_size=5)
history = []
for epoch in range(2):
    net.train()
    running = 0.0
    for i, data in enumerate(trainloader, 0):
        inputs, labels = data[0].to(device), data[1].to(device)
        opt.zero_grad()
        outputs = net(inputs)
        loss = lossfunc(outputs, labels)
        loss.backward()
        opt.step()
        running += loss.item()
        if i % 2 == 1:
            print(f"[{epoch + 1}, {i + 1:5d}] loss: {running / 2:.3f}")
            running = 0.0
    sched.step()
    correct = total = 0
    net.eval()
    with torch.no_grad():
        for images, labels in testloader:
            out = net(images.to(device))
            _, predicted = torch.max(out.data, 1)
            total += labels.size(0)
            correct += (predicted == labels).sum().item()
    history.append((running, correct / total))
