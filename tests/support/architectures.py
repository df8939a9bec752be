"""The networks of the real checkpoints, written from their papers; `--arch` names them too."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """Two 3×3 convolutions; the shortcut is option A: subsampled, padded with zero channels."""

    def __init__(self, inside: int, outside: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.stride, self.padding = stride, (outside - inside) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.stride != 1:
            pad = self.padding
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, pad, pad))
        return F.relu(out + x)


class CifarResNet(nn.Module):
    """He et al. (2016), Section 4.2."""

    def __init__(self, blocks: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = [(16, 16, 1), (16, 32, 2), (32, 64, 2)]
        for number, (inside, outside, stride) in enumerate(widths, start=1):
            stage = [Block(inside, outside, stride)]
            stage += [Block(outside, outside, 1) for _ in range(blocks - 1)]
            setattr(self, f"layer{number}", nn.Sequential(*stage))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        return self.linear(out.mean(dim=(2, 3)))


def resnet20() -> nn.Module:
    return CifarResNet(3)


def resnet56() -> nn.Module:
    return CifarResNet(9)


def cnn(first: int, second: int, flat: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, first, 4, 2, 1), nn.ReLU(), nn.Conv2d(first, second, 4, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(flat, 100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip


def cnn_wide() -> nn.Module:
    return cnn(16, 32, 2048)


def tiny() -> nn.Module:
    """For tests of loading and errors: 3×8×8 images, 4 classes."""
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 4))


def needs_an_argument(width: int) -> nn.Module:
    return nn.Linear(width, width)


def not_a_module() -> int:
    return 3


class Large(nn.Module):
    """Needs more memory than there is for more than four images at once."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = tiny()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 4 and x.requires_grad:
            raise torch.OutOfMemoryError("tried to allocate 20 GiB")
        return self.net(x)


class Hungry(nn.Module):
    """Asks the allocator for more memory than any machine has, for more than four images at once.

    Args:
        when: `clean` passes, those with a `gradient`, or `always`.
        of_numpy: whether NumPy's memory is what runs out.
    """

    def __init__(self, when: str = "always", of_numpy: bool = False, most: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.when, self.of_numpy, self.most = tiny(), when, of_numpy, most

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        now = {"clean": not x.requires_grad, "gradient": x.requires_grad, "always": True}
        if len(x) > self.most and now[self.when]:
            np.empty(10**15) if self.of_numpy else torch.empty(10**15)
        return self.net(x)
