r"""The attack that knows the detector: wrong, unflagged, and within budget, all at once.

Two ways, each on its own from the clean image and then from random starts:

- *joint* (Carlini & Wagner 2017; Tramèr et al. 2020): descend
  $m(x) + \lambda\,u(x)$, where m is the margin of the true class and
  $u = |\log\kappa(x) - \text{median}| / \text{width}$ the distance from the clean median, with λ
  tuned for each sample: more where it is wrong but flagged, less where it is not wrong;
- *orthogonal* (Bryniarski et al. 2022): descend the margin while the image is not wrong, and u
  while it is wrong but flagged, each along what is left of its gradient after removing the
  other's direction, so that neither undoes the other. On every second start nothing is removed,
  which is their *selective* attack.

An image that is wrong and unflagged in a fresh forward pass is kept, and its sample rests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flatguard.detection.scores import ForwardPass, forward_pass
from flatguard.detection.thresholds import ALL, Thresholds
from flatguard.environment.devices import device_of
from flatguard.environment.randomness import seeded
from flatguard.environment.torch_state import own_state
from flatguard.errors import UsageError, memory_errors
from flatguard.execution.progress import ProgressReporter, Silent
from flatguard.geometry.ball import SEARCHED, direction, project, random_step
from flatguard.geometry.budget import Budget
from flatguard.geometry.decision import margin
from flatguard.geometry.distance import distance
from flatguard.targets.target import Target

STEP = 0.1
"""First step as a share of the radius; it falls along a line to a tenth of itself."""

TUNING = 1.15
"""By this factor λ goes up or down at every step."""

CONFIDENT = 1.0
"""A sample that is wrong by so much, in median clean margins, gains nothing from more."""


@dataclass(frozen=True)
class Effort:
    """How hard the adaptive attack tries.

    Attributes:
        steps: gradients of each way and start.
        starts: how often each way begins: at the image, then at random points.
    """

    steps: int = 60
    starts: int = 2


@dataclass(frozen=True)
class Evaded:
    """What an adaptive attack on n images achieved.

    Attributes:
        images: `(n, ...)`: the evading image, else the wrong but flagged one, else the clean one.
        evaded: `(n,)` bool, wrong and unflagged in a fresh pass, within budget and box.
        misclassified: `(n,)` bool, wrong at all at some step.
        way: which way evaded, `joint` or `orthogonal`; an empty string where none did.
    """

    images: Tensor
    evaded: np.ndarray
    misclassified: np.ndarray
    way: np.ndarray


@dataclass
class _Clean:
    """Per predicted class: bounds, clean median and half-width of log κ, as tensors to index."""

    lower: Tensor
    upper: Tensor
    median: Tensor
    width: Tensor
    by_class: bool

    @classmethod
    def of(cls, found: Thresholds, classes: int, device: torch.device) -> _Clean:
        keys = [ALL] if ALL in found.bounds else list(range(classes))
        clean = [np.median(found.calibration[key]) for key in keys]
        spread = [np.subtract(*np.quantile(found.calibration[key], (0.75, 0.25))) for key in keys]

        def column(values: Any) -> Tensor:
            return torch.as_tensor(np.array(values), dtype=torch.float64, device=device)

        return cls(
            column([found.bounds[key].lower for key in keys]),
            column([found.bounds[key].upper for key in keys]),
            column(clean),
            column(np.maximum(spread, 1e-12)),
            by_class=ALL not in found.bounds,
        )

    def rows(self, values: Tensor, predicted: Tensor) -> Tensor:
        return values[predicted] if self.by_class else values.expand(len(predicted))

    def flagged(self, seen: ForwardPass) -> Tensor:
        kappa, predicted = seen.log_kappa, seen.predicted
        low, high = self.rows(self.lower, predicted), self.rows(self.upper, predicted)
        return ~((kappa >= low) & (kappa <= high))

    def away(self, seen: ForwardPass) -> Tensor:
        median = self.rows(self.median, seen.predicted)
        return (seen.log_kappa - median).abs() / self.rows(self.width, seen.predicted)


@own_state()
def adaptive_attack(
    target: Target,
    thresholds: Thresholds,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    effort: Effort,
    seed: int,
    progress: ProgressReporter | None = None,
) -> Evaded:
    """ForwardPass for images that are wrong, pass the detector, and lie within the budget.

    Args:
        target: prepared, with a head.
        thresholds: of the detector that is to be evaded.
        images: `(n, ...)` clean, that the target is right about.
        labels: `(n,)` int64.
        budget: Linf, L2 or L1 with a radius.
        effort: steps and starts.
        seed: of the random starts.
        progress: is told of the samples done.

    Raises:
        UsageError: the budget has no radius, or another norm.

    Cost: at most 2 · starts · steps forward and backward passes an image, and as many forward
    ones; the orthogonal way's need two backward passes. Fewer, the sooner it succeeds.
    """
    if budget.eps is None or budget.norm not in SEARCHED:
        raise UsageError(
            f"the adaptive attack needs a radius in {', '.join(SEARCHED)}, got {budget}"
        )
    progress = progress or Silent()
    parts = []
    device = device_of(target.model)
    for number, start in enumerate(range(0, len(images), 128)):
        rows = slice(start, start + 128)
        attack = _Attack(
            target, thresholds, images[rows].to(device), labels[rows].to(device), budget, effort
        )
        where = f"{target.name} on {len(images[rows])} images at once"
        with memory_errors(where), seeded(seed + number, device):
            parts.append(attack.run())
        progress.advanced(len(parts[-1].evaded))
    return Evaded(
        torch.cat([part.images for part in parts]) if parts else images,
        *(
            np.concatenate([getattr(part, name) for part in parts] or [np.zeros(0, bool)])
            for name in ("evaded", "misclassified", "way")
        ),
    )


class _Attack:
    """One batch."""

    def __init__(
        self,
        target: Target,
        thresholds: Thresholds,
        images: Tensor,
        labels: Tensor,
        budget: Budget,
        effort: Effort,
    ):
        assert budget.eps is not None, "checked by adaptive_attack"
        self.target, self.budget, self.effort = target, budget, effort
        self.eps: float = budget.eps
        self.clean, self.labels = images, labels
        with torch.no_grad():
            seen = forward_pass(target, images)
        self.known = _Clean.of(thresholds, seen.logits.shape[1], images.device)
        typical = margin(seen.logits, labels).abs().median()
        self.unit = typical.clamp_min(1e-12)
        self.images = images.clone()
        self.evaded = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        self.wrong = self.evaded.clone()
        self.way = np.full(len(images), "", dtype=object)

    def run(self) -> Evaded:
        for start in range(self.effort.starts):
            for way in ("joint", "orthogonal"):
                left = (~self.evaded).nonzero()[:, 0]
                if not len(left):
                    break
                begin = self.clean[left]
                if start:
                    moved = begin + random_step(begin, self.eps, self.budget.norm)
                    begin = project(moved, begin, self.eps, self.budget.norm)
                self._descend(way, left, begin, remove=start % 2 == 0)
        return Evaded(
            self.images.cpu(),
            self.evaded.cpu().numpy(),
            self.wrong.cpu().numpy(),
            self.way.astype(str),
        )

    def _descend(self, way: str, active: Tensor, images: Tensor, remove: bool) -> None:
        weight = torch.ones(len(active), dtype=torch.float64, device=images.device)
        for step in range(self.effort.steps + 1):
            images = images.detach().requires_grad_(True)
            seen = forward_pass(self.target, images)
            lead = margin(seen.logits, self.labels[active])
            away, flagged = self.known.away(seen), self.known.flagged(seen)
            # In float64 a tie of float32 logits is none; argmax decides, as for every verdict.
            wrong = seen.predicted != self.labels[active]
            left = ~self._kept(way, active, images.detach(), wrong, flagged)
            if not bool(left.any()) or step == self.effort.steps:
                return
            if way == "joint":
                slope = self._joint(images, lead, away, weight)
                weight = torch.where(wrong & flagged, weight * TUNING, weight)
                weight = torch.where(wrong, weight, weight / TUNING)
            else:
                slope = self._orthogonal(images, lead, away, wrong, remove)
            length = self.eps * STEP * (1.0 - 0.9 * step / self.effort.steps)
            moved = images.detach() - length * direction(slope, self.budget.norm)
            clean = self.clean[active]
            images = project(moved, clean, self.eps, self.budget.norm)[left]
            active, weight = active[left], weight[left]

    def _joint(self, images: Tensor, lead: Tensor, away: Tensor, weight: Tensor) -> Tensor:
        capped = (lead / self.unit).clamp_min(-CONFIDENT)
        return _gradient((capped + weight * _finite(away)).sum(), images)

    def _orthogonal(
        self, images: Tensor, lead: Tensor, away: Tensor, wrong: Tensor, remove: bool
    ) -> Tensor:
        to_wrong = _gradient((lead / self.unit).sum(), images, keep=True)
        to_pass = _gradient(_finite(away).sum(), images)
        is_wrong = wrong.view(-1, *[1] * (images.ndim - 1))
        if not remove:
            return torch.where(is_wrong, to_pass, to_wrong)
        return torch.where(is_wrong, _without(to_pass, to_wrong), _without(to_wrong, to_pass))

    def _kept(
        self, way: str, active: Tensor, images: Tensor, wrong: Tensor, flagged: Tensor
    ) -> Tensor:
        """Which active samples evade now; they keep the image that did it."""
        self.images[active[wrong]] = images[wrong]
        self.wrong[active[wrong]] = True
        found = (wrong & ~flagged).nonzero()[:, 0]
        done = torch.zeros_like(wrong)
        if len(found):
            done[found] = self._verified(images[found], active[found])
            sure = active[done]
            self.images[sure], self.evaded[sure] = images[done], True
            self.way[sure.cpu().numpy()] = way
        return done

    def _verified(self, images: Tensor, numbers: Tensor) -> Tensor:
        """In a fresh pass: wrong, unflagged, in the box, and within the budget."""
        with torch.no_grad():
            seen = forward_pass(self.target, images)
        flat = images.flatten(1)
        inside = ((flat >= 0) & (flat <= 1)).all(dim=1)
        inside &= self.budget.contains(distance(images, self.clean[numbers], self.budget.norm))
        return inside & (seen.predicted != self.labels[numbers]) & ~self.known.flagged(seen)


def _gradient(value: Tensor, images: Tensor, keep: bool = False) -> Tensor:
    """The gradient, 0 where it is not finite: a saturated sample must not spoil its step."""
    (found,) = torch.autograd.grad(value, images, retain_graph=keep)
    return found.nan_to_num(0.0, 0.0, 0.0)


def _finite(values: Tensor) -> Tensor:
    """Unmeasured or infinite rows drop out of a sum."""
    return torch.where(values.isfinite(), values, torch.zeros_like(values))


def _without(gradient: Tensor, other: Tensor) -> Tensor:
    """What is left of a gradient after removing its part along another, sample by sample."""
    flat, away = gradient.flatten(1).double(), other.flatten(1).double()
    size = away.square().sum(dim=1, keepdim=True).clamp_min(1e-60)
    left = flat - (flat * away).sum(dim=1, keepdim=True) / size * away
    return left.to(gradient.dtype).view_as(gradient)
