"""How far images are from the other side of a gate."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Slack:
    """How far images are from the other side of forced gates: positive on the forced side."""

    whole: list[Tensor] = field(default_factory=list)
    single: dict[Hashable, list[Tensor]] = field(default_factory=dict)

    def of(self, rows: int) -> Tensor | None:
        """The least over the gates, each divided by its own spread, `(rows,)`; None: unknown."""
        batches = [part for part in self.whole if part.requires_grad]
        for parts in self.single.values():
            if len(parts) == rows and all(part.requires_grad for part in parts):
                batches.append(torch.stack(parts))
        if not batches:
            return None
        scaled = [part / part.detach().std().clamp_min(1e-12) for part in batches]
        return torch.stack(scaled).amin(dim=0)


@dataclass
class Answer:
    """The index of the highest of some scores, held so that its id stays its own."""

    index: Tensor
    scores: Tensor

    def leads(self) -> Tensor:
        """Each score minus the best other one."""
        top = self.scores.topk(2, dim=1)
        is_top = self.scores == top.values[:, :1]
        return self.scores - torch.where(is_top, top.values[:, 1:], top.values[:, :1])
