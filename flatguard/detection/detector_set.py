"""All detectors that an experiment compares, fitted and calibrated on the same images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flatguard.detection.baselines import BASELINES, Baseline, TrainingImages
from flatguard.detection.conformal import Bounds, FalsePositiveRate, Side, atypicality, calibrate
from flatguard.detection.scores import (
    LARGEST,
    ONE_PASS,
    forward_pass,
    on_device,
    one_pass_scores,
)
from flatguard.environment.torch_state import own_state
from flatguard.errors import UsageError
from flatguard.targets.target import Target

RATES = (0.05, 0.01)
"""The rates of false positives that every detector is calibrated for."""

_MIN_ADVERSARIAL = 10
"""A baseline that learns from adversarial examples needs at least this many."""

Scores = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class CalibratedDetector:
    """One detector with its thresholds.

    Attributes:
        name: as tables show it.
        side: which scores it flags; both sides if no single side suits all attacks.
        calibration: clean scores, `(n,)`.
        bounds: by rate of false positives.
    """

    name: str
    side: Side
    calibration: np.ndarray
    bounds: Mapping[float, Bounds]

    def atypicality(self, scores: np.ndarray) -> np.ndarray:
        """Larger is less like a clean image."""
        return atypicality(scores, self.calibration, self.side)


class DetectorSet:
    """The sharpness threshold and its baselines on one target.

    Args:
        target: prepared, with a head.
        batch_size: images a forward pass.
        seed: of the baselines' noise.
    """

    def __init__(self, target: Target, batch_size: int, seed: int):
        self.target, self.batch_size = target, batch_size
        self._baselines: list[Baseline] = [kind(target, batch_size, seed) for kind in BASELINES]
        self.missing: dict[str, str] = {}
        self.calibrated: dict[str, CalibratedDetector] = {}

    @own_state()
    def fit(self, training: TrainingImages) -> None:
        """Fit every baseline. One that cannot be fitted is left out; `missing` has the reason."""
        fitted, adversarial = [], len(training.adversarial)
        for baseline in self._baselines:
            try:
                if baseline.learns_attacks and adversarial < _MIN_ADVERSARIAL:
                    raise UsageError(
                        f"only {adversarial} adversarial examples to learn from; "
                        f"{_MIN_ADVERSARIAL} are needed"
                    )
                baseline.fit(training)
                fitted.append(baseline)
            except UsageError as error:
                self.missing[baseline.name] = str(error)
        self._baselines = fitted

    @own_state()
    def score(self, images: Tensor) -> Scores:
        """Every detector's raw scores, `(n,)` each, log κ first; NaN if not measured."""
        parts: dict[str, list[np.ndarray]] = {name: [] for name in ONE_PASS}
        with torch.no_grad():
            for batch in on_device(self.target, images, self.batch_size):
                for name, values in one_pass_scores(forward_pass(self.target, batch)).items():
                    parts[name].append(values)
        found = {name: np.concatenate(values) for name, values in parts.items()}
        found |= {b.name: b.score(images).numpy() for b in self._baselines}
        return {name: values.clip(-LARGEST, LARGEST) for name, values in found.items()}

    def calibrate(self, clean: Scores) -> None:
        """Set every detector's thresholds, from the same clean images.

        Raises:
            UsageError: too few images for the lowest rate.
        """
        for name, scores in clean.items():
            side: Side = "two-sided" if name in ONE_PASS else "high"
            bounds = {alpha: calibrate(scores, FalsePositiveRate(alpha, side)) for alpha in RATES}
            self.calibrated[name] = CalibratedDetector(name, side, scores, bounds)
