"""The robust loss: cross-entropy at the worst point of the ball that projected ascent finds.

Searches for adversarial examples stop where the model is fooled. The robust loss of Stutz et al.
(2021), max over δ of L(f(x + δ; w), y), continues from there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatguard.checks.context import Meter
from flatguard.data.dataset import Batch
from flatguard.environment.randomness import seeded
from flatguard.geometry.ball import direction, project, random_step
from flatguard.geometry.budget import Budget, Norm
from flatguard.geometry.decision import cross_entropy

STEPS, _RESTARTS = 20, 10
"""Stutz et al. (2021), Section 3."""

_STEP_SHARE = 0.007 / 0.0314
"""The length of a step as a share of the radius: 0.007 within 0.0314 in the authors' published
evaluation; the paper names none."""


@dataclass(frozen=True)
class Ascent:
    """Projected gradient ascent on the cross-entropy.

    Attributes:
        eps: the radius.
        norm: of the ball.
        steps: gradients of each start.
        restarts: random starts.
    """

    eps: float
    norm: Norm = "Linf"
    steps: int = STEPS
    restarts: int = _RESTARTS

    def __str__(self) -> str:
        budget = Budget(self.norm, self.eps)
        return f"PGD-{self.steps} with {self.restarts} restarts within {budget}"

    def start(self, images: Tensor) -> Tensor:
        """A random point of each image's ball and the box."""
        moved = images + random_step(images, self.eps, self.norm)
        return project(moved, images, self.eps, self.norm)

    def step(self, moved: Tensor, gradient: Tensor, images: Tensor) -> Tensor:
        """One step along the steepest direction, back into ball and box."""
        moved = moved + _STEP_SHARE * self.eps * direction(gradient, self.norm)
        return project(moved, images, self.eps, self.norm)


@dataclass(frozen=True)
class Losses:
    """Of each sample.

    Attributes:
        loss: `(n,)` float64, the largest cross-entropy met; NaN where a logit was not finite.
        wrong: `(n,)`, whether any point that was met is classified wrong.
    """

    loss: Tensor
    wrong: Tensor


def clean_losses(model: nn.Module, batch: Batch, meter: Meter) -> Losses:
    """The losses of the images as they are. Cost: one forward pass."""
    meter.add(len(batch))
    with torch.no_grad():
        return _losses(model(batch.images), batch.labels)


def robust_losses(
    model: nn.Module, batch: Batch, ascent: Ascent, seed: int, meter: Meter
) -> Losses:
    """The largest loss over all restarts and all points on their paths, the clean loss included.

    Args:
        model: in eval mode, on the batch's device.
        batch: images in [0, 1] and labels.
        ascent: how the ball is searched.
        seed: of the random starts; the global generators are put back.
        meter: counts the rows that go forward.

    Cost: restarts · (steps + 1) + 1 forward and restarts · steps backward passes.
    """
    worst = clean_losses(model, batch, meter)
    with seeded(seed, batch.images.device):
        for _ in range(ascent.restarts):
            moved = ascent.start(batch.images)
            for step in range(ascent.steps + 1):
                is_last = step == ascent.steps
                logits, gradient = _look(model, moved, batch.labels, meter, is_last)
                worst = _worse(worst, _losses(logits, batch.labels))
                if gradient is not None:
                    moved = ascent.step(moved, gradient, batch.images)
    return worst


def _look(
    model: nn.Module, moved: Tensor, labels: Tensor, meter: Meter, is_last: bool
) -> tuple[Tensor, Tensor | None]:
    meter.add(len(moved))
    if is_last:
        with torch.no_grad():
            return model(moved), None
    with torch.enable_grad():
        x = moved.detach().requires_grad_(True)
        logits = model(x)
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), x)
    return logits.detach(), torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)


def _losses(logits: Tensor, labels: Tensor) -> Losses:
    broken = ~logits.isfinite().all(dim=1)
    loss = cross_entropy(logits, labels).masked_fill(broken, float("nan"))
    return Losses(loss, (logits.argmax(dim=1) != labels) & ~broken)


def _worse(one: Losses, other: Losses) -> Losses:
    return Losses(torch.maximum(one.loss, other.loss), one.wrong | other.wrong)
