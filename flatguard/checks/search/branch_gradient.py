"""A direction for a search that makes several branches of a switch wrong, or one and its gate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flatguard.checks.context import Meter, Rows
from flatguard.checks.search.gradients import View, gradient_of
from flatguard.switches.branches import Switch

_WRONG_ENOUGH = -0.5
"""A branch that is wrong by this much of its logits' spread is pushed no further."""


@dataclass(frozen=True)
class Branched:
    """What all branches do to some images.

    Attributes:
        margins: `(branches, n)`, each over the spread of the branch's logits.
        slacks: for each branch `(n,)`; None where its gates have no known slack.
    """

    margins: Tensor
    slacks: list[Tensor | None]


BranchLoss = Callable[[Branched], Tensor]


def all_wrong(found: Branched) -> Tensor:
    """Rises until the branch that is furthest from wrong is wrong, too."""
    return -found.margins.amax(dim=0)


def mean_wrong(found: Branched) -> Tensor:
    """Rises with each branch's loss, until each of them is clearly wrong."""
    return -found.margins.clamp_min(_WRONG_ENOUGH).mean(dim=0)


def one_wrong(number: int) -> BranchLoss:
    """The loss of one branch alone."""

    def loss(found: Branched) -> Tensor:
        return -found.margins[number]

    return loss


def chosen_and_wrong(number: int) -> BranchLoss:
    """Rises until the gates choose this branch, and it is wrong."""

    def loss(found: Branched) -> Tensor:
        slack = found.slacks[number]
        if slack is None:
            return -found.margins[number]
        return -torch.maximum(found.margins[number], -slack.to(found.margins.dtype))

    return loss


class BranchGradient:
    """A gradient source along a loss of all branches. What fools the target decides.

    Args:
        switch: with at least two branches.
        only: the branches that the loss reads; the others are not computed.
        loss: of their margins and slacks.
        meter: counts the rows that go forward.
    """

    def __init__(self, switch: Switch, only: list[int], loss: BranchLoss, meter: Meter):
        self._branches = [switch.branches[number] for number in only]
        self._model = switch.branches[0].model
        self._loss, self._meter = loss, meter

    def __call__(self, images: Tensor, rows: Rows) -> View:
        """Cost: a forward and backward pass for each branch, and a forward pass of the target."""
        x = images.detach().clone().requires_grad_(True)
        self._meter.add((len(self._branches) + 1) * len(x))
        passes = [branch(x) for branch in self._branches]
        margins = torch.stack([_margin(found.logits, rows) for found in passes])
        value = self._loss(Branched(margins, [found.slack for found in passes]))
        gradient = torch.nan_to_num(gradient_of(value.sum(), x), nan=0.0, posinf=0.0, neginf=0.0)
        with torch.no_grad():
            decides = self._model(images)
        nearest = -value.detach().double()
        fooled = decides.argmax(dim=1) != rows.labels
        return View(gradient, fooled, nearest)


def _margin(logits: Tensor, rows: Rows) -> Tensor:
    spread = logits.detach().std(dim=1).clamp_min(1e-12)
    own = logits.gather(1, rows.labels[:, None])[:, 0]
    others = logits.scatter(1, rows.labels[:, None], float("-inf"))
    return (own - others.amax(dim=1)) / spread


def choices(switch: Switch, images: Tensor, meter: Meter) -> Tensor:
    """The branch whose logits are the nearest to the target's, `(n,)`.

    Cost: a forward pass of each branch, and one of the target.
    """
    meter.add((len(switch.branches) + 1) * len(images))
    with torch.no_grad():
        decides = switch.branches[0].model(images)
        gaps = [(branch(images).logits - decides).abs().amax(dim=1) for branch in switch.branches]
    return torch.stack(gaps).argmin(dim=0)
