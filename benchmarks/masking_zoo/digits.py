"""Small networks for scikit-learn's 8×8 digits, and the trainings that make them what they are."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TRAINING_IMAGES = 1000
EPOCHS = 25
BATCH = 50
TEMPERATURE = 50.0
"""Of defensive distillation (Papernot et al. 2016)."""

LEVELS = 10
"""Of the thermometer."""

KEPT = 0.1
"""The share of winners (Xiao et al. 2020)."""


def digits() -> tuple[Tensor, Tensor]:
    """All 1,797 images in [0, 1], `(n, 1, 8, 8)`, and their labels, in one fixed random order."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(found.target, dtype=torch.int64)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return images[order], labels[order]


class DigitsNet(nn.Module):
    """Two convolutions and two linear layers."""

    def __init__(self, channels: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.fc1 = nn.Linear(64 * 16, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        h = F.relu(self.conv2(F.relu(self.conv1(x))))
        logits: Tensor = self.fc2(F.relu(self.fc1(h.flatten(1))))
        return logits


class KWinnersNet(nn.Module):
    """The same, but of each layer only the largest activations pass (k-winners-take-all)."""

    def __init__(self, kept: float = KEPT):
        super().__init__()
        self.kept = kept
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.fc1 = nn.Linear(64 * 16, 256)
        self.fc2 = nn.Linear(256, 10)

    def winners(self, h: Tensor) -> Tensor:
        """Zero but for the k largest of each sample."""
        flat = h.flatten(1)
        k = max(1, int(self.kept * flat.shape[1]))
        threshold = flat.topk(k, dim=1).values[:, -1:]
        return (flat * (flat >= threshold)).view_as(h)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        h = self.winners(self.conv2(self.winners(self.conv1(x))))
        logits: Tensor = self.fc2(self.winners(self.fc1(h.flatten(1))))
        return logits


class ThermometerNet(nn.Module):
    """Each pixel as a column of comparisons (Buckman et al. 2018); `soft` is for its training."""

    levels: Tensor

    def __init__(self, soft: float | None = None):
        super().__init__()
        self.soft = soft
        self.net = DigitsNet(LEVELS)
        self.register_buffer("levels", (torch.arange(LEVELS) / LEVELS).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        if self.soft is not None:
            code = torch.sigmoid((x - self.levels) * self.soft)
        else:
            code = (x > self.levels).float()
        logits: Tensor = self.net(code)
        return logits


class AlwaysDropout(nn.Module):
    """Dropout that stays on at test time, after every layer."""

    def __init__(self, rate: float = 0.5):
        super().__init__()
        self.rate = rate
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.fc1 = nn.Linear(64 * 16, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of one draw."""
        h = F.dropout(F.relu(self.conv1(x)), self.rate, training=True)
        h = F.dropout(F.relu(self.conv2(h)), self.rate, training=True)
        h = F.dropout(F.relu(self.fc1(h.flatten(1))), self.rate, training=True)
        logits: Tensor = self.fc2(h)
        return logits


Perturb = Callable[[nn.Module, Tensor, Tensor], Tensor]


def pgd_examples(net: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int) -> Tensor:
    """Examples from a random start, as adversarial training makes them."""
    moved = (x + torch.empty_like(x).uniform_(-eps, eps)).clamp(0, 1)
    for _ in range(steps):
        moved.requires_grad_(True)
        gradient = torch.autograd.grad(F.cross_entropy(net(moved), y), moved)[0]
        moved = moved.detach() + 2.5 * eps / steps * gradient.sign()
        moved = torch.min(torch.max(moved, x - eps), x + eps).clamp(0, 1)
    return moved.detach()


def fgsm_examples(net: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """One full step from the clean image: the recipe that collapses."""
    start = x.clone().requires_grad_(True)
    gradient = torch.autograd.grad(F.cross_entropy(net(start), y), start)[0]
    return (x + eps * gradient.sign()).clamp(0, 1)


def fit(
    net: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    epochs: int = EPOCHS,
    temperature: float = 1.0,
    perturb: Perturb | None = None,
    rate: float = 1e-3,
) -> nn.Module:
    """Adam on cross-entropy; `targets` are labels, or probabilities where a teacher made them."""
    optimiser = torch.optim.Adam(net.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(BATCH):
            x, y = images[rows], targets[rows]
            if perturb is not None:
                x = perturb(net, x, y)
            loss = F.cross_entropy(net(x) / temperature, y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
    return net.eval()
