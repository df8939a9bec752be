"""The clean accuracy of a run: beyond chance or not, and what explains a low one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flatguard.checks.evidence import Evidence
from flatguard.checks.preflight.chance import AgainstChance, against_chance
from flatguard.checks.preflight.facts import Published, TriedInput, facts_of
from flatguard.checks.preflight.labels import is_much_better, other_order

_ONE_GREY_LEVEL = 1.5 / 255
_ALIKE = 0.02


@dataclass(frozen=True)
class CleanAccuracy:
    """The clean accuracy, and what makes it doubtful.

    Attributes:
        chance: the accuracy against a model that ignores the image.
        cause: what explains a low accuracy, with the accuracy that it costs; None if nothing does.
        published: the leaderboard's figure, where the accuracy is far below it.
    """

    chance: AgainstChance
    cause: str | None
    published: Published | None

    @property
    def text(self) -> str:
        """The accuracy: `91.5% (183 of 200)`."""
        chance = self.chance
        return f"{chance.accuracy:.1%} ({chance.correct} of {chance.images})"

    @property
    def nothing_to_judge(self) -> str | None:
        """Why there is no robustness to judge; None if there is."""
        return self._not_beyond if self.chance.answer in ("at-chance", "one-class") else None

    @property
    def undecided(self) -> str | None:
        """Why no verdict follows from a number that nothing refutes; None if one may."""
        if self.chance.answer != "beyond":
            return self._not_beyond
        return None if self.cause is None and self.published is None else self.doubt

    @property
    def doubt(self) -> str | None:
        """What is wrong with it although it is beyond chance; None if nothing is."""
        found = [] if self.cause is None else [f"{self.text}; {self.cause}"]
        if self.published is not None:
            figure = f"{self.published.accuracy:.1%} is published for {self.published.entry}"
            found.append(figure if found else f"{self.text}, and {figure}")
        return f"clean accuracy {'; '.join(found)}" if found else None

    @property
    def _not_beyond(self) -> str:
        chance = self.chance
        because = "" if self.cause is None else f"; {self.cause}"
        if chance.answer == "one-class":
            return (
                f"clean accuracy {self.text}, but all images have one label, and a constant answer "
                f"is right on all of them: evaluate images of several classes{because}"
            )
        if chance.answer == "too-few":
            return (
                f"clean accuracy {self.text}: so few images cannot tell it from a guess, which is "
                f"right on {chance.guess:.1%}; evaluate more{because}"
            )
        return (
            f"clean accuracy {self.text} is not clearly better than guessing ({chance.guess:.1%}), "
            f"so there is no robustness to judge{because}"
        )


def clean_accuracy(evidence: Evidence) -> CleanAccuracy | None:
    """The clean accuracy of a run's samples; None where none was measured."""
    chance = against_chance(evidence.samples, evidence.num_classes)
    if chance is None:
        return None
    facts = facts_of(evidence)
    published = None if facts is None else facts.published
    if published is not None and not published.is_above(chance.correct, chance.images):
        published = None
    return CleanAccuracy(chance, _cause(evidence, chance), published)


def _cause(evidence: Evidence, chance: AgainstChance) -> str | None:
    """The best of what is known: another preprocessing, or another order of the classes."""
    found = []
    facts = facts_of(evidence)
    best = _as_good_as_the_best(facts.tried if facts is not None else ())
    if best:
        tried, *alike = best
        share = tried.correct / tried.images
        names = " or ".join(each.name for each in alike)
        also = f" (on these images, {names} is as good)" if alike else ""
        found.append((share, f"{tried.how} it is {share:.1%}{also}"))
    labels, predictions = _decisions(evidence)
    order = other_order(labels, predictions, evidence.num_classes)
    if order is not None:
        share = order.correct / order.images
        found.append((share, f"{order.text}; in the model's order it is {share:.1%}"))
    likely = max(found, default=None, key=lambda pair: pair[0])
    clean = None if facts is None else facts.clean
    if clean is not None and clean.highest_pixel < _ONE_GREY_LEVEL and chance.answer != "beyond":
        dark = f"the brightest pixel is only {clean.highest_pixel:.4f}: divided by 255 twice?"
        return dark if likely is None else f"{likely[1]}; {dark}"
    return None if likely is None else likely[1]


def _as_good_as_the_best(tried: Sequence[TriedInput]) -> list[TriedInput]:
    """The preprocessings that are as good as the best, the most common first, if much better.

    The mean and std of two data sets may be so near that some images cannot tell them apart.
    """
    good = [each for each in tried if is_much_better(each.gained, each.lost, each.images)]
    most = max((each.correct / each.images for each in good), default=0.0)
    return [each for each in good if each.correct / each.images >= most - _ALIKE]


def _decisions(evidence: Evidence) -> tuple[np.ndarray, np.ndarray]:
    """Labels and predictions of the samples that were measured."""
    samples = evidence.samples[~evidence.samples["failed"]]
    labels = samples["label"].to_numpy("int64")
    predictions = samples["clean_prediction"].to_numpy("float64", na_value=-1).astype("int64")
    classes = evidence.num_classes
    known = (labels >= 0) & (labels < classes) & (predictions >= 0) & (predictions < classes)
    return labels[known], predictions[known]
