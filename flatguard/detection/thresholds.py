"""What a fitted detector knows: clean scores, thresholds, and how both decide."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flatguard.detection.conformal import Bounds, Rate, Side, atypicality, calibrate
from flatguard.detection.stump import Stump, fit_stump
from flatguard.errors import UsageError

ALL = -1
"""Stands for every class where thresholds are not per class."""


@dataclass(frozen=True)
class Thresholds:
    """Bounds by predicted class, or one under `ALL`, with the clean scores they come from.

    Attributes:
        bounds: class -> bounds; a class without is flagged always, because nothing is known of it.
        calibration: class -> its clean scores, sorted.
        side: which scores are flagged.
        stump: the accuracies of a stump; None where the bounds are conformal.
    """

    bounds: Mapping[int, Bounds]
    calibration: Mapping[int, np.ndarray]
    side: Side
    stump: Stump | None = None

    def key(self, predicted: np.ndarray) -> np.ndarray:
        """Under which class each sample is judged."""
        return np.full_like(predicted, ALL) if ALL in self.bounds else predicted

    def distance(self, scores: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """How far inside the bounds, `(n,)`; negative outside, -inf for NaN or unknown classes."""
        found = np.full(len(scores), -math.inf)
        keys = self.key(predicted)
        for key, bounds in self.bounds.items():
            here = keys == key
            with np.errstate(invalid="ignore"):
                inside = np.minimum(scores[here] - bounds.lower, bounds.upper - scores[here])
            found[here] = np.where(np.isnan(scores[here]), -math.inf, inside)
        return found

    def flags(self, scores: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Which samples are flagged, `(n,)` bool."""
        found = np.ones(len(scores), dtype=bool)
        keys = self.key(predicted)
        for key, bounds in self.bounds.items():
            found[keys == key] = bounds.flags(scores[keys == key])
        return found

    def atypicality(self, scores: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """`conformal.atypicality` within the sample's class, `(n,)`; inf for unknown classes."""
        found = np.full(len(scores), math.inf)
        keys = self.key(predicted)
        for key, clean in self.calibration.items():
            found[keys == key] = atypicality(scores[keys == key], clean, self.side)
        return found


def conformal(
    scores: np.ndarray, predicted: np.ndarray, rate: Rate, classes: int | None = None
) -> Thresholds:
    """Thresholds from clean scores alone.

    Args:
        scores: `(n,)`, of clean images that nothing was fitted on.
        predicted: `(n,)`, the class that the model takes each for.
        rate: of false alarms.
        classes: the number of classes for thresholds per predicted class; None for one pair.

    Raises:
        UsageError: too few scores; per class, it names the class that has fewest.
    """
    groups = {ALL: scores}
    if classes is not None:
        groups = {c: scores[predicted == c] for c in range(classes)}
        least = min(groups, key=lambda c: len(groups[c]))
        calibrate(groups[least], rate, f"calibration images predicted as class {least}")
    bounds = {key: calibrate(values, rate) for key, values in groups.items()}
    return Thresholds(bounds, {k: np.sort(v) for k, v in groups.items()}, rate.side)


def from_stump(
    scores: np.ndarray, is_adversarial: np.ndarray, groups: np.ndarray, seed: int
) -> Thresholds:
    """The threshold of Walter et al. (2026), Appendix D.4: a stump on clean and adversarial.

    Args:
        scores: `(n,)`.
        is_adversarial: `(n,)` bool; both kinds are needed.
        groups: `(n,)`, equal for images made of one another, which share a fold.
        seed: of the folds.
    """
    if is_adversarial.all() or not is_adversarial.any():
        raise UsageError("a stump needs clean and adversarial images; label them 1 and -1 in y")
    stump = fit_stump(scores, is_adversarial, groups, seed)
    bounds = Bounds(stump.threshold, math.inf) if stump.low else Bounds(-math.inf, stump.threshold)
    clean = np.sort(scores[~is_adversarial])
    return Thresholds({ALL: bounds}, {ALL: clean}, "low" if stump.low else "high", stump)
