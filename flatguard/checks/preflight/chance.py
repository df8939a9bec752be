"""Whether a clean accuracy is beyond chance, by an exact test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pandas as pd

_LEVEL = 0.05

Answer = Literal["beyond", "at-chance", "too-few", "one-class"]


@dataclass(frozen=True)
class AgainstChance:
    """A clean accuracy, and what a model that ignores the image reaches.

    Attributes:
        correct, images: the accuracy.
        guess: the larger of 1/K and the largest class's share.
        answer: `beyond` chance; `at-chance`: it is not; `too-few`: so few images cannot tell;
            `one-class`: all images have one label, and a constant answer is right on all.
    """

    correct: int
    images: int
    guess: float
    answer: Answer

    @property
    def accuracy(self) -> float:
        """As a share."""
        return self.correct / self.images


def against_chance(samples: pd.DataFrame, num_classes: int) -> AgainstChance | None:
    """Test the clean accuracy of a run's samples, by an exact binomial test at 5%.

    None where no sample was measured.
    """
    from scipy.stats import binom

    measured = samples[~samples["failed"]]
    images = len(measured)
    if not images:
        return None
    correct = int(measured["clean_correct"].sum())
    largest = int(measured["label"].value_counts().iloc[0])
    guess = max(1.0 / num_classes, largest / images)
    answer: Answer
    if largest == images:
        answer = "one-class"
    elif binom.sf(correct - 1, images, guess) < _LEVEL:
        answer = "beyond"
    elif correct > guess * images or guess**images >= _LEVEL:
        answer = "too-few"
    else:
        answer = "at-chance"
    return AgainstChance(correct, images, guess, answer)
