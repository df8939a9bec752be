"""A small network for scikit-learn's 8×8 digits, trained in seconds; `--arch` names it too."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

EPS = 0.1
TRAINING = 1000
TESTED = 200
EPOCHS = 12


def digits_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


class Rounded(nn.Sequential):
    """Rounds pixels to eighths: no gradient reaches the image."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x * 8).round() / 8)


class SlowAtHome(nn.Sequential):
    """Slow in a process that no other has started, if asked: workers have time to begin."""

    def forward(self, x: Tensor) -> Tensor:
        if multiprocessing.parent_process() is None:
            time.sleep(float(os.environ.get("SLOW_AT_HOME", "0")))
        return super().forward(x)


def slow_at_home_net() -> nn.Module:
    return SlowAtHome(*digits_net())


def rounded_net() -> nn.Module:
    return Rounded(*digits_net())


def digits() -> tuple[Tensor, Tensor]:
    """All 1,797 images in [0, 1], `(n, 1, 8, 8)`, and their labels, in one fixed order."""
    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order], torch.tensor(found.target)[order].long()


def trained(eps: float = EPS) -> nn.Module:
    """Adversarially trained with PGD of five steps; honest."""
    torch.manual_seed(0)
    net, (images, labels) = digits_net(), digits()
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(EPOCHS):
        for rows in torch.randperm(TRAINING).split(50):
            x, y = images[rows], labels[rows]
            moved = (x + torch.empty_like(x).uniform_(-eps, eps)).clamp(0, 1)
            for _ in range(5):
                moved.requires_grad_(True)
                slope = torch.autograd.grad(F.cross_entropy(net(moved), y), moved)[0].sign()
                moved = torch.clamp(moved.detach() + eps / 2 * slope, x - eps, x + eps).clamp(0, 1)
            optimiser.zero_grad()
            F.cross_entropy(net(moved), y).backward()
            optimiser.step()
    return net.eval()


def write(folder: Path) -> None:
    """The files that a user has: weights and images that were not trained on."""
    save_file(trained().state_dict(), folder / "digits.safetensors")
    images, labels = digits()
    held_out = slice(TRAINING, TRAINING + TESTED)
    np.savez(
        folder / "digits.npz",
        images=images[held_out].permute(0, 2, 3, 1).numpy(), labels=labels[held_out].numpy(),
    )  # fmt: skip
