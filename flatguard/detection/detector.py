"""`SharpnessDetector`: an estimator on images that follows scikit-learn's conventions.

It flags adversarial examples of attacks that do not know it. An attack that knows it evades it (see
`adaptive`), so it is a diagnostic, not a defence.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from flatguard.detection.conformal import FalsePositiveRate, Side
from flatguard.detection.detector_file import NoiseFacts, SavedDetector
from flatguard.detection.scores import LARGEST, scored_pass
from flatguard.detection.thresholds import Thresholds, conformal, from_stump
from flatguard.environment.caller import own_process
from flatguard.environment.devices import device_of
from flatguard.environment.requirements import needed
from flatguard.errors import DataError, UsageError
from flatguard.targets.target import Target

with needed("scikit-learn", "detection", "SharpnessDetector"):
    from sklearn.base import BaseEstimator, OutlierMixin
    from sklearn.utils.validation import check_is_fitted

Images = Tensor | np.ndarray
Calibration = Literal["conformal", "stump"]
CLEAN, ADVERSARIAL = 1, -1


@dataclass(frozen=True)
class Classified:
    """The outputs of the model and the detector on n images, from one forward pass.

    Attributes:
        logits: `(n, k)`.
        predicted: `(n,)` int64.
        score: `(n,)` float64, log κ, or log logit sharpness without a proven head; NaN where it
            could not be measured.
        flagged: `(n,)` bool; an image without a score is flagged.
    """

    logits: Tensor
    predicted: np.ndarray
    score: np.ndarray
    flagged: np.ndarray


@dataclass(frozen=True)
class Scored:
    """log κ, or log logit sharpness without a proven head, and the predicted class of n images."""

    score: np.ndarray
    predicted: np.ndarray


class SharpnessDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    r"""Flags images whose log κ at the head lies outside that of clean images.

    Without a proven head, log logit sharpness $\log \sum_j p_j (1 - p_j)$ takes its place.

    $\log \kappa = \log \|W\|_F^2 + \log \sum_j p_j (1 - p_j) + 2 \log \|\varphi\|$, of the class
    probabilities p and the head's inputs φ. Converged attacks end *below* the clean range, in the
    flat valley beyond the boundary. Weak attacks end *above* it. So both sides are flagged.
    Source: Walter et al. (2026), Appendix D.4.

    Args:
        target: a prepared `Target`. Clones share it.
        alpha: the rate of false positives on clean images.
        side: `two-sided`, `low` or `high`; a stump chooses its own.
        per_class: separate thresholds for each predicted class.
        delta: None for the marginal guarantee (averaged over calibration sets); otherwise the
            probability that one calibration set gives a higher rate than alpha.
        calibration: `conformal` needs clean images only; `stump` also adversarial ones, in y.
        batch_size: images a forward pass.
        seed: of a stump's folds.

    Attributes:
        thresholds_: the bounds, with the clean scores that they come from, after `fit`.
        noise_: the model's answers to noise images, by which `load` knows it again.

    Cost of a decision: one forward pass, and below 1% of it for the score.

    Example:
        >>> detector = SharpnessDetector(target, alpha=0.05).fit(clean)  # doctest: +SKIP
        >>> detector.predict(images)  # -1 is flagged  # doctest: +SKIP
        array([ 1,  1, -1])
    """

    thresholds_: Thresholds
    noise_: NoiseFacts | None

    def __init__(
        self,
        target: Target,
        *,
        alpha: float = 0.05,
        side: Side = "two-sided",
        per_class: bool = False,
        delta: float | None = None,
        calibration: Calibration = "conformal",
        batch_size: int = 128,
        seed: int = 0,
    ):
        self.target = target
        self.alpha = alpha
        self.side = side
        self.per_class = per_class
        self.delta = delta
        self.calibration = calibration
        self.batch_size = batch_size
        self.seed = seed

    def fit(self, X: Images, y: Any = None, groups: Any = None) -> SharpnessDetector:
        """Calibrate on images.

        Args:
            X: `(n, channels, height, width)` in [0, 1].
            y: `(n,)`, 1 for clean and -1 for adversarial; None if all are clean.
            groups: `(n,)`, equal for an image and its adversarial example, which share a fold of
                a stump; None if there are no pairs.

        Raises:
            DataError: images or labels of the wrong type or range.
            UsageError: too few images; the message has the number that is needed.
        """
        images = _images(X)
        kinds = np.full(len(images), CLEAN) if y is None else np.asarray(y)
        if kinds.shape != (len(images),) or not np.isin(kinds, (CLEAN, ADVERSARIAL)).all():
            raise DataError(f"y: expected a 1 (clean) or -1 (adversarial) for all {len(images)}")
        self.noise_ = NoiseFacts.of(self.target, tuple(images.shape[1:]))
        scored, is_adversarial = self.scored(images), kinds == ADVERSARIAL
        if self.calibration == "stump":
            own = np.arange(len(images)) if groups is None else np.asarray(groups)
            self.thresholds_ = from_stump(scored.score, is_adversarial, own, self.seed)
        elif self.calibration == "conformal":
            self.thresholds_ = conformal(
                scored.score[~is_adversarial],
                scored.predicted[~is_adversarial],
                FalsePositiveRate(self.alpha, self.side, self.delta),
                self.target.num_classes if self.per_class else None,
            )
        else:
            raise UsageError(f"calibration: expected conformal or stump, got {self.calibration!r}")
        return self

    def scored(self, X: Images) -> Scored:
        """Score and predicted class of images, in batches."""
        parts = [_forward(self.target, batch)[1] for batch in _images(X).split(self.batch_size)]
        return Scored(
            np.concatenate([part.score for part in parts]),
            np.concatenate([part.predicted for part in parts]),
        )

    def classify(self, X: Images) -> Classified:
        """The model's logits and the detector's flags, from the same single forward pass."""
        check_is_fitted(self, "thresholds_")
        logits, scored = _forward(self.target, _images(X))
        flagged = self.thresholds_.flags(scored.score, scored.predicted)
        return Classified(logits, scored.predicted, scored.score, flagged)

    def decision_function(self, X: Images) -> np.ndarray:
        """How far the score lies inside the bounds, `(n,)` in nats; negative is flagged."""
        check_is_fitted(self, "thresholds_")
        scored = self.scored(X)
        return self.thresholds_.distance(scored.score, scored.predicted)

    def score_samples(self, X: Images) -> np.ndarray:
        """Minus `conformal.atypicality`, `(n,)`, for ROC curves; independent of alpha."""
        check_is_fitted(self, "thresholds_")
        scored = self.scored(X)
        return -self.thresholds_.atypicality(scored.score, scored.predicted)

    def predict(self, X: Images) -> np.ndarray:
        """1 for an image that passes, -1 for one that is flagged, `(n,)`."""
        check_is_fitted(self, "thresholds_")
        scored = self.scored(X)
        flagged = self.thresholds_.flags(scored.score, scored.predicted)
        return np.where(flagged, ADVERSARIAL, CLEAN)

    def save(self, path: str | Path, **facts: Any) -> None:
        """Write the fitted detector to one JSON file, bound to the target's weights.

        Args:
            path: an existing file is replaced.
            **facts: more fields of `SavedDetector`: `data`, `adaptive`.
        """
        check_is_fitted(self, "thresholds_")
        facts = {"noise": self.noise_, **facts}
        SavedDetector.of(self.target, self.thresholds_, self._parameters(), **facts).write(
            Path(path)
        )

    @classmethod
    def load(cls, path: str | Path, target: Target) -> SharpnessDetector:
        """Read a fitted detector from its file.

        Raises:
            DetectorError: no such file, damaged, of a newer format, or fitted on another model.
        """
        saved = SavedDetector.open(path)
        saved.check_target(target)
        detector = cls(target, **saved.how.model_dump())
        detector.thresholds_ = saved.thresholds()
        detector.noise_ = saved.noise
        return detector

    def _parameters(self) -> dict[str, Any]:
        """Every parameter except the target."""
        return {name: value for name, value in self.get_params().items() if name != "target"}

    def __sklearn_clone__(self) -> SharpnessDetector:
        """An unfitted detector with the same parameters; the model is shared, not copied."""
        return type(self)(self.target, **self._parameters())


def _forward(target: Target, images: Tensor) -> tuple[Tensor, Scored]:
    with own_process(), torch.no_grad():
        seen = scored_pass(target, images.to(device_of(target.model)))
    score = seen.score.cpu().numpy().clip(-LARGEST, LARGEST)
    return seen.logits, Scored(score, seen.predicted.cpu().numpy())


def _images(given: Images) -> Tensor:
    images = torch.as_tensor(given)
    if images.ndim != 4 or not images.is_floating_point():
        raise DataError(
            "expected floating-point images (n, channels, height, width) in [0, 1], got "
            f"{tuple(images.shape)} of {str(images.dtype).removeprefix('torch.')}"
        )
    low, high = images.aminmax() if images.numel() else (0.0, 1.0)  # a NaN is both
    if not (low >= 0 and high <= 1):
        raise DataError(
            "expected images in [0, 1], got values outside or NaN; divide by 255, and leave the "
            "normalisation to the model"
        )
    return images.float()
