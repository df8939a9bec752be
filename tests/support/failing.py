"""Models that raise, turn NaN or end their process, and a reporter that interrupts."""

import os
import signal
from pathlib import Path

import torch
from support.architectures import tiny
from torch import nn

from flatguard.execution.progress import Silent


class Half(nn.Module):
    """Decides by the mean brightness: its best L∞ attack is known exactly."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(1, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[-8.0], [8.0]]))
            self.head.bias.copy_(torch.tensor([4.0, -4.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.flatten(1).mean(1, keepdim=True))


class TurnsNan(nn.Module):
    """NaN for images that are brighter than 0.9 or darker than 0.6 on average."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tiny()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.flatten(1).mean(1, keepdim=True)
        return torch.where((mean > 0.9) | (mean < 0.6), torch.nan, self.net(x))


class FailsUnderAttack(nn.Module):
    """Raises at a given call of those that an attack differentiates."""

    def __init__(self, at: int, error: BaseException):
        super().__init__()
        self.net, self.left, self.error = tiny(), at - 1, error

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            if not self.left:
                raise self.error
            self.left -= 1
        return self.net(x)


OUT_OF_LUCK = RuntimeError("out of luck\nand more")


PGD = {"attack": "torchattacks:PGD", "eps": "4/255", "attack_args": {"steps": 3}, "threads": 1}


class Raises(nn.Module):
    """Raises where an image's first pixel is brighter than 0.99; `only` under attack if asked."""

    def __init__(self, only_under_attack: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.only = tiny(), only_under_attack

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if (x[:, 0, 0, 0] > 0.99).any() and (not self.only or x.requires_grad):
            raise RuntimeError("cannot see\nin this light")
        return self.net(x)


class Dies(nn.Module):
    """Ends a worker at the first gradient, once: a file remembers."""

    def __init__(self, mark: Path):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.mark, self.home = tiny(), mark, os.getpid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if os.getpid() != self.home and x.requires_grad and self.mark.exists():
            self.mark.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.net(x)


class Interrupts(Silent):
    """A person who ends the attack after so many images, and counts them."""

    def __init__(self, after: float = float("inf")) -> None:
        self.rows, self._after = 0, after

    def called(self, rows: int) -> None:
        self.rows += rows
        if self.rows > self._after:
            raise KeyboardInterrupt


class Blind(nn.Module):
    """Raises in every gradient pass that looks at a bright image."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = tiny()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.requires_grad and (x[:, 0, 0, 0] > 0.99).any():
            raise RuntimeError("cannot see")
        return self.net(x)
