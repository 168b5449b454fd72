"""In the manner of the transfer learning tutorial: one loop for both phases, the best parameters kept."""

import copy
import time

import torch
from torch import nn, optim
from torch.optim import lr_scheduler


def train_model(model, criterion, optimizer, scheduler, dataloaders, device="cpu", num_epochs=25):
    since = time.time()
    best_weights = copy.deepcopy(model.state_dict())
    best_acc = 0.0

    for epoch in range(num_epochs):
        for phase in ["train", "val"]:
            if phase == "train":
                model.train()
            else:
                model.eval()

            running_loss = 0.0
            running_corrects = 0

            for inputs, labels in dataloaders[phase]:
                inputs = inputs.to(device)
                labels = labels.to(device)

                optimizer.zero_grad()

                with torch.set_grad_enabled(phase == "train"):
                    outputs = model(inputs)
                    _, preds = torch.max(outputs, 1)
                    loss = criterion(outputs, labels)

                    if phase == "train":
                        loss.backward()
                        optimizer.step()

                running_loss += loss.item() * inputs.size(0)
                running_corrects += torch.sum(preds == labels.data)
            if phase == "train":
                scheduler.step()

            size = len(dataloaders[phase].dataset)
            epoch_loss = running_loss / size
            epoch_acc = running_corrects.double() / size
            print(f"{epoch} {phase} loss: {epoch_loss:.4f} acc: {epoch_acc:.4f}")

            if phase == "val" and epoch_acc > best_acc:
                best_acc = epoch_acc
                best_weights = copy.deepcopy(model.state_dict())

    print(f"complete in {time.time() - since:.0f} s, best {best_acc:4f}")
    model.load_state_dict(best_weights)
    return model


def main(model, dataloaders):
    for param in model.parameters():
        param.requires_grad = False
    model.fc = nn.Linear(model.fc.in_features, 3)
    model = model.to("cpu")
    criterion = nn.CrossEntropyLoss()
    optimizer_conv = optim.SGD(model.fc.parameters(), lr=0.001, momentum=0.9)
    exp_lr_scheduler = lr_scheduler.StepLR(optimizer_conv, step_size=7, gamma=0.1)
    return train_model(model, criterion, optimizer_conv, exp_lr_scheduler, dataloaders, num_epochs=25)
