"""Defences that choose between networks, and harmless models that look like them.

Every switch knows its branches (`branches`) and how far an image is on the side of each
(`closeness`); the reference attack reads both.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Switch(nn.Module):
    """A choice between networks; by default each network is a branch."""

    def __init__(self, nets: list[nn.Module]):
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def branches(self, x: Tensor) -> list[Tensor]:
        """The logits that the model may answer with."""
        return [net(x) for net in self.nets]

    def closeness(self, x: Tensor) -> list[Tensor]:
        """How far each image is on the side of each branch; empty where no formula tells."""
        return []


class Wave(Switch):
    """A fast wave of the image decides between two networks: `torch.where`."""

    direction: Tensor

    def __init__(self, nets: list[nn.Module], shape: tuple[int, ...], frequency: float, seed: int):
        super().__init__(nets)
        self.frequency = frequency
        size = shape[0] * shape[1] * shape[2]
        seeded = torch.Generator().manual_seed(seed)
        self.register_buffer("direction", torch.randn(size, generator=seeded) / size**0.5)

    def score(self, x: Tensor) -> Tensor:
        """Of each image, between -1 and 1."""
        return torch.sin(self.frequency * (x.flatten(1) @ self.direction))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the network that the wave's sign names."""
        first, second = self.branches(x)
        return torch.where((self.score(x) > 0)[:, None], first, second)

    def closeness(self, x: Tensor) -> list[Tensor]:
        """The wave."""
        score = self.score(x)
        return [score, -score]


class OneByOne(Wave):
    """The same with a Python `if` for each image."""

    def forward(self, x: Tensor) -> Tensor:
        """Each image is shown to one network alone."""
        scores = self.score(x)
        found = []
        for image, score in zip(x, scores, strict=True):
            chosen = self.nets[0] if float(score) > 0 else self.nets[1]
            found.append(chosen(image[None]))
        return torch.cat(found)


class Routed(Switch):
    """A linear gating network routes each image to one of several networks: `argmax`, indexing."""

    gating: Tensor

    def __init__(self, nets: list[nn.Module], shape: tuple[int, ...], seed: int):
        super().__init__(nets)
        size = shape[0] * shape[1] * shape[2]
        seeded = torch.Generator().manual_seed(seed)
        gating = torch.randn(size, len(nets), generator=seeded)
        self.register_buffer("gating", gating - gating.mean(dim=0))

    def score(self, x: Tensor) -> Tensor:
        """Of each network."""
        scores: Tensor = x.flatten(1) @ self.gating
        return scores

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the network with the highest score."""
        stacked = torch.stack(self.branches(x), dim=1)
        return stacked[torch.arange(len(x)), self.score(x).argmax(dim=1)]

    def closeness(self, x: Tensor) -> list[Tensor]:
        """By how much each score exceeds the best other one."""
        scores = self.score(x)
        found = []
        for number in range(scores.shape[1]):
            others = [i for i in range(scores.shape[1]) if i != number]
            found.append(scores[:, number] - scores[:, others].amax(dim=1))
        return found


class TopTwo(Routed):
    """Hard routing to the best two of several networks, mixed by the softmax of their scores."""

    def forward(self, x: Tensor) -> Tensor:
        """The weighted mean of two networks' logits."""
        stacked = torch.stack(self.branches(x), dim=1)
        scores, chosen = self.score(x).topk(2, dim=1)
        picked = stacked.gather(1, chosen[:, :, None].expand(-1, -1, stacked.shape[2]))
        return (scores.softmax(dim=1)[:, :, None] * picked).sum(dim=1)

    def closeness(self, x: Tensor) -> list[Tensor]:
        """Two networks answer together."""
        return []


class SecondOpinion(Switch):
    """Where the answer depends on a shift of the image, another network answers: a masked write."""

    def __init__(self, nets: list[nn.Module], threshold: float):
        super().__init__(nets)
        self.threshold = threshold

    def doubt(self, x: Tensor) -> Tensor:
        """The distance of the probabilities before and after a shift by one pixel."""
        moved = torch.roll(x, 1, dims=3)
        gap: Tensor = self.nets[0](x).softmax(dim=1) - self.nets[0](moved).softmax(dim=1)
        return gap.abs().sum(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """The first network's logits, or the second one's."""
        logits: Tensor = self.nets[0](x).clone()
        with torch.no_grad():
            doubtful = self.doubt(x) > self.threshold
        if bool(doubtful.any()):
            logits[doubtful] = self.nets[1](x[doubtful])
        return logits

    def closeness(self, x: Tensor) -> list[Tensor]:
        """On which side of the threshold."""
        doubt = self.doubt(x) - self.threshold
        return [-doubt, doubt]


class Detector(SecondOpinion):
    """Suspicious images, whose answer changes with fewer bits, get a constant: `masked_fill`."""

    def doubt(self, x: Tensor) -> Tensor:
        """The distance of the probabilities before and after a squeezing to 3 bits."""
        squeezed = x + (torch.round(x * 7) / 7 - x).detach()
        gap: Tensor = self.nets[0](x).softmax(dim=1) - self.nets[0](squeezed).softmax(dim=1)
        return gap.abs().sum(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, or zeros."""
        doubtful = self.doubt(x) > self.threshold
        logits: Tensor = self.nets[0](x)
        return logits.masked_fill(doubtful[:, None], 0.0)

    def branches(self, x: Tensor) -> list[Tensor]:
        """The network, and equal logits: class 0."""
        logits = self.nets[0](x)
        return [logits, 0.0 * logits - 1e-3 * torch.arange(logits.shape[1])]


class MoreConfident(Switch):
    """The network with the higher confidence answers: a product with a mask of 0 and 1."""

    def forward(self, x: Tensor) -> Tensor:
        """m · a + (1 - m) · b."""
        first, second = self.branches(x)
        sure = first.softmax(dim=1).amax(dim=1) > second.softmax(dim=1).amax(dim=1)
        mask = sure.float()[:, None]
        return mask * first + (1.0 - mask) * second

    def closeness(self, x: Tensor) -> list[Tensor]:
        """By how much one is more confident."""
        first, second = (z.log_softmax(dim=1).amax(dim=1) for z in self.branches(x))
        return [first - second, second - first]


class Median(Switch):
    """The median of the members' logits, class by class."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return torch.stack(self.branches(x)).median(dim=0).values


class ByClass(Switch):
    """The class that the first network sees names the network that answers."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the network whose number is the class, modulo their count."""
        found = self.branches(x)
        chosen = found[0].detach().argmax(dim=1) % len(found)
        index = chosen[None, :, None].expand(1, -1, found[0].shape[1])
        return torch.stack(found).gather(0, index)[0]


class Agreement(Switch):
    """Where two networks disagree, the third answers."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the first or the third network."""
        first, second, third = self.branches(x)
        agree = first.argmax(dim=1) == second.argmax(dim=1)
        return torch.where(agree[:, None], first, third)


class MeanOfLogits(Switch):
    """An ensemble by the mean: no switch."""

    def forward(self, x: Tensor) -> Tensor:
        """Mean logits."""
        return torch.stack(self.branches(x)).mean(dim=0)


class SoftRouting(Routed):
    """A mixture with the softmax of the scores as weights: no switch."""

    def forward(self, x: Tensor) -> Tensor:
        """The weighted mean of all networks' logits."""
        weights = self.score(x).softmax(dim=1)
        return (weights[:, :, None] * torch.stack(self.branches(x), dim=1)).sum(dim=1)


class MaxOfHeads(Switch):
    """The larger logit of two heads, class by class; the second head sees a smoothed image."""

    def branches(self, x: Tensor) -> list[Tensor]:
        """The network on the image, and on its neighbour means."""
        smooth = 0.9 * x + 0.1 * F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        return [self.nets[0](x), self.nets[0](smooth)]

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return torch.stack(self.branches(x)).amax(dim=0)


class Reporting(Switch):
    """Counts its answers by `argmax` and checks its input: nothing is chosen."""

    def __init__(self, nets: list[nn.Module]):
        super().__init__(nets)
        self.answers = torch.zeros(1)

    def forward(self, x: Tensor) -> Tensor:
        """The network's logits."""
        if bool(x.min() < -0.5) or bool(x.max() > 1.5):
            raise ValueError("expected images in [0, 1]")
        logits: Tensor = self.nets[0](x)
        self.answers = F.one_hot(logits.argmax(dim=1), logits.shape[1]).sum(dim=0)
        return logits


class ScaledWave(Wave):
    """A wave chooses between logits and twice these logits: a switch that changes no decision."""

    def branches(self, x: Tensor) -> list[Tensor]:
        """The same decision twice."""
        logits = self.nets[0](x)
        return [logits, 2.0 * logits]


class BrighterRouted(Routed):
    """Routes to the same network with slightly different light: a switch with little effect."""

    def __init__(self, nets: list[nn.Module], shape: tuple[int, ...], seed: int):
        super().__init__([nets[0]] * 3, shape, seed)

    def branches(self, x: Tensor) -> list[Tensor]:
        """One network, three lights."""
        return [self.nets[0](x * light) for light in (0.97, 1.0, 1.03)]
