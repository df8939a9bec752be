"""The area under the ROC curve, with a bootstrap interval that respects pairs of images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flatguard.checks.statistics import CONFIDENCE_LEVEL

_RESAMPLES = 1000


@dataclass(frozen=True)
class Auroc:
    """The area under the ROC curve, and its 95% percentile bootstrap interval."""

    value: float
    interval: tuple[float, float]


def auroc(clean: np.ndarray, adversarial: np.ndarray, source: np.ndarray, seed: int) -> Auroc:
    """The probability that an adversarial image scores above a clean one; a tie counts half.

    Args:
        clean: `(n,)` scores.
        adversarial: `(m,)` scores, m at least 1.
        source: `(m,)` int, the index among `clean` of the image that each was made from. An image
            and its adversarial example are resampled together: their scores are not independent.
        seed: of the resampling.

    Cost: 1,000 resamples of one sorted array; 30 ms for 1,000 scores.
    """
    counts = np.random.default_rng(seed).multinomial(
        len(clean), np.full(len(clean), 1 / len(clean)), _RESAMPLES
    )
    weights = np.concatenate([np.ones((1, len(clean)), dtype=int), counts])
    areas = _areas(clean, adversarial, weights, weights[:, source])
    drawn = areas[1:][np.isfinite(areas[1:])]
    tail = (1.0 - CONFIDENCE_LEVEL) / 2.0
    low, high = np.quantile(drawn, (tail, 1.0 - tail)) if len(drawn) else (0.0, 1.0)
    return Auroc(float(areas[0]), (float(low), float(high)))


def _areas(
    clean: np.ndarray, adversarial: np.ndarray, clean_weight: np.ndarray, own_weight: np.ndarray
) -> np.ndarray:
    """One area for each row of weights; NaN where no adversarial image was drawn.

    `sklearn.metrics.roc_auc_score` with weights gives the same areas, one row a call.
    """
    order = np.argsort(clean)
    below = np.pad(np.cumsum(clean_weight[:, order], axis=1), ((0, 0), (1, 0)))
    left, right = (np.searchsorted(clean[order], adversarial, side) for side in ("left", "right"))
    pairs = own_weight.sum(axis=1) * clean_weight.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = (own_weight * (below[:, left] + below[:, right])).sum(axis=1) / (
            2 * pairs
        )
    return found
