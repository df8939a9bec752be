"""What a detector flags in a run: a pure function of the run's table and the detector's file.

`detection.json` is derived; whoever reads it counts again, so that no number in it is believed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from flatguard.checks.statistics import interval
from flatguard.detection.conformal import Side
from flatguard.detection.kept import (
    AdaptiveFacts,
    CalibrationFacts,
    Facts,
    KeptBounds,
    KeptDetector,
)
from flatguard.detection.thresholds import Thresholds
from flatguard.environment.system import quoted
from flatguard.errors import RunFolderError, UsageError
from flatguard.geometry.budget import pretty_eps
from flatguard.runs.json_files import read_json, write_text
from flatguard.runs.run import Run

DETECTION = "detection.json"
FORMAT_VERSION = 1
SAME_SCORE = 1e-5
"""Relative: two forward passes of one image in float32 differ by less, two images hardly ever."""
MEASURE_ADAPTIVE = "flatguard detect fit ... --adaptive N"


@dataclass(frozen=True)
class Opened:
    """A detector with the SHA-256 of its file."""

    kept: KeptDetector
    sha256: str

    @classmethod
    def of(cls, detector: str | Path | KeptDetector) -> Opened:
        """A detector by its path, or as it was read.

        Raises:
            DetectorError: no such file, or it is damaged.
        """
        if isinstance(detector, KeptDetector):
            content = (detector.model_dump_json(indent=1) + "\n").encode()  # as `write` writes it
            return cls(detector, hashlib.sha256(content).hexdigest())
        if not isinstance(detector, str | Path):
            raise UsageError(
                f"detector: expected a path or a KeptDetector, got {type(detector).__name__}"
            )
        kept = KeptDetector.read(Path(detector))
        return cls(kept, hashlib.sha256(Path(detector).read_bytes()).hexdigest())


class Flagged(Facts):
    """How many samples of a kind are flagged.

    Attributes:
        samples: of this kind.
        flagged: of them; those that could not be measured are among them.
        unmeasured: of them, those without log κ.
        share: flagged of samples; None without samples.
        interval: of the share, exact 95%; (0, 1) without samples.
    """

    samples: int
    flagged: int
    unmeasured: int
    share: float | None
    interval: tuple[float, float]

    @classmethod
    def of(cls, flags: np.ndarray, scores: np.ndarray) -> Flagged:
        """Count samples from their flags and their scores, `(n,)` each."""
        n, flagged = len(flags), int(flags.sum())
        return cls(
            samples=n,
            flagged=flagged,
            unmeasured=int(np.isnan(scores).sum()),
            share=flagged / n if n else None,
            interval=interval(flagged, n),
        )

    @property
    def recognised(self) -> int:
        """Flagged for what was measured: a sample without log κ is flagged, and not recognised."""
        return self.flagged - self.unmeasured

    def __str__(self) -> str:
        said = "none" if self.share is None else f"{self.share:.1%} of {self.samples:,}"
        return said + (f" ({self.unmeasured:,} without log κ)" if self.unmeasured else "")


class Kinds(Facts):
    """What is flagged of each kind of samples.

    Attributes:
        clean: every clean image.
        clean_right: those that the model gets right.
        clean_wrong: those that it gets wrong without an attack.
        successful: adversarial examples of images that were right, wrong now and within budget.
        failed: returned examples that are within budget, and right still.
    """

    clean: Flagged
    clean_right: Flagged
    clean_wrong: Flagged
    successful: Flagged
    failed: Flagged


class Detection(Facts):
    """What a detector flags in one run.

    Attributes:
        adversarial_sha256: of the run.
        detector_sha256: of the detector's file.
        model: that it was fitted on.
        calibration: from clean images alone, or a stump.
        alpha: the rate of false positives that it was calibrated for; None for a stump.
        side, per_class, delta: as in `SharpnessDetector`.
        data: which images it was calibrated on, where its file says so.
        calibration_scores: how many clean scores its thresholds come from.
        thresholds: predicted class -> bounds of log κ; -1 is every class.
        kinds: what it flags.
        outside_budget: examples that count neither as successful nor as failed.
        seen: clean images with the score of a calibration image: probably the same image.
        adaptive: what an attacker who knows the detector achieves; None is not measured.
    """

    format_version: Annotated[int, Field(le=FORMAT_VERSION)] = FORMAT_VERSION
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
    thresholds: dict[int, KeptBounds]
    kinds: Kinds
    outside_budget: int
    seen: int
    adaptive: AdaptiveFacts | None

    @property
    def in_sample(self) -> bool:
        """Whether most clean images served to calibrate: then the rate on them proves nothing."""
        return 2 * self.seen > self.kinds.clean.samples

    @property
    def not_new(self) -> str:
        """What is wrong with the rate of false positives where `in_sample`; no full stop."""
        return (
            f"{self.seen:,} of {self.kinds.clean.samples:,} clean images have the score of a "
            "calibration image, so their false positives say nothing about new images"
        )

    @property
    def against_it(self) -> str:
        """Why it is no defence, with the number that shows it; no full stop."""
        found = self.adaptive
        if found is None or not found.samples:
            return (
                "how often an attacker who knows the detector evades it was not measured: "
                f"{MEASURE_ADAPTIVE}"
            )
        low, high = found.interval
        return (
            f"an attacker who knows the detector fools the model on "
            f"{found.misclassified / found.samples:.1%} of {found.samples:,} images and evades it "
            f"on {found.success:.1%} (95% interval {low:.1%} to {high:.1%}), within {found.norm} "
            f"{pretty_eps(found.eps)}"
        )


def flag(run: Run, opened: Opened) -> Detection:
    """Flag a run's samples.

    Raises:
        DetectorError: the detector was fitted on another model.
    """
    kept = opened.kept
    kept.check_run(run.manifest.target)
    thresholds = {
        key: KeptBounds(lower=of.lower, upper=of.upper) for key, of in kept.classes.items()
    }
    clean = run.samples["clean_log_kappa"].to_numpy(np.float64)
    calibration = np.concatenate([of.scores for of in kept.classes.values()])
    return Detection(
        adversarial_sha256=run.adversarial_sha256(),
        detector_sha256=opened.sha256,
        model=kept.model,
        calibration=kept.how.calibration,
        alpha=kept.alpha,
        side=kept.side,
        per_class=kept.how.per_class,
        delta=kept.how.delta,
        data=kept.data,
        calibration_scores=len(calibration),
        thresholds=thresholds,
        kinds=_kinds(run, thresholds),
        outside_budget=int((_right(run) & ~_admissible(run)).sum()),
        seen=_seen(clean, calibration),
        adaptive=kept.adaptive,
    )


def write_detection(run: Run, detection: Detection) -> None:
    """Put it beside the evidence, in place of an earlier one."""
    write_text(run.path / DETECTION, detection.model_dump_json(indent=2))


def load_detection(run: Run) -> Detection | None:
    """What a detector flagged in a run, counted again; None where none was asked.

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
    """log κ of each kind, `(n,)` float64: the kinds' names are those of `Kinds`."""
    return {name: scores for name, (scores, _) in _parts(run).items()}


def distances_of(run: Run, detection: Detection) -> dict[str, np.ndarray]:
    """How far log κ lies inside its class's thresholds, in nats, of each kind."""
    thresholds = _thresholds(detection.thresholds, detection.side)
    return {name: thresholds.distance(*part) for name, part in _parts(run).items()}


def _kinds(run: Run, thresholds: Mapping[int, KeptBounds]) -> Kinds:
    decide = _thresholds(thresholds, "two-sided")
    return Kinds(
        **{
            # A run keeps log κ in float32. Rounding keeps order, so bounds that are rounded with
            # the scores flag no score that lay on them.
            name: Flagged.of(decide.flags(scores.astype(np.float32), predicted), scores)
            for name, (scores, predicted) in _parts(run).items()
        }
    )


def _thresholds(bounds: Mapping[int, KeptBounds], side: Side) -> Thresholds:
    return Thresholds({key: kept.bounds for key, kept in bounds.items()}, {}, side)


def _parts(run: Run) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """log κ and the predicted class of each kind of samples."""
    right, robust = _right(run), run.samples["robust"].to_numpy(bool)
    all_of_them = np.ones(len(right), dtype=bool)
    kinds = {
        "clean": ("clean", all_of_them),
        "clean_right": ("clean", right),
        "clean_wrong": ("clean", ~right),
        "successful": ("adv", right & ~robust),
        "failed": ("adv", right & robust & _admissible(run)),
    }
    return {
        name: (
            run.samples.loc[chosen, f"{when}_log_kappa"].to_numpy(np.float64),
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
    """How many clean scores are calibration scores, too."""
    ordered = np.sort(calibration)
    after = np.searchsorted(ordered, clean).clip(1, max(len(ordered) - 1, 1))
    neighbours = ordered[np.stack([after - 1, after.clip(max=len(ordered) - 1)])]
    slack = SAME_SCORE * np.maximum(1.0, np.abs(clean))
    return int((np.abs(neighbours - clean).min(axis=0) <= slack).sum())
