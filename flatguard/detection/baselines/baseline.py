"""The base class of detectors that need training or more than one forward pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from flatguard.detection.scores import on_device
from flatguard.targets.first_call import model_errors
from flatguard.targets.target import Target


@dataclass(frozen=True)
class TrainingImages:
    """Images that a baseline may learn from. They are in no other part of the experiment.

    Attributes:
        images: `(n, channels, height, width)`, clean.
        labels: `(n,)` int64.
        noisy: the same images with noise of the attack's radius.
        adversarial: `(m, ...)`, successful examples made from some of them.
    """

    images: Tensor
    labels: Tensor
    noisy: Tensor
    adversarial: Tensor


class Baseline(ABC):
    """A detector of another paper; its score is higher for adversarial examples.

    Attributes:
        name: as tables show it.
        learns_attacks: whether `fit` uses adversarial examples.
    """

    name: str
    learns_attacks: bool = False

    def __init__(self, target: Target, batch_size: int, seed: int):
        self.target, self.batch_size, self.seed = target, batch_size, seed

    @abstractmethod
    def fit(self, training: TrainingImages) -> None:
        """Fit the detector."""

    @abstractmethod
    def score(self, images: Tensor) -> Tensor:
        """`(n,)` float64; larger is more adversarial."""

    def batches(self, images: Tensor) -> Iterator[Tensor]:
        """The images in batches, on the model's device."""
        return on_device(self.target, images, self.batch_size)

    def logits(self, images: Tensor) -> Tensor:
        """One forward pass over a batch; an error of the model becomes a `ModelError`."""
        with model_errors(self.target.name, f"on {len(images)} images at once"):
            logits: Tensor = self.target.model(images)
        return logits
