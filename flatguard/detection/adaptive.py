r"""The adaptive attack, which knows the detector: misclassified, unflagged and within budget.

It has two methods. Each starts at the clean image and then at random points:

- *joint* (Carlini & Wagner 2017; Tramèr et al. 2020): descend
  $m(x) + \lambda\,u(x)$, where m is the margin of the true class and
  $u = |\log\kappa(x) - \text{median}| / \text{width}$ the distance from the clean median. λ is
  tuned for each sample: it rises while the sample is misclassified but flagged, and falls while
  it is correctly classified;
- *orthogonal* (Bryniarski et al. 2022): descend the margin while the image is correctly
  classified, and u while it is misclassified but flagged. The part of each gradient along the
  other is removed, so that neither step undoes the other. On every second start nothing is
  removed, which is their *selective* attack.

A sample is done when its image is misclassified and unflagged in a fresh forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flatguard.detection.scores import ScoredPass, scored_pass
from flatguard.detection.thresholds import ALL, Thresholds
from flatguard.environment.caller import own_process
from flatguard.environment.devices import device_of
from flatguard.environment.randomness import seeded
from flatguard.errors import UsageError, memory_errors
from flatguard.execution.progress import ProgressReporter, Silent
from flatguard.geometry.ball import SEARCHED, direction, project, random_step
from flatguard.geometry.budget import Budget
from flatguard.geometry.decision import margin
from flatguard.geometry.distance import within
from flatguard.targets.target import Target

_STEP = 0.1
"""The first step as a share of the radius. It decays linearly to a tenth of that."""

_TUNING = 1.15
"""The factor by which λ rises or falls at every step."""

_CONFIDENT = 1.0
"""The margin, in median clean margins, beyond which more misclassification gains nothing."""

_BATCH = 128


@dataclass(frozen=True)
class AttackEffort:
    """How hard the adaptive attack tries.

    Attributes:
        steps: gradients of each method and start.
        starts: how often each method starts: at the image, then at random points.
    """

    steps: int = 60
    starts: int = 2


@dataclass(frozen=True)
class Evaded:
    """The result of an adaptive attack on n images.

    Attributes:
        images: `(n, ...)`: the evading image; without one, an image that is misclassified but
            flagged; without that, the clean image.
        evaded: `(n,)` bool, misclassified and unflagged in a fresh pass, within budget and box.
        misclassified: `(n,)` bool, misclassified at any step.
        way: which method evaded, `joint` or `orthogonal`; empty where none did.
    """

    images: Tensor
    evaded: np.ndarray
    misclassified: np.ndarray
    way: np.ndarray


class _Bounds:
    """For each predicted class: bounds, clean median and spread of the score, as tensors."""

    def __init__(self, thresholds: Thresholds, classes: int, device: torch.device):
        self.by_class = ALL not in thresholds.bounds
        keys = list(range(classes)) if self.by_class else [ALL]
        clean = [thresholds.calibration[key] for key in keys]
        rows = [
            (*thresholds.bounds[key].ends, np.median(scores), *np.quantile(scores, (0.25, 0.75)))
            for key, scores in zip(keys, clean, strict=True)
        ]
        columns = torch.tensor(np.array(rows), dtype=torch.float64, device=device)
        self.lower, self.upper, self.median, low, high = columns.T
        self.width = (high - low).clamp_min(1e-12)

    def _rows(self, values: Tensor, seen: ScoredPass) -> Tensor:
        return values[seen.predicted] if self.by_class else values.expand(len(seen.logits))

    def flagged(self, seen: ScoredPass) -> Tensor:
        low, high = self._rows(self.lower, seen), self._rows(self.upper, seen)
        return ~((seen.score >= low) & (seen.score <= high))

    def distance(self, seen: ScoredPass) -> Tensor:
        median, width = self._rows(self.median, seen), self._rows(self.width, seen)
        return (seen.score - median).abs() / width


@own_process()
def adaptive_attack(
    target: Target,
    thresholds: Thresholds,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    effort: AttackEffort,
    seed: int,
    progress: ProgressReporter | None = None,
) -> Evaded:
    """Search for images that are misclassified, unflagged and within the budget.

    Args:
        target: prepared.
        thresholds: of the detector to evade.
        images: `(n, ...)` clean, that the target classifies correctly.
        labels: `(n,)` int64.
        budget: Linf, L2 or L1 with a radius.
        effort: steps and starts.
        seed: of the random starts.
        progress: receives progress updates.

    Raises:
        UsageError: the budget has no radius, or another norm.

    Cost: at most 2 · starts · steps forward and backward passes an image, and as many forward
    passes; the orthogonal method takes two backward passes a step. Less for easy images.
    """
    if budget.eps is None or budget.norm not in SEARCHED:
        raise UsageError(
            f"the adaptive attack needs a radius in {', '.join(SEARCHED)}, got {budget}"
        )
    progress = progress or Silent()
    parts = []
    device = device_of(target.model)
    for number, start in enumerate(range(0, len(images), _BATCH)):
        rows = slice(start, start + _BATCH)
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
    """The attack on one batch."""

    def __init__(
        self,
        target: Target,
        thresholds: Thresholds,
        images: Tensor,
        labels: Tensor,
        budget: Budget,
        effort: AttackEffort,
    ):
        assert budget.eps is not None, "checked by adaptive_attack"
        self.target, self.budget, self.effort = target, budget, effort
        self.eps: float = budget.eps
        self.clean, self.labels = images, labels
        with torch.no_grad():
            seen = scored_pass(target, images)
        self.known = _Bounds(thresholds, seen.logits.shape[1], images.device)
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
            seen = scored_pass(self.target, images)
            lead = margin(seen.logits, self.labels[active])
            away, flagged = self.known.distance(seen), self.known.flagged(seen)
            # argmax decides, as in every verdict; float32 logits can tie.
            wrong = seen.predicted != self.labels[active]
            left = ~self._kept(way, active, images.detach(), wrong, flagged)
            if not bool(left.any()) or step == self.effort.steps:
                return
            if way == "joint":
                slope = self._joint(images, lead, away, weight)
                weight = torch.where(wrong & flagged, weight * _TUNING, weight)
                weight = torch.where(wrong, weight, weight / _TUNING)
            else:
                slope = self._orthogonal(images, lead, away, wrong, remove)
            length = self.eps * _STEP * (1.0 - 0.9 * step / self.effort.steps)
            moved = images.detach() - length * direction(slope, self.budget.norm)
            clean = self.clean[active]
            images = project(moved, clean, self.eps, self.budget.norm)[left]
            active, weight = active[left], weight[left]

    def _joint(self, images: Tensor, lead: Tensor, away: Tensor, weight: Tensor) -> Tensor:
        capped = (lead / self.unit).clamp_min(-_CONFIDENT)
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
        """Which active samples evade now; their images are stored."""
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
        """Whether each is misclassified and unflagged in a fresh pass, within box and budget."""
        with torch.no_grad():
            seen = scored_pass(self.target, images)
        inside = within(images, self.clean[numbers], self.budget)
        return inside & (seen.predicted != self.labels[numbers]) & ~self.known.flagged(seen)


def _gradient(value: Tensor, images: Tensor, keep: bool = False) -> Tensor:
    """The gradient, with 0 in place of values that are not finite, as saturated samples give."""
    (found,) = torch.autograd.grad(value, images, retain_graph=keep)
    return found.nan_to_num(0.0, 0.0, 0.0)


def _finite(values: Tensor) -> Tensor:
    """0 in place of NaN and infinite values, so that a sum ignores them."""
    return torch.where(values.isfinite(), values, torch.zeros_like(values))


def _without(gradient: Tensor, other: Tensor) -> Tensor:
    """A gradient without its component along another, sample by sample."""
    flat, away = gradient.flatten(1).double(), other.flatten(1).double()
    size = away.square().sum(dim=1, keepdim=True).clamp_min(1e-60)
    left = flat - (flat * away).sum(dim=1, keepdim=True) / size * away
    return left.to(gradient.dtype).view_as(gradient)
