"""Searches towards one class at a time, and towards more of them where the boundary is near.

A search on the margin follows whichever class is next at the moment, and may wander between two.
AutoAttack's targeted losses therefore name the class (Croce and Hein 2020). They cost as much for
each class as a whole search, so the classes are taken in the order of the gaps that were seen, and
most queries go to the samples that came nearest to a boundary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flatguard.checks.context import CheckContext, Rows
from flatguard.checks.search.gradients import Gradient, Loss
from flatguard.checks.search.projected_gradient import Search, search
from flatguard.twins.outputs import Outputs, Twin


@dataclass(frozen=True)
class Plan:
    """How queries are spread.

    Attributes:
        steps: gradients towards each class.
        wide: the number of classes that every sample is searched towards.
        nearest: the share of the samples left that are searched towards more of them.
        more: how many more.
    """

    steps: int
    wide: int
    nearest: float
    more: int

    @property
    def cost(self) -> float:
        """At most about how many passes a sample takes on average."""
        return 2 + (self.wide + self.nearest * self.more) * (self.steps + 2)


def search_towards_classes(
    context: CheckContext, twin: Twin, rows: Rows, *, plan: Plan
) -> tuple[Tensor, Tensor]:
    """The best images of all searches, and which of them fool the target.

    A sample's classes are taken in the order of the least gaps that were seen: at the clean image,
    at the audited attack's own example, and at the best image of each search. Each search has a
    random start; where all classes were tried, they begin again.

    Cost: at most `plan.cost` passes a sample.
    """
    best, fooled = rows.images.clone(), torch.zeros_like(rows.labels, dtype=torch.bool)
    gaps = torch.minimum(_gaps(context, rows.images, rows), _gaps(context, rows.adversarial, rows))
    tried = torch.zeros_like(gaps)
    for number in range(plan.wide + plan.more):
        left = (~fooled).nonzero()[:, 0]
        if number >= plan.wide:
            left = _nearest(gaps, left, plan.nearest)
        if not len(left):
            break
        classes = _next_class(gaps[left], tried[left])
        tried[left, classes] += 1
        here = rows[left]
        source = Gradient(twin, towards(classes, here), context.meter, draws=context.draws)
        found = search(context, source, here, Search(plan.steps, random_start=True))
        best[left], fooled[left] = found.images, found.fooled
        gaps[left] = torch.minimum(gaps[left], _gaps(context, found.images, here))
    return best, fooled


def towards(classes: Tensor, rows: Rows) -> Loss:
    """z_t - z_y, with one class t for each sample.

    Args:
        classes: `(n,)`.
        rows: the samples, in rising order. The loss may be asked for some of them.
    """

    def loss(outputs: Outputs, here: Rows) -> Tensor:
        wanted = classes[torch.searchsorted(rows.sample, here.sample)]
        logits = outputs.loss
        return (logits.gather(1, wanted[:, None]) - logits.gather(1, here.labels[:, None]))[:, 0]

    return loss


def _gaps(context: CheckContext, images: Tensor, rows: Rows) -> Tensor:
    """z_y - z_j over each sample's temperature, `(n, k)`; infinite for j = y and for NaN."""
    logits = context.logits(images).double()
    gaps = (logits.gather(1, rows.labels[:, None]) - logits) / rows.temperature[:, None]
    gaps = torch.nan_to_num(gaps, nan=torch.inf)
    return gaps.scatter(1, rows.labels[:, None], torch.inf)


def _nearest(gaps: Tensor, left: Tensor, share: float) -> Tensor:
    """The share of these samples that came nearest to a boundary, in rising order."""
    order = gaps[left].amin(dim=1).argsort(stable=True)
    return left[order[: round(share * len(left))]].sort().values


def _next_class(gaps: Tensor, tried: Tensor) -> Tensor:
    """The class with the least gap among those that were tried least, `(n,)`."""
    others = gaps.isfinite()
    least = tried.masked_fill(~others, torch.inf).amin(dim=1, keepdim=True)
    return gaps.masked_fill(tried > least, torch.inf).argmin(dim=1)
