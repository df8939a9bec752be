"""The result of a detection experiment, as `flatguard detect evaluate --json` prints it."""

from __future__ import annotations

import numpy as np

from flatguard.checks.statistics import interval
from flatguard.detection.facts import Facts

Interval = tuple[float, float]


class Share(Facts):
    """A proportion with its exact 95% interval, given one calibration set."""

    count: int
    of: int
    share: float | None
    interval: Interval

    @classmethod
    def of_flags(cls, flags: np.ndarray) -> Share:
        """The share of flags that are set, `(n,)` bool; None of no flags."""
        count, of = int(np.sum(flags)), len(flags)
        share = count / of if of else None
        return cls(count=count, of=of, share=share, interval=interval(count, of))


class OperatingPoint(Facts):
    """A detector at the threshold that clean calibration images set for a requested rate.

    Attributes:
        asked: the requested rate of false positives.
        clean: flagged of the clean images, correctly classified or not.
        clean_wrong: flagged of the misclassified clean images.
        noisy: flagged of the clean images with random noise of the attack's radius.
        successful: flagged of the adversarial examples that fool the model.
        failed: flagged of those that do not.
    """

    asked: float
    clean: Share
    clean_wrong: Share
    noisy: Share
    successful: Share
    failed: Share


class DetectorResult(Facts):
    """One detector on one attack.

    Attributes:
        side: which scores it flags.
        auroc: of successful examples against all clean images, by `conformal.atypicality`.
        auroc_interval: 95%, 1,000 resamples of images.
        auroc_one_sided: of the raw score, in the better of both directions.
        direction: `low` or `high`, the better direction.
        stump_accuracy: mean over folds, on successful examples and their own clean images (so
            chance is 50%).
        stump_folds: five accuracies.
        stump_unseen: the accuracy on the same images of a stump that was fitted on other images
            under the experiment's first attack.
        tpr_at_5_fpr, tpr_at_1_fpr: the share of successful examples that are flagged at the
            thresholds for these rates.
        at: all shares at those thresholds.
    """

    side: str
    auroc: float | None
    auroc_interval: Interval | None
    auroc_one_sided: float | None
    direction: str | None
    stump_accuracy: float | None
    stump_folds: tuple[float, ...] | None
    stump_unseen: float | None
    tpr_at_5_fpr: float | None
    tpr_at_1_fpr: float | None
    at: tuple[OperatingPoint, ...]


class AttackResult(Facts):
    """All detectors on one attack at one radius."""

    attack: str
    norm: str
    eps: str
    clean_wrong: int
    successful: int
    failed: int
    detectors: dict[str, DetectorResult]


class WorstCase(Facts):
    """All attacks at one radius: the samples on which every successful example is flagged."""

    eps: str
    attacks: tuple[str, ...]
    caught: dict[str, tuple[Share, ...]]


class AdaptiveAtRate(Facts):
    """The adaptive attack on the sharpness detector, at one rate of false positives."""

    asked: float
    misclassified: Share
    evaded: Share
    by_way: dict[str, int]


class AdaptiveAtRadius(Facts):
    """The adaptive attacks at one radius, at every rate."""

    norm: str
    eps: str
    steps: int
    starts: int
    results: tuple[AdaptiveAtRate, ...]


class Split(Facts):
    """How many images each part has, and the seed that drew them."""

    evaluated: int
    fitted: int
    calibrated: int
    seed: int


class DetectionExperiment(Facts):
    """The whole result.

    Attributes:
        model, weights_sha256, logit_scale: the model.
        data, data_sha256: the images.
        attacks: one for each attack and radius.
        worst: one for each radius.
        adaptive: one for each radius; empty if no adaptive attack was requested.
        missing: baselines that could not be fitted, with the reason.
        departures: how baselines differ from their papers.
        versions: of the libraries that the numbers depend on.
    """

    format_version: int = 1
    model: str
    weights_sha256: str
    logit_scale: float
    data: str
    data_sha256: str
    split: Split
    attacks: tuple[AttackResult, ...]
    worst: tuple[WorstCase, ...]
    adaptive: tuple[AdaptiveAtRadius, ...]
    missing: dict[str, str]
    departures: dict[str, str]
    versions: dict[str, str]
