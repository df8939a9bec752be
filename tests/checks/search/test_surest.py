"""For a randomised target: the example that most draws get wrong."""

import torch
from support.check_contexts import context_of
from torch import Tensor, nn

from flatguard.checks.search.surest import SHOWN, surest


class Noisy(nn.Module):
    """Two classes: the mean of the image against one half, with noise."""

    def __init__(self, noise: float):
        super().__init__()
        self.layer, self.noise = nn.Linear(12, 2, bias=False), noise
        with torch.no_grad():
            self.layer.weight.copy_(torch.stack([torch.ones(12), -torch.ones(12)]) / 12)

    def forward(self, x: Tensor) -> Tensor:
        shifted = x.flatten(1) - 0.5
        return self.layer(shifted) + self.noise * torch.randn(len(x), 2)


def test_the_share_is_that_of_the_worst_corner() -> None:
    """A mean of 0.5 + d falls by eps at most; the noise decides on what is left."""
    gaps = torch.tensor([0.02, 0.04, 0.08, 0.2])
    images = (0.5 + gaps)[:, None, None, None].expand(-1, 3, 2, 2).contiguous()
    labels = torch.zeros(4, dtype=torch.long)
    context = context_of(Noisy(0.03).eval(), images, labels, "torchattacks:FGSM", eps="0.04")
    context.randomised = True
    rows = next(context.rows(context.samples["sample"].to_numpy()))
    with context.seeded("test"):
        found = surest(context, rows, 3)
    assert float((found.images - rows.images).abs().max()) <= 0.04 + 1e-6
    left = (gaps - 0.04) * 2 / (0.03 * 2**0.5)
    expected = torch.distributions.Normal(0.0, 1.0).cdf(-left).double()
    assert torch.allclose(found.wrong, expected, atol=4 * (0.25 / SHOWN) ** 0.5)
