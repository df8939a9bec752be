"""The samples of a run that a detector flags, from the run's table and the detector's file.

`detection.json` is derived. `load_detection` counts the flagged samples again and does not trust
the numbers in the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from flatguard.checks.statistics import interval
from flatguard.detection.conformal import Bounds, Side
from flatguard.detection.detector_file import AdaptiveFacts, CalibrationFacts, SavedDetector
from flatguard.detection.facts import Facts
from flatguard.detection.thresholds import Thresholds
from flatguard.environment.system import quoted
from flatguard.errors import RunFolderError
from flatguard.geometry.budget import pretty_eps
from flatguard.geometry.measures import KAPPA, SharpnessMeasure
from flatguard.runs.json_files import read_json, write_text
from flatguard.runs.run import Run

DETECTION = "detection.json"
_FORMAT_VERSION = 1
_SAME_SCORE = 1e-5
"""Relative. Two float32 passes of one image differ by less, two images hardly ever."""


class Flagged(Facts):
    """How many samples of a kind are flagged.

    Attributes:
        samples: of this kind.
        flagged: of them. A sample without a score is always flagged.
        unmeasured: of the flagged samples, those without a score.
        share: flagged of samples; None without samples.
        interval: of the share, exact 95%; (0, 1) without samples.
        score: its name.
    """

    samples: int
    flagged: int
    unmeasured: int
    share: float | None
    interval: tuple[float, float]
    score: str = KAPPA.log_name

    @classmethod
    def of(
        cls, flags: np.ndarray, scores: np.ndarray, measure: SharpnessMeasure = KAPPA
    ) -> Flagged:
        """Count the samples, from their flags and scores, `(n,)` each."""
        n, flagged = len(flags), int(flags.sum())
        return cls(
            samples=n,
            flagged=flagged,
            unmeasured=int(np.isnan(scores).sum()),
            share=flagged / n if n else None,
            interval=interval(flagged, n),
            score=measure.log_name,
        )

    @property
    def recognised(self) -> int:
        """How many samples are flagged because of their score: not those without one."""
        return self.flagged - self.unmeasured

    def __str__(self) -> str:
        text = "none" if self.share is None else f"{self.share:.1%} of {self.samples:,}"
        return text + (f" ({self.unmeasured:,} without {self.score})" if self.unmeasured else "")


class Kinds(Facts):
    """The flagged samples of each kind.

    Attributes:
        clean: every clean image.
        clean_right: those that the model classifies correctly.
        clean_wrong: those that it misclassifies without an attack.
        successful: adversarial examples within budget that fool the model.
        failed: returned examples within budget that the model still classifies correctly.
    """

    clean: Flagged
    clean_right: Flagged
    clean_wrong: Flagged
    successful: Flagged
    failed: Flagged


class Detection(Facts):
    """The samples that a detector flags in one run.

    Attributes:
        adversarial_sha256: of the run.
        detector_sha256: of the detector's file.
        model: the model that the detector was fitted on.
        calibration: `conformal`, from clean images alone, or `stump`.
        alpha: the rate of false positives that it was calibrated for; None for a stump.
        side, per_class, delta: as in `SharpnessDetector`.
        data: the images that it was calibrated on; None if its file does not name them.
        calibration_scores: how many clean scores its thresholds come from.
        thresholds: predicted class -> bounds of the score; -1 is every class.
        kinds: the flagged samples.
        outside_budget: examples that count neither as successful nor as failed.
        seen: clean images with the score of a calibration image: probably the same image.
        adaptive: the result of an adaptive attack on the detector; None is not measured.
    """

    format_version: Annotated[int, Field(le=_FORMAT_VERSION)] = _FORMAT_VERSION
    adversarial_sha256: str
    detector_sha256: str
    model: str
    calibration: Literal["conformal", "stump"]
    alpha: float | None
    side: Side
    per_class: bool
    delta: float | None
    data: CalibrationFacts | None
    calibration_scores: int
    thresholds: dict[int, Bounds]
    kinds: Kinds
    outside_budget: int
    seen: int
    adaptive: AdaptiveFacts | None

    @property
    def in_sample(self) -> bool:
        """Whether the detector was calibrated on most of the run's clean images."""
        return 2 * self.seen > self.kinds.clean.samples

    @property
    def in_sample_warning(self) -> str:
        """Why the rate of false positives is no evidence where `in_sample`; no full stop."""
        return (
            f"{self.seen:,} of {self.kinds.clean.samples:,} clean images have the score of a "
            "calibration image, so they are probably the same images, and how many of them are "
            "flagged tells nothing about new ones"
        )

    @property
    def adaptive_evidence(self) -> str:
        """The result of the adaptive attack, which shows that it is no defence; no full stop."""
        found = self.adaptive
        if found is None or not found.samples:
            return (
                "how often an attacker who knows the detector evades it was not measured: "
                "flatguard detect fit ... --adaptive N"
            )
        low, high = found.interval
        return (
            f"an attacker who knows the detector fools the model on "
            f"{found.misclassified / found.samples:.1%} of {found.samples:,} images and evades it "
            f"on {found.success:.1%} (95% interval {low:.1%} to {high:.1%}), within {found.norm} "
            f"{pretty_eps(found.eps)}"
        )


def flag(run: Run, detector: SavedDetector) -> Detection:
    """Flag a run's samples.

    Raises:
        DetectorError: the detector was fitted on another model.
    """
    detector.check_run(run.manifest.target)
    classes = detector.classes
    thresholds = {key: Bounds(lower=of.lower, upper=of.upper) for key, of in classes.items()}
    clean = run.samples[f"clean_{detector.measure.column}"].to_numpy(np.float64)
    calibration = np.concatenate([of.scores for of in classes.values()])
    return Detection(
        adversarial_sha256=run.adversarial_sha256(),
        detector_sha256=detector.sha256,
        model=detector.model,
        calibration=detector.how.calibration,
        alpha=detector.alpha,
        side=detector.side,
        per_class=detector.how.per_class,
        delta=detector.how.delta,
        data=detector.data,
        calibration_scores=len(calibration),
        thresholds=thresholds,
        kinds=_kinds(run, thresholds),
        outside_budget=int((_right(run) & ~_admissible(run)).sum()),
        seen=_seen(clean, calibration),
        adaptive=detector.adaptive,
    )


def write_detection(run: Run, detection: Detection) -> None:
    """Write `detection.json` into the run folder; an existing one is replaced."""
    write_text(run.path / DETECTION, detection.model_dump_json(indent=2))


def load_detection(run: Run) -> Detection | None:
    """The flagged samples of a run, counted again; None if no detector was given.

    Raises:
        RunFolderError: damaged, or of another run.
    """
    file = run.path / DETECTION
    if not file.is_file():
        return None
    advice = f"delete it, or flatguard audit {quoted(run.storage)} --detector FILE writes it anew"
    try:
        found: Detection = read_json(Detection, file)
    except RunFolderError as error:
        raise RunFolderError(f"{error}; {advice}") from error
    counted = found.model_copy(update={"kinds": _kinds(run, found.thresholds)})
    if found.adversarial_sha256 != run.adversarial_sha256() or _counts(found) != _counts(counted):
        raise RunFolderError(f"{file} is not of this run's evidence; {advice}")
    return counted


def scores_of(run: Run) -> dict[str, np.ndarray]:
    """The scores of each kind of samples, `(n,)` float64; the keys are the fields of `Kinds`."""
    return {name: scores for name, (scores, _) in _parts(run).items()}


def distances_of(run: Run, detection: Detection) -> dict[str, np.ndarray]:
    """How far the score lies inside its class's thresholds, in nats, for each kind of samples."""
    thresholds = Thresholds(detection.thresholds, {}, detection.side)
    return {name: thresholds.distance(*part) for name, part in _parts(run).items()}


def _kinds(run: Run, thresholds: Mapping[int, Bounds]) -> Kinds:
    decide = Thresholds(thresholds, {}, "two-sided")
    return Kinds(
        **{
            # A run stores scores in float32. NumPy compares it with bounds rounded to float32, so
            # a score on a bound is not flagged.
            name: Flagged.of(
                decide.flags(scores.astype(np.float32), predicted), scores, run.sharpness
            )
            for name, (scores, predicted) in _parts(run).items()
        }
    )


def _parts(run: Run) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The score and the predicted class for each kind of samples."""
    right, robust = _right(run), run.samples["robust"].to_numpy(bool)
    everything = np.ones(len(right), dtype=bool)
    kinds = {
        "clean": ("clean", everything),
        "clean_right": ("clean", right),
        "clean_wrong": ("clean", ~right),
        "successful": ("adv", right & ~robust),
        "failed": ("adv", right & robust & _admissible(run)),
    }
    return {
        name: (
            run.samples.loc[chosen, f"{when}_{run.sharpness.column}"].to_numpy(np.float64),
            run.samples.loc[chosen, f"{when}_prediction"].to_numpy(np.int64),
        )
        for name, (when, chosen) in kinds.items()
    }


def _right(run: Run) -> np.ndarray:
    return run.samples["clean_correct"].to_numpy(bool)


def _admissible(run: Run) -> np.ndarray:
    return run.samples["admissible"].to_numpy(bool)


def _counts(detection: Detection) -> list[tuple[int, int, int]]:
    kinds = (getattr(detection.kinds, name) for name in Kinds.model_fields)
    return [(kind.samples, kind.flagged, kind.unmeasured) for kind in kinds]


def _seen(clean: np.ndarray, calibration: np.ndarray) -> int:
    """How many clean scores are also calibration scores."""
    ordered = np.sort(calibration)
    after = np.searchsorted(ordered, clean).clip(1, max(len(ordered) - 1, 1))
    neighbours = ordered[np.stack([after - 1, after.clip(max=len(ordered) - 1)])]
    slack = _SAME_SCORE * np.maximum(1.0, np.abs(clean))
    return int((np.abs(neighbours - clean).min(axis=0) <= slack).sum())
