"""What a trial of detectors found, as `flatguard detect evaluate --json` prints it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

Interval = tuple[float, float]


class Facts(BaseModel):
    """Frozen, without unknown keys. A missing number was not measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Share(Facts):
    """So many of so many, with the exact 95% interval; given one calibration set."""

    count: int
    of: int
    share: float | None
    interval: Interval


class Operating(Facts):
    """A detector at a threshold that clean calibration images set, for a rate asked for.

    Attributes:
        asked: the rate of false positives.
        clean: flagged of the clean images, right or wrong.
        clean_wrong: flagged of those that the model is wrong about.
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
        auroc_one_sided: of the raw score, in whichever direction is better.
        direction: `low` or `high`: where that direction finds adversarial examples.
        stump_accuracy: mean over folds, of successful examples and their own clean images (so
            that a coin has 50%).
        stump_folds: five accuracies.
        stump_unseen: the accuracy on the same images of the stump that the trial's first attack
            taught, on images of its own.
        tpr_at_5_fpr, tpr_at_1_fpr: the share of successful examples flagged at thresholds that
            were calibrated for these rates.
        at: everything else at those thresholds.
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
    at: tuple[Operating, ...]


class AdaptiveResult(Facts):
    """The attack that knows the sharpness detector, at one rate of false positives."""

    asked: float
    misclassified: Share
    evaded: Share
    by_way: dict[str, int]


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
    """Over all attacks at one radius: a sample counts as caught if every success on it is."""

    eps: str
    attacks: tuple[str, ...]
    caught: dict[str, tuple[Share, ...]]


class Adaptive(Facts):
    """Adaptive attacks at one radius, at every rate."""

    norm: str
    eps: str
    steps: int
    starts: int
    results: tuple[AdaptiveResult, ...]


class Split(Facts):
    """How many images were used for what, and the seed that drew them."""

    evaluated: int
    fitted: int
    calibrated: int
    seed: int


class DetectionExperiment(Facts):
    """All of it.

    Attributes:
        model, weights_sha256, logit_scale: what was looked at.
        data, data_sha256: and on which images.
        attacks: one for each attack and radius.
        worst: one for each radius.
        adaptive: one for each radius; empty where none was asked for.
        missing: baselines that could not learn, with the reason.
        departures: how baselines differ from their papers.
        versions: of what may change the numbers.
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
    adaptive: tuple[Adaptive, ...]
    missing: dict[str, str]
    departures: dict[str, str]
    versions: dict[str, str]
