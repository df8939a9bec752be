"""Detectors compared on one group of images: ROC, stumps, and rates at calibrated thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from flatguard.checks.statistics import interval
from flatguard.detection.auroc import auroc
from flatguard.detection.detector_set import RATES, Detector, DetectorSet, Scores, order
from flatguard.detection.results import DetectorResult, Operating, Share, WorstCase
from flatguard.detection.stump import FOLDS, fit_stump
from flatguard.geometry.budget import Budget


@dataclass(frozen=True)
class Group:
    """One attack's images, scored by every detector; row i of each is made of image i.

    Attributes:
        budget: of the attack.
        clean, noisy, adversarial: scores, `(n,)` each.
        clean_right: `(n,)` bool, which clean images the model is right about.
        successful: indices of those right when clean and fooled.
        failed: indices of those right when clean and still right, within budget.
    """

    budget: Budget
    clean: Scores
    noisy: Scores
    adversarial: Scores
    clean_right: np.ndarray
    successful: np.ndarray
    failed: np.ndarray


class AtRadius(Protocol):
    """An attack at a radius, as typed."""

    @property
    def attack(self) -> str:
        """Its name."""

    @property
    def eps(self) -> str:
        """Its radius."""


def share_of(flags: np.ndarray) -> Share:
    """How many are set, with the exact interval; no share of nothing."""
    count, of = int(np.sum(flags)), len(flags)
    share = count / of if of else None
    return Share(count=count, of=of, share=share, interval=interval(count, of))


def compare(
    panel: DetectorSet, group: Group, taught: Group, seed: int
) -> dict[str, DetectorResult]:
    """Every detector on one attack, log κ first.

    Args:
        panel: fitted and calibrated.
        group: what it is judged on.
        taught: what the stump for unseen attacks learns from.
        seed: of resampling and folds.
    """
    names = order(list(panel.detectors))
    return {name: _result(panel.detectors[name], group, taught, seed) for name in names}


def _result(detector: Detector, group: Group, taught: Group, seed: int) -> DetectorResult:
    name, own = detector.name, group.successful
    clean, adversarial = group.clean[name], group.adversarial[name][own]
    at = tuple(_operating(detector, group, rate) for rate in RATES)
    found = one_sided = folds = None
    if len(own):
        outer = detector.atypicality
        found = auroc(outer(clean), outer(adversarial), own, seed)
        one_sided = auroc(_ranked(clean), _ranked(adversarial), own, seed).value
        folds = _folds(clean[own], adversarial, seed)
    best = None if one_sided is None else max(one_sided, 1.0 - one_sided)
    direction = None if one_sided is None else "high" if one_sided >= 0.5 else "low"
    return DetectorResult(
        side=detector.side,
        auroc=found.value if found else None,
        auroc_interval=found.interval if found else None,
        auroc_one_sided=best,
        direction=direction,
        stump_accuracy=float(np.mean(folds)) if folds else None,
        stump_folds=folds,
        stump_unseen=_unseen(name, clean[own], adversarial, taught, seed),
        tpr_at_5_fpr=at[0].successful.share,
        tpr_at_1_fpr=at[1].successful.share,
        at=at,
    )


def _ranked(scores: np.ndarray) -> np.ndarray:
    """NaN is the least of all, so that a curve can be drawn; thresholds always flag it."""
    return np.where(np.isnan(scores), -np.inf, scores)


def _operating(detector: Detector, group: Group, rate: float) -> Operating:
    name, bounds = detector.name, detector.bounds[rate]
    clean = bounds.flags(group.clean[name])
    adversarial = bounds.flags(group.adversarial[name])
    return Operating(
        asked=rate,
        clean=share_of(clean),
        clean_wrong=share_of(clean[~group.clean_right]),
        noisy=share_of(bounds.flags(group.noisy[name])),
        successful=share_of(adversarial[group.successful]),
        failed=share_of(adversarial[group.failed]),
    )


def _pairs(clean: np.ndarray, adversarial: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores of images and of what was made of them, where both have one; and which is which."""
    both = ~(np.isnan(clean) | np.isnan(adversarial))
    scores = np.concatenate([clean[both], adversarial[both]])
    return scores, np.repeat([False, True], int(both.sum()))


def _folds(clean: np.ndarray, adversarial: np.ndarray, seed: int) -> tuple[float, ...] | None:
    scores, kinds = _pairs(clean, adversarial)
    if len(scores) < 2 * FOLDS:
        return None
    groups = np.tile(np.arange(len(scores) // 2), 2)
    return fit_stump(scores, kinds, groups, seed).folds


def _unseen(
    name: str, clean: np.ndarray, adversarial: np.ndarray, taught: Group, seed: int
) -> float | None:
    """A stump of the first attack, on images of its own, judged here."""
    own = taught.successful
    lesson, kinds = _pairs(taught.clean[name][own], taught.adversarial[name][own])
    scores, truth = _pairs(clean, adversarial)
    if len(lesson) < 2 * FOLDS or not len(scores):
        return None
    stump = fit_stump(lesson, kinds, np.tile(np.arange(len(lesson) // 2), 2), seed)
    return float((stump.predict(scores) == truth).mean())


def worst_case(
    panel: DetectorSet, wanted: Sequence[AtRadius], groups: Sequence[Group]
) -> tuple[WorstCase, ...]:
    """For each radius: the samples that fall to some attack, and whether every fall is flagged."""
    found = []
    for eps in dict.fromkeys(one.eps for one in wanted):
        here = [(one, g) for one, g in zip(wanted, groups, strict=True) if one.eps == eps]
        caught = {
            name: tuple(
                _caught(panel.detectors[name], [g for _, g in here], rate) for rate in RATES
            )
            for name in order(list(panel.detectors))
        }
        names = tuple(one.attack for one, _ in here)
        found.append(WorstCase(eps=eps, attacks=names, caught=caught))
    return tuple(found)


def _caught(detector: Detector, groups: Sequence[Group], rate: float) -> Share:
    n = len(groups[0].clean_right)
    fooled, missed = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    for group in groups:
        flags = detector.bounds[rate].flags(group.adversarial[detector.name])
        fooled[group.successful] = True
        missed[group.successful] |= ~flags[group.successful]
    return share_of(~missed[fooled])
