"""Models with a memory of what they were asked. Each copy of one remembers for itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Remembering(nn.Module):
    """Keeps the first of each group of similar queries, and counts the others.

    `similar` says which remembered query a new one is like: -1 where it is like none.
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net
        self.keys: list[Tensor] = []
        self.answers: list[Tensor] = []
        self.counts: list[int] = []

    def key(self, x: Tensor) -> Tensor:
        """What is remembered of images, a row each."""
        return x.detach().flatten(1)

    def similar(self, keys: Tensor) -> list[int]:
        """The remembered query that each new one is like."""
        raise NotImplementedError

    def remembered(self, x: Tensor, logits: Tensor) -> list[int]:
        """Look every image up; those that are new are remembered with their answer."""
        keys = self.key(x)
        known = self.similar(keys) if self.keys else [-1] * len(keys)
        for row, place in enumerate(known):
            if place < 0:
                known[row] = len(self.keys)
                self.keys.append(keys[row])
                self.answers.append(logits[row].detach().clone())
                self.counts.append(0)
            self.counts[known[row]] += 1
        return known

    def first_answers(self, known: list[int]) -> Tensor:
        """What was answered first."""
        return torch.stack([self.answers[place] for place in known])


def nearest(keys: Tensor, bank: Tensor, reach: float, order: float) -> list[int]:
    """The nearest remembered row, or -1 where none is within reach."""
    distance, place = torch.cdist(keys, bank, p=order).min(dim=1)
    return [int(p) if d <= reach else -1 for d, p in zip(distance, place, strict=True)]


class Locked(Remembering):
    """After a few similar queries the answer is locked to the first (Chen et al. 2020 count them).

    The locked answer keeps the gradient of the true one.
    """

    def __init__(self, net: nn.Module, reach: float, after: int):
        super().__init__(net)
        self.reach, self.after = reach, after

    def similar(self, keys: Tensor) -> list[int]:
        """Within a radius in ℓ∞."""
        return nearest(keys, torch.stack(self.keys), self.reach, float("inf"))

    def forward(self, x: Tensor) -> Tensor:
        """Logits, or those of the first similar query."""
        logits: Tensor = self.net(x)
        known = self.remembered(x, logits)
        locked = torch.tensor([self.counts[place] > self.after for place in known])[:, None]
        answers = torch.where(locked, self.first_answers(known), logits.detach())
        return logits + (answers - logits).detach()


class Cached(Remembering):
    """Answers are cached under a coarse key: a similar image gets that, and no gradient.

    A cache in front of a service, as stateful defences are deployed (Li et al. 2022).
    """

    def __init__(self, net: nn.Module, cell: int, reach: float):
        super().__init__(net)
        self.cell, self.reach = cell, reach

    def key(self, x: Tensor) -> Tensor:
        """Mean brightness of cells."""
        return F.avg_pool2d(x.detach(), self.cell).flatten(1)

    def similar(self, keys: Tensor) -> list[int]:
        """Every cell nearly as bright."""
        return nearest(keys, torch.stack(self.keys), self.reach, float("inf"))

    def forward(self, x: Tensor) -> Tensor:
        """Cached logits; those of a new image are its own."""
        logits: Tensor = self.net(x)
        new = len(self.keys)
        known = self.remembered(x, logits)
        hit = torch.tensor([place < new for place in known])[:, None]
        answers = torch.where(hit, self.first_answers(known), logits)
        return answers + 0.0 * logits


class Rejecting(Remembering):
    """Hashes detect a stream of similar queries; it gets the first answer, as a label alone.

    As Blacklight does (Li et al. 2022): an image's hashes are those of its quantised windows; two
    images are similar where most hashes agree.
    """

    def __init__(self, net: nn.Module, levels: int, share: float):
        super().__init__(net)
        self.levels, self.share = levels, share

    def key(self, x: Tensor) -> Tensor:
        """One number for each window of quantised pixels."""
        grid = (x.detach().mean(dim=1, keepdim=True) * self.levels).round()
        windows = F.unfold(grid, 2)
        weights = torch.tensor([1.0, 31.0, 961.0, 29791.0]).view(1, 4, 1)
        return (windows * weights).sum(dim=1)

    def similar(self, keys: Tensor) -> list[int]:
        """The first remembered image with enough hashes in common."""
        agree = (keys[:, None] == torch.stack(self.keys)[None]).float().mean(dim=2)
        best, place = agree.max(dim=1)
        return [int(p) if a >= self.share else -1 for a, p in zip(best, place, strict=True)]

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a new image; of a similar one, the first decision."""
        logits: Tensor = self.net(x)
        new = len(self.keys)
        known = self.remembered(x, logits)
        hit = torch.tensor([place < new for place in known])[:, None]
        first = self.first_answers(known)
        label = 10.0 * F.one_hot(first.argmax(dim=1), first.shape[1]).float()
        return torch.where(hit, label + 0.0 * logits, logits)


class Watching(Locked):
    """Counts similar queries for an alarm that somebody reads; every answer is the true one."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.net(x)
        self.remembered(x, logits)
        return logits


class ExactCache(nn.Module):
    """A cache under an image's exact bytes; what it answers is what it would compute."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net
        self.known: dict[bytes, Tensor] = {}
        self.hits = 0

    def forward(self, x: Tensor) -> Tensor:
        """Logits; the cache's values are the same to the last bits of a batch's size."""
        logits: Tensor = self.net(x)
        for row, image in enumerate(x.detach().numpy()):
            key = image.tobytes()
            if key in self.known:
                self.hits += 1
            self.known[key] = logits[row].detach()
        return logits


class Counting(nn.Module):
    """Counts its queries in a buffer, as monitored services do."""

    queries: Tensor

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net
        self.register_buffer("queries", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        self.queries += len(x)
        logits: Tensor = self.net(x)
        return logits
