"""Heads without weights, heads that bound what they say, and heads with fewer classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.masking_zoo.defences.features import head_of


class Neighbours(nn.Module):
    """A bank of features with labels (deep k-nearest neighbours, Papernot and McDaniel 2018)."""

    bank: Tensor
    classes: Tensor

    def __init__(self, net: nn.Module, images: Tensor, labels: Tensor):
        super().__init__()
        self.body, _ = head_of(net)
        with torch.no_grad():
            self.register_buffer("bank", self.body.eval()(images))
        self.register_buffer("classes", F.one_hot(labels).float())

    def distances(self, x: Tensor) -> Tensor:
        """Squared, `(n, bank)`, over the mean squared feature."""
        h = self.body(x)
        lengths = self.bank.pow(2).sum(dim=1)
        found: Tensor = h.pow(2).sum(dim=1, keepdim=True) + lengths - 2 * h @ self.bank.T
        return found.clamp(min=0) / lengths.mean()


class NearestDistance(Neighbours):
    """Each class's score is minus the distance to its nearest example."""

    def forward(self, x: Tensor) -> Tensor:
        """Minus squared distances."""
        far = self.distances(x)[:, :, None] + 1e4 * (1 - self.classes)
        return -10 * far.min(dim=1).values


class NeighbourVote(Neighbours):
    """The k nearest examples vote; a count has no gradient, the features keep the graph alive."""

    def __init__(self, net: nn.Module, images: Tensor, labels: Tensor, k: int):
        super().__init__(net, images, labels)
        self.k = k

    def forward(self, x: Tensor) -> Tensor:
        """Votes; the nearest example breaks ties."""
        far = self.distances(x)
        nearest = far.topk(self.k, dim=1, largest=False).indices
        votes = self.classes[nearest].sum(dim=1) + 0.1 * self.classes[nearest[:, 0]]
        return votes + 0.0 * far.sum(dim=1, keepdim=True)


class KernelDensity(Neighbours):
    """A kernel density for each class, with Gaussian kernels (as in Feinman et al. 2017).

    `logs` scores by log densities. Without it the scores are the posterior probabilities, and where
    the kernels are narrow they are 0 and 1 in single precision.
    """

    def __init__(self, net: nn.Module, images: Tensor, labels: Tensor, width: float, logs: bool):
        super().__init__(net, images, labels)
        self.width, self.logs = width, logs

    def forward(self, x: Tensor) -> Tensor:
        """Log densities, or posterior probabilities."""
        inside = -self.distances(x)[:, :, None] / (2 * self.width**2)
        density = torch.logsumexp(inside + (self.classes - 1) * 1e6, dim=1)
        return density if self.logs else torch.softmax(density, dim=1)


class LogDensity(nn.Module):
    """The log densities of another head's bank: smooth where that head votes or saturates."""

    def __init__(self, head: Neighbours, width: float):
        super().__init__()
        self.head, self.width = head, width

    def forward(self, x: Tensor) -> Tensor:
        """Log densities."""
        inside = -self.head.distances(x)[:, :, None] / (2 * self.width**2)
        return torch.logsumexp(inside + (self.head.classes - 1) * 1e6, dim=1)


class Prototypes(Neighbours):
    """Minus the scaled distance to each class's mean feature (Snell et al. 2017)."""

    means: Tensor

    def __init__(self, net: nn.Module, images: Tensor, labels: Tensor, scale: float):
        super().__init__(net, images, labels)
        self.scale = scale
        counts = self.classes.sum(dim=0)[:, None]
        self.bank = (self.classes.T @ self.bank) / counts
        self.classes = torch.eye(len(self.bank))

    def forward(self, x: Tensor) -> Tensor:
        """Scores."""
        return -self.scale * self.distances(x)


class BoundedLogs(nn.Module):
    """Log-probabilities between two bounds, as bounded losses have them (Yang et al. 2021).

    Below and above its bounds a log-probability has no gradient.
    """

    def __init__(self, net: nn.Module, low: float, high: float = 0.0):
        super().__init__()
        self.net = net
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        """Clamped log-probabilities, and a millionth of the logits that keeps the order."""
        z: Tensor = self.net(x)
        return F.log_softmax(z, dim=1).clamp(self.low, self.high) + 1e-6 * z.detach()


class Grouped(nn.Module):
    """Fewer classes: each is the log of its members' summed probabilities."""

    groups: Tensor

    def __init__(self, net: nn.Module, groups: tuple[int, ...]):
        super().__init__()
        self.net = net
        self.register_buffer("groups", F.one_hot(torch.tensor(groups)).T.bool())

    def forward(self, x: Tensor) -> Tensor:
        """One score a group."""
        z: Tensor = self.net(x)[:, None].expand(-1, len(self.groups), -1)
        return z.masked_fill(~self.groups, float("-inf")).logsumexp(dim=2)


class Constant(nn.Module):
    """Always the same class, whatever the image: the network's voice is multiplied by a factor."""

    scores: Tensor

    def __init__(self, net: nn.Module, answer: int, voice: float = 0.0):
        super().__init__()
        self.net, self.voice = net, voice
        self.register_buffer("scores", 5.0 * F.one_hot(torch.tensor(answer), 10).float())

    def forward(self, x: Tensor) -> Tensor:
        """Constant scores."""
        scores: Tensor = self.scores + self.voice * torch.tanh(self.net(x))
        return scores


class Reporting(nn.Module):
    """An ordinary model that keeps its last decisions and confidences for a report."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net
        self.decisions: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.net(x)
        self.decisions = logits.argmax(dim=1).tolist()
        return logits
