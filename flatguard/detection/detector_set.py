"""All detectors side by side: fitted and calibrated on the same images, scored on the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flatguard.detection.baselines import BASELINES, Baseline, TrainingImages
from flatguard.detection.conformal import Bounds, FalsePositiveRate, Side, atypicality, calibrate
from flatguard.detection.scores import LOG_KAPPA, ONE_PASS, forward_pass, one_pass_scores
from flatguard.environment.devices import device_of
from flatguard.environment.torch_state import own_state
from flatguard.errors import UsageError
from flatguard.targets.target import Target

RATES = (0.05, 0.01)
"""The rates of false positives that are asked of every detector."""

LARGEST = 1e300
ENOUGH_TO_LEARN = 10
"""A baseline that learns from adversarial examples needs so many."""

Scores = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Detector:
    """One of the panel, calibrated.

    Attributes:
        name: as tables have it.
        side: which scores it flags; both, where the paper names none that holds for all attacks.
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
        self.detectors: dict[str, Detector] = {}

    @own_state()
    def fit(self, given: TrainingImages) -> None:
        """Let every baseline learn; what cannot is left out, and `missing` says why."""
        able = []
        for baseline in self._baselines:
            short = baseline.learns_attacks and len(given.adversarial) < ENOUGH_TO_LEARN
            try:
                if short:
                    raise UsageError(
                        f"only {len(given.adversarial)} adversarial examples to learn from; "
                        f"{ENOUGH_TO_LEARN} are needed"
                    )
                baseline.fit(given)
                able.append(baseline)
            except UsageError as error:
                self.missing[baseline.name] = str(error)
        self._baselines = able

    @own_state()
    def score(self, images: Tensor) -> Scores:
        """Every detector's raw scores, `(n,)` each; NaN where it has none."""
        device = device_of(self.target.model)
        parts: dict[str, list[np.ndarray]] = {name: [] for name in ONE_PASS}
        with torch.no_grad():
            for batch in images.split(self.batch_size):
                for name, values in one_pass_scores(
                    forward_pass(self.target, batch.to(device))
                ).items():
                    parts[name].append(values)
        found = {name: np.concatenate(values) for name, values in parts.items()}
        found |= {b.name: b.score(images).numpy() for b in self._baselines}
        return {name: values.clip(-LARGEST, LARGEST) for name, values in found.items()}

    def calibrate(self, clean: Scores) -> None:
        """Thresholds of every detector from the same clean images.

        Raises:
            UsageError: too few for the lowest rate.
        """
        for name, scores in clean.items():
            side: Side = "two-sided" if name in ONE_PASS else "high"
            bounds = {alpha: calibrate(scores, FalsePositiveRate(alpha, side)) for alpha in RATES}
            self.detectors[name] = Detector(name, side, scores, bounds)


def order(names: Sequence[str]) -> list[str]:
    """log κ first, then as they come."""
    return sorted(names, key=lambda name: name != LOG_KAPPA)
