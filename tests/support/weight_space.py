"""Models whose optimum in images and weights is known, and scenes to measure them in."""

from __future__ import annotations

import torch
from support.digits import digits, digits_net
from torch import Tensor, nn

from flatguard.checks.context import Meter
from flatguard.checks.weight_space.flatness import Scene
from flatguard.checks.weight_space.robust_loss import Ascent
from flatguard.data.dataset import Batch


class Logits(nn.Module):
    """Two classes without a bias: z = Wx."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.head = nn.Linear(weight.shape[1], 2, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(weight)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x.flatten(1))
        return logits


def linear(seed: int = 0) -> Logits:
    weight = torch.randn(2, 16, generator=torch.Generator().manual_seed(seed))
    return Logits(weight).eval()


def grey(count: int = 6, seed: int = 1) -> Batch:
    """Images far from the ends of [0, 1], so that the box cuts no small ball."""
    drawn = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return Batch(0.3 + 0.4 * drawn, torch.arange(count) % 2)


def margin(model: Logits, batch: Batch) -> Tensor:
    """z_y - z_other of each image, in float64."""
    z = batch.images.flatten(1).double() @ model.head.weight.detach().double().T
    own = z.gather(1, batch.labels[:, None])[:, 0]
    return own - z.gather(1, 1 - batch.labels[:, None])[:, 0]


def scene(*batches: Batch, eps: float = 0.05, seed: int = 0, **ascent: int) -> Scene:
    return Scene(list(batches), Ascent(eps, **{"steps": 5, "restarts": 2, **ascent}), seed, Meter())


def few_digits(count: int = 40) -> Batch:
    images, labels = digits()
    return Batch(images[:count], labels[:count])


def fitted(steps: int = 60) -> nn.Module:
    """A small network that knows a few digits."""
    torch.manual_seed(0)
    net, batch = digits_net(), few_digits()
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(batch.images), batch.labels).backward()
        optimiser.step()
    return net.eval()
