"""In the manner of the 60 minute blitz: everything in one place, first by hand, then with an optimizer."""

import torch
from torch import nn, optim


def one_update_by_hand(net, images, labels, learning_rate=0.01):
    criterion = nn.CrossEntropyLoss()
    out = net(images)
    net.zero_grad()
    loss = criterion(out, labels)
    loss.backward()
    for f in net.parameters():
        f.data.sub_(f.grad.data * learning_rate)


def train(net, trainloader, epochs=2):
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(net.parameters(), lr=0.001, momentum=0.9)

    for epoch in range(epochs):
        running_loss = 0.0
        for i, data in enumerate(trainloader, 0):
            inputs, labels = data
            optimizer.zero_grad()
            outputs = net(inputs)
            loss = criterion(outputs, labels)
            loss.backward()
            optimizer.step()

            running_loss += loss.item()
            if i % 2000 == 1999:
                print(f"[{epoch + 1}, {i + 1:5d}] loss: {running_loss / 2000:.3f}")
                running_loss = 0.0
    print("Finished Training")


def accuracy(net, testloader):
    correct = 0
    total = 0
    with torch.no_grad():
        for data in testloader:
            images, labels = data
            outputs = net(images)
            _, predicted = torch.max(outputs, 1)
            total += labels.size(0)
            correct += (predicted == labels).sum().item()
    return 100 * correct // total
