"""What a detector that needs more than one forward pass, or training, is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from flatguard.environment.devices import device_of
from flatguard.targets.target import Target, model_errors


@dataclass(frozen=True)
class TrainingImages:
    """Images that a baseline may learn from; none of them is evaluated or calibrated on.

    Attributes:
        images: `(n, channels, height, width)`, clean.
        labels: `(n,)` int64.
        noisy: the same with uniform noise of the attack's radius.
        adversarial: `(m, ...)`, successful examples made of some of them.
    """

    images: Tensor
    labels: Tensor
    noisy: Tensor
    adversarial: Tensor


class Baseline(ABC):
    """A detector of another paper; its score grows with what it takes for adversarial.

    Attributes:
        name: as tables have it.
        source: whose it is.
        departs: how this differs from the paper, or an empty string.
        learns_attacks: whether `fit` looks at adversarial examples.
    """

    name: str
    source: str
    departs: str = ""
    learns_attacks: bool = False

    def __init__(self, target: Target, batch_size: int, seed: int):
        self.target, self.batch_size, self.seed = target, batch_size, seed

    @abstractmethod
    def fit(self, given: TrainingImages) -> None:
        """Learn what it needs."""

    @abstractmethod
    def score(self, images: Tensor) -> Tensor:
        """`(n,)` float64; larger is more adversarial."""

    def batches(self, images: Tensor) -> Iterator[Tensor]:
        """The images on the model's device, a batch at a time."""
        device = device_of(self.target.model)
        for batch in images.split(self.batch_size):
            yield batch.to(device)

    def logits(self, images: Tensor) -> Tensor:
        """One pass over a batch; what the model raises becomes one line."""
        with model_errors(self.target.name, f"on {len(images)} images at once"):
            logits: Tensor = self.target.model(images)
        return logits
