"""Fits a detector on a model and its images, and measures what it is worth as a defence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from flatguard.checks.statistics import interval
from flatguard.data.dataset import Batch
from flatguard.data.hashing import DataHash
from flatguard.detection.adaptive import Effort, adaptive_attack
from flatguard.detection.conformal import Side
from flatguard.detection.detector import ADVERSARIAL, Calibration, SharpnessDetector
from flatguard.detection.detector_file import AdaptiveFacts, CalibrationFacts
from flatguard.environment.torch_state import own_state
from flatguard.errors import UsageError
from flatguard.execution.context import EvaluationContext, Subject
from flatguard.execution.progress import ProgressReporter
from flatguard.geometry.budget import Budget
from flatguard.request import derive_seed


@dataclass(frozen=True)
class Fit:
    """How a detector is calibrated; see `SharpnessDetector`."""

    alpha: float = 0.05
    side: Side = "two-sided"
    per_class: bool = False
    delta: float | None = None
    calibration: Calibration = "conformal"


@dataclass(frozen=True)
class Fitted:
    """A fitted detector and what stands beside it in its file."""

    detector: SharpnessDetector
    data: CalibrationFacts
    adaptive: AdaptiveFacts | None


@own_state()
def fit_detector(
    subject: Subject,
    how: Fit,
    attack: EvaluationContext | None,
    adaptive: int,
    progress: ProgressReporter,
) -> Fitted:
    """Calibrate on all images of a subject, and attack the detector knowingly.

    Args:
        subject: the model and its clean images.
        how: the calibration.
        attack: a job on the same images; a stump learns from it, and its radius is the adaptive
            attack's. None where there is neither.
        adaptive: so many images are attacked knowingly.
        progress: receives progress updates.

    Raises:
        UsageError: too few images, or a stump without an attack.
    """
    batch = subject.dataset.block(0, subject.count)
    detector = SharpnessDetector(
        subject.target,
        alpha=how.alpha,
        side=how.side,
        per_class=how.per_class,
        delta=how.delta,
        calibration=how.calibration,
        batch_size=subject.block_size,
        seed=derive_seed(subject.request.seed, 0, "stump"),
    )
    progress.stage("calibrating", len(batch))
    if how.calibration == "stump":
        _fit_stump(detector, batch, attack, progress)
    else:
        detector.fit(batch.images)
    progress.advanced(len(batch))
    hashes = DataHash()
    hashes.update(batch)
    data = CalibrationFacts(
        name=subject.dataset.name,
        sha256=hashes.hexdigest(),
        samples=len(batch),
        seed=subject.request.seed,
    )
    knowing = None
    if adaptive and attack is not None:
        knowing = _adaptive(detector, batch, attack.attack.budget, subject, adaptive, progress)
    return Fitted(detector, data, knowing)


def _fit_stump(
    detector: SharpnessDetector,
    batch: Batch,
    attack: EvaluationContext | None,
    progress: ProgressReporter,
) -> None:
    if attack is None:
        raise UsageError("a stump learns from adversarial examples: name an --attack and --eps")
    made = []
    for index, start in enumerate(range(0, len(batch), attack.block_size)):
        rows = slice(start, start + attack.block_size)
        images, labels = batch.images[rows], batch.labels[rows]
        seed = derive_seed(attack.request.seed, index, attack.request.attack)
        device = attack.device
        found = attack.attack.perturb(
            attack.target.model, images.to(device), labels.to(device), seed
        )
        made.append(found.images.cpu())
    scored, after = detector.scored(batch.images), detector.scored(torch.cat(made))
    right = scored.predicted == batch.labels.numpy()
    fell = right & (after.predicted != batch.labels.numpy())
    if not fell.any():
        raise UsageError(
            f"{attack.request.attack} fooled none of {len(batch)} images, so a stump has nothing "
            "to learn from; raise --eps"
        )
    chosen = np.flatnonzero(fell)
    images = torch.cat([batch.images[chosen], torch.cat(made)[chosen]])
    kinds = np.repeat([-ADVERSARIAL, ADVERSARIAL], len(chosen))
    detector.fit(images, kinds, groups=np.tile(chosen, 2))


def _adaptive(
    detector: SharpnessDetector,
    batch: Batch,
    budget: Budget,
    subject: Subject,
    count: int,
    progress: ProgressReporter,
) -> AdaptiveFacts | None:
    """Someone who knows the detector, on the first images that the model is right about."""
    if budget.eps is None:
        return None
    scored = detector.scored(batch.images)
    right = np.flatnonzero(scored.predicted == batch.labels.numpy())[:count]
    if not len(right):
        return None
    progress.stage("adaptive attack", len(right))
    seed = derive_seed(subject.request.seed, 0, "adaptive")
    found = adaptive_attack(
        subject.target, detector.thresholds_, batch.images[right], batch.labels[right], budget,
        Effort(), seed, progress,
    )  # fmt: skip
    evaded = int(found.evaded.sum())
    return AdaptiveFacts(
        norm=budget.norm,
        eps=budget.eps,
        samples=len(right),
        evaded=evaded,
        interval=interval(evaded, len(right)),
        misclassified=int(found.misclassified.sum()),
        false_positives=detector.alpha if detector.calibration == "conformal" else None,
        seed=seed,
    )
