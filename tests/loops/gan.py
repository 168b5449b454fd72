"""In the manner of the DCGAN tutorial: two models, two optimizers, a detach that is meant."""
# ruff: noqa: N803 - the tutorial's own names

import torch
from torch import nn, optim


def train(netG, netD, dataloader, nz=4, num_epochs=2, device="cpu", lr=0.0002, beta1=0.5):
    criterion = nn.BCELoss()
    fixed_noise = torch.randn(8, nz, device=device)
    real_label = 1.0
    fake_label = 0.0
    optimizerD = optim.Adam(netD.parameters(), lr=lr, betas=(beta1, 0.999))
    optimizerG = optim.Adam(netG.parameters(), lr=lr, betas=(beta1, 0.999))

    img_list = []
    G_losses = []
    D_losses = []
    iters = 0
    for epoch in range(num_epochs):
        for i, data in enumerate(dataloader, 0):
            # D: as right as it can be about both kinds
            netD.zero_grad()
            real_cpu = data[0].to(device)
            b_size = real_cpu.size(0)
            label = torch.full((b_size,), real_label, dtype=torch.float, device=device)
            output = netD(real_cpu).view(-1)
            errD_real = criterion(output, label)
            errD_real.backward()
            D_x = output.mean().item()

            noise = torch.randn(b_size, nz, device=device)
            fake = netG(noise)
            label.fill_(fake_label)
            output = netD(fake.detach()).view(-1)
            errD_fake = criterion(output, label)
            errD_fake.backward()
            D_G_z1 = output.mean().item()
            errD = errD_real + errD_fake
            optimizerD.step()

            # G: D shall be wrong about its images
            netG.zero_grad()
            label.fill_(real_label)
            output = netD(fake).view(-1)
            errG = criterion(output, label)
            errG.backward()
            D_G_z2 = output.mean().item()
            optimizerG.step()

            if i % 50 == 0:
                print(f"[{epoch}] {errD.item():.4f} {errG.item():.4f} {D_x:.4f} {D_G_z1:.4f} {D_G_z2:.4f}")
            G_losses.append(errG.item())
            D_losses.append(errD.item())

            if iters % 500 == 0:
                with torch.no_grad():
                    fake = netG(fixed_noise).detach().cpu()
                img_list.append(fake)
            iters += 1
    return G_losses, D_losses
