"""A fitted detector in one JSON file: it holds no code and is bound to one model.

A model is known by its weights and, where it is loaded, by its answers.
"""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field, PrivateAttr, ValidationError

from flatguard.detection.conformal import Bounds, Side
from flatguard.detection.facts import Facts
from flatguard.detection.scores import prepared
from flatguard.detection.stump import Stump
from flatguard.detection.thresholds import Thresholds
from flatguard.errors import DetectorError, UsageError, one_line
from flatguard.geometry.measures import KAPPA, LOGIT_SHARPNESS, SharpnessMeasure
from flatguard.runs.facts import TargetFacts, same_answers
from flatguard.runs.json_files import write_text
from flatguard.targets.answers import Answers, answers_to_noise
from flatguard.targets.target import Target

_FORMAT_VERSION = 1
_MAX_BYTES = 64 << 20
"""A million calibration scores take 20 MB."""


class DetectorParameters(Facts):
    """The parameters of a `SharpnessDetector`, except its target."""

    alpha: Annotated[float, Field(gt=0, lt=1)]
    side: Side
    per_class: bool
    delta: Annotated[float, Field(gt=0, lt=1)] | None
    calibration: Literal["conformal", "stump"]
    batch_size: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)]


class ClassCalibration(Bounds):
    """The thresholds of one predicted class, and the sorted clean scores that they come from."""

    scores: Annotated[tuple[float, ...], Field(min_length=1)]


class CalibrationFacts(Facts):
    """The images that a detector was calibrated on."""

    name: str
    sha256: str
    samples: Annotated[int, Field(ge=1)]
    seed: int


class AdaptiveFacts(Facts):
    """The result of an adaptive attack. It shows why the detector is no defence.

    Attributes:
        norm, eps: the budget.
        samples: attacked images; the model classifies each correctly when clean.
        evaded: of them, those that became misclassified, unflagged and within budget.
        interval: of the share, 95%.
        misclassified: of them, those that the same attack made the model misclassify.
        false_positives: the rate that the detector was calibrated for; None for a stump.
        seed: of the attack.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    norm: str
    eps: float
    samples: int
    evaded: int
    interval: tuple[float, float]
    misclassified: int
    false_positives: float | None
    seed: int

    @property
    def success(self) -> float:
        """The share of attacked images that evade the detector."""
        return self.evaded / self.samples


class NoiseFacts(Facts):
    """The model's logits for noise images: they differ where the weights do not.

    Attributes:
        shape: of one image.
        answers: `(n, k)`; None if they are not repeatable.
    """

    shape: tuple[int, ...]
    answers: Answers | None

    @classmethod
    def of(cls, target: Target, shape: tuple[int, ...]) -> NoiseFacts:
        """The logits of this target."""
        return cls(shape=shape, answers=answers_to_noise(target, shape))

    def agree(self, target: Target) -> bool:
        """Whether the target answers alike."""
        return same_answers(self.answers, answers_to_noise(target, self.shape))


class SavedDetector(Facts):
    """The content of a `SharpnessDetector`'s file.

    Without a head its scores are logit sharpness, and log ‖W‖² is missing.
    """

    format_version: int = _FORMAT_VERSION
    kind: Literal["flatguard sharpness detector"] = "flatguard sharpness detector"
    created: str
    model: str
    weights_sha256: str
    head: str | None
    log_weight_norm_squared: float | None
    how: DetectorParameters
    side: Side
    classes: dict[int, ClassCalibration]
    stump: Stump | None = None
    data: CalibrationFacts | None = None
    adaptive: AdaptiveFacts | None = None
    noise: NoiseFacts | None = None

    _file_sha256: str | None = PrivateAttr(None)

    @classmethod
    def of(
        cls, target: Target, thresholds: Thresholds, parameters: dict[str, Any], **facts: Any
    ) -> SavedDetector:
        """The file's content for a fitted detector; `facts` are `data`, `adaptive`, `noise`."""
        head = prepared(target).head
        return cls(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            model=target.name,
            weights_sha256=target.weights_sha256,
            head=head.name if head else None,
            log_weight_norm_squared=head.log_weight_norm_squared() if head else None,
            how=DetectorParameters(**parameters),
            side=thresholds.side,
            classes={
                key: ClassCalibration(
                    lower=bounds.lower,
                    upper=bounds.upper,
                    scores=tuple(thresholds.calibration[key].tolist()),
                )
                for key, bounds in thresholds.bounds.items()
            },
            stump=thresholds.stump,
            **facts,
        )

    def write(self, path: Path) -> None:
        """Write the file; an existing one is replaced atomically."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, self.model_dump_json(indent=1))
        except OSError as error:
            raise DetectorError(f"cannot write {path}: {error.strerror}") from error

    @classmethod
    def open(cls, detector: str | Path | SavedDetector) -> SavedDetector:
        """Read a detector by its path; a detector that is already read is returned.

        Raises:
            DetectorError: no such file, too large, of a newer format, or damaged.
        """
        if isinstance(detector, SavedDetector):
            return detector
        if not isinstance(detector, str | Path):
            raise UsageError(
                f"detector: expected a path or a SavedDetector, got {type(detector).__name__}"
            )
        path = Path(detector)
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise DetectorError(f"{path} is larger than any detector: over 64 MB")
            content = path.read_bytes()
            text = content.decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise DetectorError(
                f"cannot read {path}: {reason}; make one with flatguard detect fit"
            ) from error
        try:
            found = cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise DetectorError(
                f"{path} is no detector, or damaged: {where}: {one_line(Exception(first['msg']))}"
            ) from error
        found._check_content(path)
        found._file_sha256 = hashlib.sha256(content).hexdigest()
        return found

    @property
    def sha256(self) -> str:
        """SHA-256 of the detector's file, in hexadecimal."""
        if self._file_sha256 is not None:
            return self._file_sha256
        return hashlib.sha256((self.model_dump_json(indent=1) + "\n").encode()).hexdigest()

    def _check_content(self, path: Path) -> None:
        """Refuse a newer format, and clean scores that are not sorted."""
        if self.format_version > _FORMAT_VERSION:
            raise DetectorError(
                f"{path} has format {self.format_version}, written by a newer flatguard; this one "
                f"reads up to {_FORMAT_VERSION}"
            )
        if any(list(of.scores) != sorted(of.scores) for of in self.classes.values()):
            raise DetectorError(f"{path} is damaged: its clean scores are not in order")

    def thresholds(self) -> Thresholds:
        """The thresholds that decide."""
        calibration = {key: np.array(of.scores) for key, of in self.classes.items()}
        return Thresholds(self.classes, calibration, self.side, self.stump)

    def check_target(self, target: Target) -> None:
        """Refuse a model other than the one that the detector was fitted on.

        Raises:
            DetectorError: other weights, or the same weights with scaled logits or other answers.
        """
        head = prepared(target).head
        norm = head.log_weight_norm_squared() if head else None
        self._check(target.name, target.weights_sha256, norm)
        if self.noise is not None and not self.noise.agree(target):
            raise DetectorError(
                f"{target.name} answers otherwise now than when this detector was fitted: its "
                "weights are the same, but something else that it computes with has changed; fit "
                "one with flatguard detect fit"
            )

    def check_run(self, facts: TargetFacts) -> None:
        """Refuse a run of another model; as `check_target`."""
        if facts.log_weight_norm_squared is None and self.log_weight_norm_squared is not None:
            raise DetectorError(
                f"{facts.name} has no head, so it has no relative sharpness: {facts.head_reason}"
            )
        self._check(facts.name, facts.weights_sha256, facts.log_weight_norm_squared)

    @property
    def measure(self) -> SharpnessMeasure:
        """What the thresholds are about."""
        return LOGIT_SHARPNESS if self.head is None else KAPPA

    def _check(self, name: str, sha256: str, log_weight_norm_squared: float | None) -> None:
        if sha256 != self.weights_sha256:
            raise DetectorError(
                f"this detector was fitted on {self.model} (weights {self.weights_sha256[:12]}), "
                f"not on {name} (weights {sha256[:12]}); fit one with flatguard detect fit"
            )
        if not _is_like(log_weight_norm_squared, self.log_weight_norm_squared):
            raise DetectorError(
                f"this detector was fitted on {self.model} with another --logit-scale or --head; "
                "fit one with flatguard detect fit"
            )

    @property
    def alpha(self) -> float | None:
        """The rate of false positives that it was calibrated for; None for a stump."""
        return None if self.stump else self.how.alpha


def _is_like(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, abs_tol=1e-6)
