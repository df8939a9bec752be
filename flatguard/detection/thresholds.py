"""The thresholds of a fitted detector, with the clean scores that they come from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from flatguard.detection.conformal import Bounds, FalsePositiveRate, Side, atypicality, calibrate
from flatguard.detection.stump import Stump, fit_stump
from flatguard.errors import UsageError

ALL = -1
"""Stands for every class where thresholds are not per class."""


@dataclass(frozen=True)
class Thresholds:
    """Bounds for each predicted class, or for all classes under `ALL`.

    Attributes:
        bounds: class -> bounds. A class without bounds is always flagged.
        calibration: class -> its clean scores, sorted.
        side: which scores are flagged.
        stump: the fitted stump; None where the bounds are conformal.
    """

    bounds: Mapping[int, Bounds]
    calibration: Mapping[int, np.ndarray]
    side: Side
    stump: Stump | None = None

    def flags(self, scores: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Which samples are flagged, `(n,)` bool."""
        found = np.ones(len(scores), dtype=bool)
        for key, rows in self._rows(predicted, self.bounds):
            found[rows] = self.bounds[key].flags(scores[rows])
        return found

    def distance(self, scores: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """How far inside the bounds, `(n,)`; negative outside, -inf for NaN or unknown classes."""
        found = np.full(len(scores), -math.inf)
        for key, rows in self._rows(predicted, self.bounds):
            lower, upper = self.bounds[key].ends
            with np.errstate(invalid="ignore"):
                inside = np.minimum(scores[rows] - lower, upper - scores[rows])
            found[rows] = np.where(np.isnan(scores[rows]), -math.inf, inside)
        return found

    def atypicality(self, scores: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """`conformal.atypicality` within the sample's class, `(n,)`; inf for unknown classes."""
        found = np.full(len(scores), math.inf)
        for key, rows in self._rows(predicted, self.calibration):
            found[rows] = atypicality(scores[rows], self.calibration[key], self.side)
        return found

    def _rows(self, predicted: np.ndarray, keys: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Each class with the samples that it decides on, `(n,)` bool."""
        for key in keys:
            yield key, np.full(len(predicted), True) if key == ALL else predicted == key


def conformal(
    scores: np.ndarray, predicted: np.ndarray, rate: FalsePositiveRate, classes: int | None = None
) -> Thresholds:
    """Thresholds from clean scores alone.

    Args:
        scores: `(n,)`, of clean images that nothing was fitted on.
        predicted: `(n,)`, the predicted classes.
        rate: of false positives.
        classes: the number of classes for thresholds per predicted class; None for one pair.

    Raises:
        UsageError: too few scores; the message names the class that has fewest.
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
    """The threshold of Walter et al. (2026), Appendix D.4: a stump.

    Args:
        scores: `(n,)`.
        is_adversarial: `(n,)` bool; both kinds are needed.
        groups: `(n,)`, equal for an image and its adversarial example, which share a fold.
        seed: of the folds.
    """
    if is_adversarial.all() or not is_adversarial.any():
        raise UsageError("a stump needs clean and adversarial images; label them 1 and -1 in y")
    stump = fit_stump(scores, is_adversarial, groups, seed)
    end = "lower" if stump.low else "upper"
    clean = np.sort(scores[~is_adversarial])
    side: Side = "low" if stump.low else "high"
    return Thresholds({ALL: Bounds(**{end: stump.threshold})}, {ALL: clean}, side, stump)
