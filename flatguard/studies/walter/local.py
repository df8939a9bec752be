"""The quantities in the paper's bounds, near each image: r and Δ measured, L estimated."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from flatguard.data.dataset import Batch
from flatguard.geometry.bounds import (
    NOT_A_CERTIFICATE,
    HeadBound,
    PrintedBound,
    logit_gradient_norm,
)
from flatguard.studies.study import Subject
from flatguard.studies.walter.lipschitz import POINTS, POWER_STEPS, local_lipschitz
from flatguard.studies.walter.path import Path, walk
from flatguard.targets.head import FinalMap

SHRUNK = 1e-4
"""φ is multiplied by this and W divided: the same classifier, the same κ, another printed bound.

With a larger L, or images rescaled to ‖x‖ ≤ 1 as the paper assumes, a smaller factor does it."""

METHOD = (
    "r is the length ‖φ(x)‖ of each sample's features; L, the Lipschitz constant, is the largest "
    f"singular value of ∂φ/∂x at {POINTS} points of the segment to the attack's end, by "
    f"{POWER_STEPS} steps of power iteration each: a lower bound of it.",
    f"Bounds and radii are {NOT_A_CERTIFICATE}.",
)
"""The notes of every study that uses these numbers."""


@dataclass(frozen=True)
class Local:
    """The quantities in the bounds, for n correctly classified samples.

    Attributes:
        path: of the attack.
        head: of the model.
        batch: the clean images, on the device.
        lipschitz: `(n,)`, L near each sample.
        log_kappa: `(n,)`, at the clean image.
    """

    path: Path
    head: FinalMap
    batch: Batch
    lipschitz: Tensor
    log_kappa: Tensor

    @property
    def radius(self) -> Tensor:
        """r = ‖φ(x)‖, `(n,)`."""
        norm: Tensor = self.path.features[0].double().norm(dim=1)
        return norm

    @property
    def moved(self) -> Tensor:
        """Δ = ‖φ(ξ) - φ(x)‖ / ‖φ(x)‖, `(m, n)`."""
        return self.path.moved() / self.radius

    @property
    def slope(self) -> Tensor:
        """‖w‖ ‖∇_w ℓ‖ at the clean image, `(n,)`: Equation 5's first coefficient."""
        gradient = logit_gradient_norm(self.path.logits[0], self.path.labels) * self.radius
        norm = math.exp(0.5 * self.head.log_weight_norm_squared()) * self.head.scale
        return norm * gradient

    def printed(self, shrunk: float = 1.0) -> PrintedBound:
        """Proposition 8's numbers, for φ times `shrunk` and W divided by it."""
        return PrintedBound(
            kappa=self.log_kappa.exp(),
            lipschitz=self.lipschitz * shrunk,
            radius=self.radius * shrunk,
            classes=self.path.logits.shape[2],
            features=self.path.features.shape[2],
        )

    def any_head(self) -> HeadBound:
        """The bound that holds for any head."""
        weight = self.head.weight.detach().cpu()
        return HeadBound.of(self.path.logits[0], self.path.labels, weight, self.head.scale)


def look_locally(subject: Subject) -> Local:
    """Attack the correctly classified samples, and estimate L along each path."""
    head, batch = subject.head(), subject.batch()
    subject.progress.stage(f"attack {subject.context.attack.info.name}", 2 * len(batch))
    walked = walk(subject, batch, head)
    subject.progress.advanced(len(batch))
    correct = walked.path.correct()
    rows = correct.to(batch.labels.device)
    kept = Batch(batch.images[rows], batch.labels[rows])
    lipschitz = local_lipschitz(
        subject.model, head, kept.images, walked.ends[rows], subject.seed("power iteration")
    )
    subject.progress.advanced(len(batch))
    path = walked.path[correct]
    return Local(path, head, kept, lipschitz.double().cpu(), path.log_kappa(head)[0])
