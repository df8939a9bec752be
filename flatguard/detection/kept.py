"""A fitted detector in one JSON file: no code in it, versioned, bound to one model's weights."""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flatguard.detection.conformal import Bounds, Side
from flatguard.detection.scores import head_of
from flatguard.detection.stump import Stump
from flatguard.detection.thresholds import Thresholds
from flatguard.errors import DetectorError, one_line
from flatguard.runs.facts import TargetFacts
from flatguard.runs.json_files import write_text
from flatguard.targets.target import Target

FORMAT_VERSION = 1
LARGEST_FILE = 64 << 20
"""Bytes; a million calibration scores take 20 MB."""


class Facts(BaseModel):
    """Frozen, without unknown keys; a bound without a number is written as null."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class How(Facts):
    """The parameters of a `SharpnessDetector`, all but its target."""

    alpha: Annotated[float, Field(gt=0, lt=1)]
    side: Side
    per_class: bool
    delta: Annotated[float, Field(gt=0, lt=1)] | None
    calibration: Literal["conformal", "stump"]
    batch_size: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)]


class KeptBounds(Facts):
    """The thresholds of a predicted class."""

    model_config = ConfigDict(allow_inf_nan=False)

    lower: float | None
    upper: float | None

    @property
    def bounds(self) -> Bounds:
        """What decides."""
        return Bounds(
            -math.inf if self.lower is None else self.lower,
            math.inf if self.upper is None else self.upper,
        )


class KeptClass(KeptBounds):
    """One predicted class: its thresholds and the clean scores they come from, sorted."""

    scores: Annotated[tuple[float, ...], Field(min_length=1)]


class KeptStump(Facts):
    """A stump; see `stump.Stump`."""

    threshold: float
    low: bool
    folds: tuple[float, ...]


class CalibrationFacts(Facts):
    """Which images a detector was calibrated on."""

    name: str
    sha256: str
    samples: Annotated[int, Field(ge=1)]
    seed: int


class AdaptiveFacts(Facts):
    """What an attacker who knows the detector achieves: the number that makes it no defence.

    Attributes:
        norm, eps: the budget.
        samples: images that were right when clean and attacked.
        evaded: of them, those made wrong, unflagged and within budget.
        interval: of the share, 95%.
        misclassified: of them, those made wrong at all by the same attack.
        false_positives: the rate that the detector was calibrated for; None of a stump.
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
        """The share of attacked images that evade."""
        return self.evaded / self.samples


class KeptDetector(Facts):
    """A `SharpnessDetector` as it stands in its file."""

    format_version: int = FORMAT_VERSION
    kind: Literal["flatguard sharpness detector"] = "flatguard sharpness detector"
    created: str
    model: str
    weights_sha256: str
    head: str
    log_weight_norm_squared: float
    how: How
    side: Side
    classes: dict[int, KeptClass]
    stump: KeptStump | None = None
    data: CalibrationFacts | None = None
    adaptive: AdaptiveFacts | None = None

    @classmethod
    def of(
        cls, target: Target, found: Thresholds, how: dict[str, Any], **facts: Any
    ) -> KeptDetector:
        """What is to be written of a fitted detector."""
        head, stump = head_of(target), found.stump
        return cls(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            model=target.name,
            weights_sha256=target.weights_sha256,
            head=head.name,
            log_weight_norm_squared=head.log_weight_norm_squared(),
            how=How(**how),
            side=found.side,
            classes={
                key: KeptClass(
                    lower=_finite(bounds.lower),
                    upper=_finite(bounds.upper),
                    scores=tuple(found.calibration[key].tolist()),
                )
                for key, bounds in found.bounds.items()
            },
            stump=None if stump is None else KeptStump(**asdict(stump)),
            **facts,
        )

    def write(self, path: Path) -> None:
        """Replace the file at once."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, self.model_dump_json(indent=1))
        except OSError as error:
            raise DetectorError(f"cannot write {path}: {error.strerror}") from error

    @classmethod
    def read(cls, path: Path) -> KeptDetector:
        """Read a file; nothing in it is ever run.

        Raises:
            DetectorError: no such file, too large, of a newer format, or damaged.
        """
        try:
            if path.stat().st_size > LARGEST_FILE:
                raise DetectorError(f"{path} is larger than any detector: over 64 MB")
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise DetectorError(
                f"cannot read {path}: {reason}; make one with flatguard detect fit"
            ) from error
        try:
            return cls.model_validate_json(text).checked(path)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise DetectorError(
                f"{path} is no detector, or damaged: {where}: {one_line(Exception(first['msg']))}"
            ) from error

    def checked(self, path: Path) -> KeptDetector:
        """Itself, if this flatguard knows its format and its numbers agree with each other."""
        if self.format_version > FORMAT_VERSION:
            raise DetectorError(
                f"{path} has format {self.format_version}, written by a newer flatguard; this one "
                f"reads up to {FORMAT_VERSION}"
            )
        for kept in self.classes.values():
            ordered = all(a <= b for a, b in zip(kept.scores, kept.scores[1:], strict=False))
            if not ordered or not all(map(math.isfinite, kept.scores)):
                raise DetectorError(f"{path} is damaged: its clean scores are not in order")
        return self

    def thresholds(self) -> Thresholds:
        """What decides."""
        kept = self.stump
        return Thresholds(
            {key: of.bounds for key, of in self.classes.items()},
            {key: np.array(of.scores) for key, of in self.classes.items()},
            self.side,
            Stump(kept.threshold, kept.low, kept.folds) if kept else None,
        )

    def check_target(self, target: Target) -> None:
        """Refuse a model other than the one it was fitted on.

        Raises:
            DetectorError: other weights, or the same with other logits.
        """
        head = head_of(target)
        self._check(target.name, target.weights_sha256, head.log_weight_norm_squared())

    def check_run(self, facts: TargetFacts) -> None:
        """Refuse a run of another model; as `check_target`."""
        if facts.log_weight_norm_squared is None:
            raise DetectorError(
                f"{facts.name} has no head, so it has no relative sharpness: {facts.head_reason}"
            )
        self._check(facts.name, facts.weights_sha256, facts.log_weight_norm_squared)

    def _check(self, name: str, sha256: str, log_weight_norm_squared: float) -> None:
        if sha256 != self.weights_sha256:
            raise DetectorError(
                f"this detector was fitted on {self.model} (weights {self.weights_sha256[:12]}), "
                f"not on {name} (weights {sha256[:12]}); fit one with flatguard detect fit"
            )
        if not math.isclose(log_weight_norm_squared, self.log_weight_norm_squared, abs_tol=1e-6):
            raise DetectorError(
                f"this detector was fitted on {self.model} with another --logit-scale or --head; "
                "fit one with flatguard detect fit"
            )

    @property
    def alpha(self) -> float | None:
        """The rate of false positives it was calibrated for; a stump promises none."""
        return None if self.stump else self.how.alpha


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
