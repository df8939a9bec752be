"""Compares detectors on the images of one attack: ROC curves, stumps, calibrated thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flatguard.detection.auroc import auroc
from flatguard.detection.detector_set import RATES, CalibratedDetector, DetectorSet, Scores
from flatguard.detection.results import DetectorResult, OperatingPoint, Share, WorstCase
from flatguard.detection.stump import FOLDS, Stump, fit_stump


@dataclass(frozen=True)
class AttackAtRadius:
    """An attack and its radius, as the user typed them."""

    attack: str
    eps: str


@dataclass(frozen=True)
class ScoredAttack:
    """One attack's images, scored by every detector. Row i of each array belongs to image i.

    Attributes:
        at: the attack and its radius.
        clean, noisy, adversarial: scores, `(n,)` each.
        clean_right: `(n,)` bool, the clean images that the model classifies correctly.
        successful: indices of those that the attack made the model misclassify.
        failed: indices of those that are still correctly classified, within budget.
    """

    at: AttackAtRadius
    clean: Scores
    noisy: Scores
    adversarial: Scores
    clean_right: np.ndarray
    successful: np.ndarray
    failed: np.ndarray


def compare(
    detectors: DetectorSet, scored: ScoredAttack, training: ScoredAttack, seed: int
) -> dict[str, DetectorResult]:
    """Every detector on one attack.

    Args:
        detectors: fitted and calibrated.
        scored: the images that are evaluated.
        training: other images, on which the stump for unseen attacks is fitted.
        seed: of resampling and folds.
    """
    return {
        name: _compare_one(detector, scored, training, seed)
        for name, detector in detectors.calibrated.items()
    }


def _compare_one(
    detector: CalibratedDetector, scored: ScoredAttack, training: ScoredAttack, seed: int
) -> DetectorResult:
    name, own = detector.name, scored.successful
    clean, adversarial = scored.clean[name], scored.adversarial[name][own]
    at = tuple(_operating_point(detector, scored, rate) for rate in RATES)
    area = one_sided = stump = None
    if len(own):
        unusual = detector.atypicality
        area = auroc(unusual(clean), unusual(adversarial), own, seed)
        one_sided = auroc(_nan_lowest(clean), _nan_lowest(adversarial), own, seed).value
        stump = _fit_on_pairs(clean[own], adversarial, seed)
    return DetectorResult(
        side=detector.side,
        auroc=area.value if area else None,
        auroc_interval=area.interval if area else None,
        auroc_one_sided=None if one_sided is None else max(one_sided, 1.0 - one_sided),
        direction=None if one_sided is None else "high" if one_sided >= 0.5 else "low",
        stump_accuracy=stump.accuracy if stump else None,
        stump_folds=stump.folds if stump else None,
        stump_unseen=_unseen_accuracy(name, clean[own], adversarial, training, seed),
        tpr_at_5_fpr=at[0].successful.share,
        tpr_at_1_fpr=at[1].successful.share,
        at=at,
    )


def _nan_lowest(scores: np.ndarray) -> np.ndarray:
    """NaN as the lowest score, for ROC curves; a threshold flags NaN always."""
    return np.where(np.isnan(scores), -np.inf, scores)


def _operating_point(
    detector: CalibratedDetector, scored: ScoredAttack, rate: float
) -> OperatingPoint:
    name, bounds = detector.name, detector.bounds[rate]
    clean = bounds.flags(scored.clean[name])
    adversarial = bounds.flags(scored.adversarial[name])
    return OperatingPoint(
        asked=rate,
        clean=Share.of_flags(clean),
        clean_wrong=Share.of_flags(clean[~scored.clean_right]),
        noisy=Share.of_flags(bounds.flags(scored.noisy[name])),
        successful=Share.of_flags(adversarial[scored.successful]),
        failed=Share.of_flags(adversarial[scored.failed]),
    )


def _pairs(clean: np.ndarray, adversarial: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scores of pairs without NaN, clean ones first; and which scores are adversarial."""
    both = ~(np.isnan(clean) | np.isnan(adversarial))
    scores = np.concatenate([clean[both], adversarial[both]])
    return scores, np.repeat([False, True], int(both.sum()))


def _fit_on_pairs(clean: np.ndarray, adversarial: np.ndarray, seed: int) -> Stump | None:
    """A stump with both images of a pair in one fold; None if there are too few pairs."""
    scores, is_adversarial = _pairs(clean, adversarial)
    if len(scores) < 2 * FOLDS:
        return None
    return fit_stump(scores, is_adversarial, np.tile(np.arange(len(scores) // 2), 2), seed)


def _unseen_accuracy(
    name: str, clean: np.ndarray, adversarial: np.ndarray, training: ScoredAttack, seed: int
) -> float | None:
    """The accuracy on these images of a stump that is fitted on the training images."""
    own = training.successful
    stump = _fit_on_pairs(training.clean[name][own], training.adversarial[name][own], seed)
    scores, is_adversarial = _pairs(clean, adversarial)
    if stump is None or not len(scores):
        return None
    return float((stump.predict(scores) == is_adversarial).mean())


def worst_case(detectors: DetectorSet, attacks: Sequence[ScoredAttack]) -> tuple[WorstCase, ...]:
    """For each radius: of the samples that any attack fools, those always flagged."""
    found = []
    for eps in dict.fromkeys(scored.at.eps for scored in attacks):
        here = [scored for scored in attacks if scored.at.eps == eps]
        caught = {
            name: tuple(_caught(detector, here, rate) for rate in RATES)
            for name, detector in detectors.calibrated.items()
        }
        names = tuple(scored.at.attack for scored in here)
        found.append(WorstCase(eps=eps, attacks=names, caught=caught))
    return tuple(found)


def _caught(detector: CalibratedDetector, attacks: Sequence[ScoredAttack], rate: float) -> Share:
    n = len(attacks[0].clean_right)
    fooled, missed = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    for scored in attacks:
        flags = detector.bounds[rate].flags(scored.adversarial[detector.name])
        fooled[scored.successful] = True
        missed[scored.successful] |= ~flags[scored.successful]
    return Share.of_flags(~missed[fooled])
