"""One small honest network, and models around it that misbehave when they are called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from support.digits import digits
from torch import Tensor, nn

TRAINING = 1000


@dataclass(frozen=True)
class SetUp:
    """What somebody evaluates: a model, images in [0, 1], and their labels."""

    model: nn.Module
    images: Tensor
    labels: Tensor


def coloured() -> tuple[Tensor, Tensor]:
    """Digits in red, with another digit in blue: `(n, 3, 8, 8)`. The label is the red one."""
    images, labels = digits()
    others = images.roll(7, dims=0)
    return torch.cat([images, 0.5 * (images + others), others], dim=1), labels


def honest() -> SetUp:
    """A network that was trained on coloured digits, and 300 of them that it was not trained on."""
    torch.manual_seed(0)
    images, labels = coloured()
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(12):
        for rows in torch.randperm(TRAINING).split(50):
            optimiser.zero_grad()
            F.cross_entropy(net(images[rows]), labels[rows]).backward()
            optimiser.step()
    optimiser.zero_grad()
    tested = slice(TRAINING, TRAINING + 300)
    return SetUp(net.eval(), images[tested], labels[tested])


class Around(nn.Module):
    """A model with something before it and something after it."""

    def __init__(
        self,
        net: nn.Module,
        before: Callable[[Tensor], Tensor] | None = None,
        after: Callable[[Tensor], Tensor] | None = None,
    ):
        super().__init__()
        self.net, self.before, self.after = net, before, after

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.net(x if self.before is None else self.before(x))
        return z if self.after is None else self.after(z)


class Wrapped(nn.Module):
    """A base of models that keep something."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net, self.count = net, 0
        self.answers: list[tuple[Tensor, Tensor]] = []
        self.generator = torch.Generator().manual_seed(0)
        self.drop, self.norm = nn.Dropout(0.3), nn.BatchNorm1d(10, affine=False)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class OwnGenerator(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + torch.randn(len(x), 10, generator=self.generator)


class Drifts(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return self.net(x) + 0.1 * self.count * torch.arange(10)


class EverySecond(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        z = self.net(x)
        return z if self.count % 2 else z.flip(1)


class TiresSoon(Wrapped):
    """Answers at random after a hundred images."""

    def forward(self, x: Tensor) -> Tensor:
        self.count += len(x)
        z = self.net(x)
        return z if self.count <= 100 else z.roll(1, dims=1)


class TiresForAll(Wrapped):
    """Answers wrong after 250 images, also those that copies of it were shown."""

    shown = 0

    def __init__(self, net: nn.Module):
        super().__init__(net)
        TiresForAll.shown = 0

    def forward(self, x: Tensor) -> Tensor:
        TiresForAll.shown += len(x)
        z = self.net(x)
        return z if TiresForAll.shown <= 250 else z.roll(1, dims=1)


class NoiseWithGradients(Wrapped):
    """Answers at random where an attack asks for gradients."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.net(x), 0.3, training=x.requires_grad)


class Locks(Wrapped):
    """Answers an image like the nearest one that it has seen, if that is near."""

    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x)
        rows = []
        for image, own in zip(x, z, strict=True):
            near = [a for i, a in self.answers if float((image - i).abs().max()) < 8 / 255]
            rows.append(near[0] if near else own)
            if not near and not x.requires_grad:
                self.answers.append((image.clone(), own.clone()))
        return torch.stack(rows)


class Averages(Wrapped):
    """Answers an image with the mean of its answer and all the images' before."""

    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x)
        self.seen = 0.9 * self.seen + 0.1 * z.detach().mean()
        return z + self.seen * torch.arange(10)


class CountsOnly(Wrapped):
    """Counts its calls, and answers as if it did not."""

    def forward(self, x: Tensor) -> Tensor:
        self.count += len(x)
        return self.net(x)


class KeepsAnswers(Wrapped):
    """Keeps its last answers, and gives them again for the same images only."""

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            return self.net(x)
        for images, z in self.answers:
            if images.shape == x.shape and torch.equal(images, x):
                return z
        z = self.net(x)
        self.answers = [*self.answers[-3:], (x.clone(), z)]
        return z


class OwnGeneratorSeeded(Wrapped):
    """The same noise for every image and call."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + torch.randn(10, generator=self.generator.manual_seed(0))


class DropoutOff(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return self.drop.eval()(self.net(x))


class BatchNormOff(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm.eval()(self.net(x))


class TrainsItself(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        self.train()
        return self.net(x)


class DropoutLeftOn(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        self.drop.train()
        return self.drop(self.net(x))


class BatchNormLeftOn(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        self.norm.train()
        return self.norm(self.net(x))


class CountsInABuffer(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return self.net(x)


class MovesItsWeights(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.net[0].weight.mul_(1.0 - 1e-7).add_(1e-6)
        return self.net(x)


class RootOfZero(nn.Module):
    """The gradient of a root is infinite at zero, and infinity times zero is NaN."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + 0.0 * (x - x.detach()).abs().sqrt())
