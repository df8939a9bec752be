"""Models that choose between branches, as strangers would write them, and others that do not."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES, SHAPE = 4, (1, 6, 6)


def small_net(seed: int) -> nn.Module:
    """A random network with four classes for images of 6×6 pixels."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, CLASSES)
    ).eval()


class Chooses(nn.Module):
    """Three networks, scores of the image, and a function that answers with them."""

    def __init__(self, answer: Callable[[Chooses, Tensor], Tensor]):
        super().__init__()
        self.nets = nn.ModuleList(small_net(seed) for seed in range(3))
        self.answer, self.last = answer, torch.zeros(1)
        self.weights = torch.randn(36, 3, generator=torch.Generator().manual_seed(9))

    def scores(self, x: Tensor) -> Tensor:
        return (x.flatten(1) - 0.5) @ self.weights

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self, x)


def where(m: Chooses, x: Tensor) -> Tensor:
    return torch.where(m.scores(x)[:, :1] > 0, m.nets[0](x), m.nets[1](x))


def masked_write(m: Chooses, x: Tensor) -> Tensor:
    out = m.nets[0](x).clone()
    with torch.no_grad():
        mask = m.scores(x)[:, 0] <= 0
    if mask.any():
        out[mask] = m.nets[1](x[mask])
    return out


def product(m: Chooses, x: Tensor) -> Tensor:
    mask = (m.scores(x)[:, :1].detach() > 0).float()
    return mask * m.nets[0](x) + (1 - mask) * m.nets[1](x)


def rounded(m: Chooses, x: Tensor) -> Tensor:
    mask = m.scores(x)[:, :1].sigmoid().round()
    return mask * m.nets[0](x) + (1 - mask) * m.nets[1](x)


def signed(m: Chooses, x: Tensor) -> Tensor:
    mask = (m.scores(x)[:, :1].sign() + 1) / 2
    return mask * m.nets[0](x) + (1 - mask) * m.nets[1](x)


def cast(m: Chooses, x: Tensor) -> Tensor:
    index = (m.scores(x)[:, 0].clamp(-0.9, 0.9) + 1).long()
    stacked = torch.stack([m.nets[1](x), m.nets[0](x)], dim=1)
    return stacked[torch.arange(len(x)), index]


def by_float(m: Chooses, x: Tensor) -> Tensor:
    scores = m.scores(x).detach()
    return torch.cat(
        [m.nets[int(float(s[0]) <= 0)](i[None]) for i, s in zip(x, scores, strict=True)]
    )


def by_list(m: Chooses, x: Tensor) -> Tensor:
    scores = m.scores(x)[:, 0].tolist()
    return torch.cat([m.nets[int(s <= 0)](i[None]) for i, s in zip(x, scores, strict=True)])


def by_if(m: Chooses, x: Tensor) -> Tensor:
    scores = m.scores(x)
    return torch.cat(
        [m.nets[0 if s[0] > 0 else 1](i[None]) for i, s in zip(x, scores, strict=True)]
    )


def by_numpy(m: Chooses, x: Tensor) -> Tensor:
    mask = torch.from_numpy(m.scores(x)[:, 0].detach().numpy() > 0)
    return torch.where(mask[:, None], m.nets[0](x), m.nets[1](x))


def indexed(m: Chooses, x: Tensor) -> Tensor:
    stacked = torch.stack([net(x) for net in m.nets], dim=1)
    return stacked[torch.arange(len(x)), m.scores(x).argmax(dim=1)]


def gathered(m: Chooses, x: Tensor) -> Tensor:
    stacked = torch.stack([net(x) for net in m.nets])
    index = m.scores(x).max(dim=1).indices[None, :, None].expand(1, -1, CLASSES)
    return stacked.gather(0, index)[0]


def top_one(m: Chooses, x: Tensor) -> Tensor:
    stacked = torch.stack([net(x) for net in m.nets], dim=1)
    chosen = m.scores(x).topk(1, dim=1).indices
    return stacked.gather(1, chosen[:, :, None].expand(-1, -1, CLASSES))[:, 0]


def last_of_sorted(m: Chooses, x: Tensor) -> Tensor:
    stacked = torch.stack([net(x) for net in m.nets], dim=1)
    return stacked[torch.arange(len(x)), m.scores(x).argsort(dim=1)[:, -1]]


def median(m: Chooses, x: Tensor) -> Tensor:
    return torch.stack([net(x) for net in m.nets]).median(dim=0).values


def middle_of_sorted(m: Chooses, x: Tensor) -> Tensor:
    return torch.stack([net(x) for net in m.nets], dim=1).sort(dim=1).values[:, 1]


def nested(m: Chooses, x: Tensor) -> Tensor:
    a, b, c = (net(x) for net in m.nets)
    scores = m.scores(x)
    return torch.where(scores[:, :1] > 0, a, torch.where(scores[:, 1:2] > 0, b, c))


def agreement(m: Chooses, x: Tensor) -> Tensor:
    a, b = m.nets[0](x), m.nets[1](x)
    return torch.where((a.argmax(dim=1) == b.argmax(dim=1))[:, None], a, m.nets[2](x))


def larger(m: Chooses, x: Tensor) -> Tensor:
    return torch.maximum(m.nets[0](x), m.nets[1](x))


TWO = (where, masked_write, product, rounded, signed, cast, by_float, by_list, by_if, by_numpy,
       larger)  # fmt: skip
"""They answer with one of the first two networks."""

THREE = (indexed, gathered, top_one, last_of_sorted, median, middle_of_sorted, nested)


def mean(m: Chooses, x: Tensor) -> Tensor:
    return torch.stack([net(x) for net in m.nets]).mean(dim=0)


def reported(m: Chooses, x: Tensor) -> Tensor:
    logits: Tensor = m.nets[0](x)
    m.last = F.one_hot(logits.argmax(dim=1), CLASSES).sum(dim=0)
    return logits


def checked(m: Chooses, x: Tensor) -> Tensor:
    if x.min() < -9 or bool((x > 9).any()):
        raise ValueError("expected images")
    return m.nets[0](x)


def pooled(m: Chooses, x: Tensor) -> Tensor:
    return m.nets[0](F.interpolate(F.max_pool2d(x, 2), size=6))


def softly_routed(m: Chooses, x: Tensor) -> Tensor:
    weights = m.scores(x).softmax(dim=1)
    return (weights[:, :, None] * torch.stack([net(x) for net in m.nets], dim=1)).sum(dim=1)


def voted(m: Chooses, x: Tensor) -> Tensor:
    return sum(F.one_hot(net(x).argmax(dim=1), CLASSES) for net in m.nets).float()


def noisy(m: Chooses, x: Tensor) -> Tensor:
    return checked(m, x) + 0.1 * torch.randn(len(x), CLASSES)


def by_chance(m: Chooses, x: Tensor) -> Tensor:
    return torch.where(torch.rand(len(x), 1) > 0.5, m.nets[0](x), m.nets[1](x))


NONE = (mean, reported, checked, pooled, softly_routed, voted)
