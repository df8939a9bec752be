"""Fits a detector on a model and its images, and attacks it adaptively."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from flatguard.checks.statistics import interval
from flatguard.data.dataset import Batch
from flatguard.data.hashing import DataHash
from flatguard.detection.adaptive import AttackEffort, adaptive_attack
from flatguard.detection.conformal import Side
from flatguard.detection.detector import ADVERSARIAL, CLEAN, Calibration, SharpnessDetector
from flatguard.detection.detector_file import AdaptiveFacts, CalibrationFacts
from flatguard.environment.caller import own_process
from flatguard.errors import UsageError
from flatguard.execution.context import EvaluationContext, ModelAndData
from flatguard.execution.progress import ProgressReporter
from flatguard.geometry.budget import Budget
from flatguard.request import derive_seed


@dataclass(frozen=True)
class CalibrationSettings:
    """The calibration of a detector; see `SharpnessDetector`."""

    alpha: float = 0.05
    side: Side = "two-sided"
    per_class: bool = False
    delta: float | None = None
    calibration: Calibration = "conformal"


@dataclass(frozen=True)
class FittedDetector:
    """A fitted detector, with the other facts of its file."""

    detector: SharpnessDetector
    data: CalibrationFacts
    adaptive: AdaptiveFacts | None

    def save(self, path: Path) -> None:
        """Write all of it to one file; an existing one is replaced."""
        self.detector.save(path, data=self.data, adaptive=self.adaptive)


@own_process()
def fit_detector(
    context: ModelAndData,
    settings: CalibrationSettings,
    adaptive: int,
    progress: ProgressReporter,
) -> FittedDetector:
    """Calibrate on all images of a context, and attack the detector adaptively.

    Args:
        context: the model and its clean images. A stump learns from the attack of an
            `EvaluationContext`, and the adaptive attack takes its budget.
        settings: the calibration.
        adaptive: how many images are attacked adaptively; none without an attack.
        progress: receives progress updates.

    Raises:
        UsageError: too few images, or a stump without an attack.
    """
    batch = context.dataset.block(0, context.count)
    detector = SharpnessDetector(
        context.target,
        **asdict(settings),
        batch_size=context.block_size,
        seed=derive_seed(context.request.seed, 0, "stump"),
    )
    progress.stage("calibrating", len(batch))
    if settings.calibration == "stump":
        _fit_stump(detector, batch, context)
    else:
        detector.fit(batch.images)
    progress.advanced(len(batch))
    hashes = DataHash()
    hashes.update(batch)
    data = CalibrationFacts(
        name=context.dataset.name,
        sha256=hashes.hexdigest(),
        samples=len(batch),
        seed=context.request.seed,
    )
    facts = None
    if adaptive and isinstance(context, EvaluationContext):
        seed = derive_seed(context.request.seed, 0, "adaptive")
        facts = _attack_adaptively(detector, batch, context.attack.budget, adaptive, seed, progress)
    return FittedDetector(detector, data, facts)


def _fit_stump(detector: SharpnessDetector, batch: Batch, context: ModelAndData) -> None:
    """Fit on the images that the attack makes the model misclassify, and on their originals."""
    if not isinstance(context, EvaluationContext):
        raise UsageError("a stump learns from adversarial examples: name an --attack and --eps")
    parts = []
    for index, start in enumerate(range(0, len(batch), context.block_size)):
        rows = slice(start, start + context.block_size)
        images, labels = batch.images[rows], batch.labels[rows]
        seed = derive_seed(context.request.seed, index, context.request.attack)
        found = context.attack.perturb(
            context.target.model, images.to(context.device), labels.to(context.device), seed
        )
        parts.append(found.images.cpu())
    adversarial, truth = torch.cat(parts), batch.labels.numpy()
    right = detector.scored(batch.images).predicted == truth
    fooled = np.flatnonzero(right & (detector.scored(adversarial).predicted != truth))
    if not len(fooled):
        raise UsageError(
            f"{context.request.attack} fooled none of {len(batch)} images, so a stump has nothing "
            "to learn from; raise --eps"
        )
    images = torch.cat([batch.images[fooled], adversarial[fooled]])
    kinds = np.repeat([CLEAN, ADVERSARIAL], len(fooled))
    detector.fit(images, kinds, groups=np.tile(fooled, 2))


def _attack_adaptively(
    detector: SharpnessDetector,
    batch: Batch,
    budget: Budget,
    count: int,
    seed: int,
    progress: ProgressReporter,
) -> AdaptiveFacts | None:
    """Attack the first images that the model classifies correctly; None without a radius."""
    right = np.flatnonzero(detector.scored(batch.images).predicted == batch.labels.numpy())[:count]
    if budget.eps is None or not len(right):
        return None
    progress.stage("adaptive attack", len(right))
    found = adaptive_attack(
        detector.target, detector.thresholds_, batch.images[right], batch.labels[right], budget,
        AttackEffort(), seed, progress,
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
