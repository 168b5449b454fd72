"""Two networks and two optimizers."""

import torch
from torch import nn, optim


def train_gan(dataloader, epochs=1, nz=5):
    G = nn.Sequential(
        nn.Linear(nz, 12),
        nn.BatchNorm1d(12),
        nn.ReLU(),
        nn.Linear(12, 3 * 16 * 16),
        nn.Tanh(),
        nn.Unflatten(1, (3, 16, 16)),
    )
    D = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.LeakyReLU(0.2), nn.Flatten(), nn.LazyLinear(1))
    D(torch.zeros(2, 3, 16, 16))
    optD = optim.Adam(D.parameters(), lr=2e-4, betas=(0.5, 0.999))
    optG = optim.Adam(G.parameters(), lr=2e-4, betas=(0.5, 0.999))
    bce = nn.BCEWithLogitsLoss()
    G_losses, D_losses = [], []
    for _epoch in range(epochs):
        for real, _ in dataloader:
            b = real.size(0)
            ones, zeros = torch.ones(b, 1), torch.zeros(b, 1)
            # D
            D.zero_grad()
            errD_real = bce(D(real), ones)
            errD_real.backward()
            fake = G(torch.randn(b, nz))
            errD_fake = bce(D(fake.detach()), zeros)
            errD_fake.backward()
            optD.step()
            # G
            G.zero_grad()
            errG = bce(D(fake), ones)
            errG.backward()
            optG.step()
            G_losses.append(errG.item())
            D_losses.append((errD_real + errD_fake).item())
    return G_losses, D_losses


def case():
    """Return the function, and what it needs."""
    return train_gan, {}
