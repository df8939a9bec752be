"""More networks for the digits: output codes, neural ODEs, other layers, a denoiser."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.masking_zoo.digits import DigitsNet


class KWinnersMlp(nn.Module):
    """A perceptron whose hidden layers keep only their winners (Xiao et al. 2020).

    For the reference, `straight` lets every gradient pass, and `steepness` makes the cut a sigmoid.
    """

    def __init__(self, kept: float = 0.2, straight: bool = False, steepness: float = 0.0):
        super().__init__()
        self.kept, self.straight, self.steepness = kept, straight, steepness
        self.fc1 = nn.Linear(64, 256)
        self.fc2 = nn.Linear(256, 256)
        self.fc3 = nn.Linear(256, 10)

    def winners(self, h: Tensor) -> Tensor:
        """Zero but for the k largest of each sample."""
        k = max(1, int(self.kept * h.shape[1]))
        threshold = h.topk(k, dim=1).values[:, -1:].detach()
        if self.steepness:
            spread = h.std(dim=1, keepdim=True).detach()
            return h * torch.sigmoid(self.steepness * (h - threshold) / spread)
        cut = h * (h >= threshold)
        return h + (cut - h).detach() if self.straight else cut

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        h = self.winners(self.fc2(self.winners(self.fc1(x.flatten(1)))))
        logits: Tensor = self.fc3(h)
        return logits


def walsh(bits: int, classes: int = 10) -> Tensor:
    """Code words of ±1, `(classes, bits)`: rows of a Hadamard matrix without its constant one."""
    matrix = torch.ones(1, 1)
    while len(matrix) < bits:
        top, bottom = torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)
        matrix = torch.cat([top, bottom])
    return matrix[1 : classes + 1]


class CodeNet(nn.Module):
    """Error-correcting output codes (Verma and Swami 2019): one tanh a bit, correlated with words.

    `gain` steepens the bits at test time. `linear` leaves tanh and the cut at zero out: the same
    network with true gradients.
    """

    words: Tensor

    def __init__(self, bits: int, gain: float = 1.0, linear: bool = False):
        super().__init__()
        self.gain, self.linear = gain, linear
        self.net = DigitsNet()
        self.net.fc2 = nn.Linear(64, bits)
        self.register_buffer("words", walsh(bits))

    def forward(self, x: Tensor) -> Tensor:
        """Correlations with the code words."""
        if self.linear:
            plain: Tensor = self.net(x) @ self.words.T
            return plain
        return F.relu(torch.tanh(self.gain * self.net(x)) @ self.words.T)


class Flow(nn.Module):
    """The right side of a neural ODE: a small network that pulls towards the origin."""

    def __init__(self, width: int, decay: float):
        super().__init__()
        self.decay = decay
        self.inside = nn.Linear(width, width)
        self.outside = nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        """dh/dt."""
        pull: Tensor = self.outside(torch.tanh(self.inside(h))) - self.decay * h
        return pull


class _Adjoint(torch.autograd.Function):
    """Integrates forwards in small steps, and the adjoint equation backwards in large ones."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, flow: Flow, steps: int, back: int) -> Tensor:
        for _ in range(steps):
            h = h + flow(h) / steps
        ctx.save_for_backward(h)
        ctx.flow, ctx.back = flow, back
        return h

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (adjoint,) = grads
        (h,) = ctx.saved_tensors
        for _ in range(ctx.back):
            with torch.enable_grad():
                h = h.detach().requires_grad_(True)
                speed = ctx.flow(h)
                (change,) = torch.autograd.grad(speed, h, adjoint)
            h = h - speed.detach() / ctx.back
            adjoint = adjoint + change / ctx.back
        return adjoint, None, None, None


class OdeNet(nn.Module):
    """A neural ODE between two linear layers (Chen et al. 2018).

    With `back` steps its gradient comes from the adjoint equation, solved backwards in time: a flow
    that contracts explodes there (Huang et al. 2021 found such gradients behind robust numbers).
    """

    def __init__(self, decay: float = 1.0, steps: int = 10, back: int = 0):
        super().__init__()
        self.steps, self.back = steps, back
        self.stem = nn.Conv2d(1, 16, 3, stride=2, padding=1)
        self.inside = nn.Linear(256, 64)
        self.flow = Flow(64, decay)
        self.outside = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of where the flow ends."""
        h = self.inside(F.relu(self.stem(x)).flatten(1))
        if self.back:
            h = _Adjoint.apply(h, self.flow, self.steps, self.back)  # type: ignore[no-untyped-call]
        else:
            for _ in range(self.steps):
                h = h + self.flow(h) / self.steps
        logits: Tensor = self.outside(h)
        return logits


class PooledNet(nn.Module):
    """Batch normalisation, max pooling and dropout, all as they are in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Dropout(0.3),
        )  # fmt: skip
        self.head = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.body(x))
        return logits


class SmoothNet(nn.Module):
    """Smooth activations and a sigmoid gate on the features: nothing is switched."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.fc1 = nn.Linear(64 * 16, 128)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        h = F.silu(self.conv2(F.softplus(self.conv1(x), 4)))
        value, gate = self.fc1(h.flatten(1)).chunk(2, dim=1)
        logits: Tensor = self.fc2(value * torch.sigmoid(gate))
        return logits


class Mlp(nn.Module):
    """A perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(64, 256)
        self.fc2 = nn.Linear(256, 128)
        self.fc3 = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.fc3(F.relu(self.fc2(F.relu(self.fc1(x.flatten(1))))))
        return logits


class FewClasses(DigitsNet):
    """The convolutional network with fewer outputs."""

    def __init__(self, classes: int):
        super().__init__()
        self.fc2 = nn.Linear(64, classes)


class Denoiser(nn.Module):
    """An autoencoder that is trained to take noise away (Meng and Chen 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(64, 128)
        self.code = nn.Linear(128, 24)
        self.back = nn.Linear(24, 128)
        self.outside = nn.Linear(128, 64)

    def forward(self, x: Tensor) -> Tensor:
        """An image."""
        code = self.code(F.relu(self.inside(x.flatten(1))))
        return torch.sigmoid(self.outside(F.relu(self.back(code)))).view_as(x)


def fit_denoiser(net: nn.Module, images: Tensor, spread: float, epochs: int = 60) -> nn.Module:
    """Adam on the squared error between the clean image and what is made of a noisy one."""
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(50):
            clean = images[rows]
            loss = F.mse_loss(net(clean + spread * torch.randn_like(clean)), clean)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return net.eval()
