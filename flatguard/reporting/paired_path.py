"""One image in two runs: what it looked like at the end of each attack, and how it got there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import Tensor

from flatguard.reporting.attack_paths import MOST_STEPS, AttackPaths
from flatguard.reporting.charts import Axis, Series, line_chart
from flatguard.reporting.compare import Comparison
from flatguard.reporting.figure import Figure, FigureText, Tone
from flatguard.reporting.images import EmbeddedImage, embed_difference, embed_image
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.summaries import evenly_spaced
from flatguard.reporting.text import counted, number
from flatguard.runs.run import Run

_STEP = Axis("step of the attack", is_whole=True)
_FLAT = 0.05
"""A log κ that changes by less has no path to show."""


@dataclass(frozen=True)
class PairedPath:
    """One image in both runs.

    Attributes:
        sample: its number in the data set.
        sentence: what both attacks did to it.
        images: clean; then the end of each attack with its change.
        figures: the loss along both attacks; log sharpness along each where it changes.
    """

    sample: int
    sentence: str
    images: tuple[EmbeddedImage, ...]
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class _Side:
    """The image in one run."""

    letter: str
    judged: JudgedRun
    row: pd.Series
    path: AttackPaths

    @property
    def survived(self) -> bool:
        return bool(self.row["robust"])

    @property
    def answer(self) -> str:
        """The model's answer to the attack's result."""
        answer = self.row["adv_prediction"]
        return "no answer" if pd.isna(answer) else self.judged.class_name(int(answer))


def paired_path(first: JudgedRun, second: JudgedRun, found: Comparison) -> PairedPath | None:
    """One image of two compared runs; None where no call of an attack belongs to it.

    The first image on which the reported results differ; else the first on which the corrected
    ones do; else the first.
    """
    sample = _telling(found)
    sides = [_side(letter, judged, sample) for letter, judged in (("A", first), ("B", second))]
    if not all(len(side.path) for side in sides):
        return None
    label = first.class_name(int(sides[0].row["label"]))
    return PairedPath(
        sample,
        f"Image {sample}, {label}. {' '.join(_result(side) for side in sides)}",
        tuple(_images(sides, sample)),
        tuple(_figures(sides, sample)),
    )


def _telling(found: Comparison) -> int:
    reported, corrected = found.accuracies[1:]
    for row in (reported, corrected):
        if differ := sorted((*row.only_first, *row.only_second)):
            return differ[0]
    return 0


def _side(letter: str, judged: JudgedRun, sample: int) -> _Side:
    row = judged.samples[judged.samples["sample"] == sample].iloc[0]
    return _Side(letter, judged, row, judged.paths([sample]))


def _result(side: _Side) -> str:
    begin, end = (f"{side.path.loss[at]:.2f}" for at in (0, -1))
    return (
        f"After the attack of {side.letter}, the model answers {side.answer}; the loss went from "
        f"{begin} to {end} in {counted(len(side.path), 'step')}."
    )


def _images(sides: list[_Side], sample: int) -> list[EmbeddedImage]:
    clean, _ = _pixels(sides[0].judged.run, sample)
    found = [embed_image(clean, "clean", f"image {sample}, clean")]
    for side in sides:
        _, attacked = _pixels(side.judged.run, sample)
        name = f"image {sample} after the attack of {side.letter}"
        caption = f"{side.letter}, after the attack: {side.answer}"
        found.append(embed_image(attacked, caption, name))
        alt = f"change by the attack of {side.letter} in image {sample}, magnified"
        found.append(embed_difference(attacked, clean, alt))
    return found


def _pixels(run: Run, sample: int) -> tuple[Tensor, Tensor]:
    block = next(b.plan for b in run.blocks if b.plan.start <= sample < b.plan.stop)
    at = sample - block.start
    return run.clean(block.index)[at], run.adversarial(block.index)[at]


def _figures(sides: list[_Side], sample: int) -> list[Figure]:
    words = FigureText(
        "paired-loss",
        f"Loss of image {sample} along both attacks",
        f"Image {sample}. {' '.join(_result(side) for side in sides)}",
        "A working attack raises the loss until the answer is wrong. Where the loss stays "
        "constant, the gradient gave the attack no direction.",
    )
    found = [line_chart(words, _STEP, Axis("loss"), _series(sides, "loss"))]
    for side, line in zip(sides, _series(sides, "sharpness"), strict=True):
        finite = np.asarray(line.y)[np.isfinite(line.y)]
        if not len(finite) or np.ptp(finite) < _FLAT:
            continue
        name = side.judged.sharpness.log_name
        words = FigureText(
            f"paired-sharpness-{side.letter.lower()}",
            f"{side.letter}: {name} of image {sample} along the attack",
            f"Image {sample} in {side.letter}: {name} from {number(line.y[0])} to "
            f"{number(line.y[-1])}.",
            "It peaks near the decision boundary (the ridge) and falls where the model is certain "
            "of a wrong answer (the valley).",
        )
        found.append(line_chart(words, _STEP, Axis(name), [line]))
    return found


def _series(sides: list[_Side], column: str) -> list[Series]:
    """A line for each run; in the colours of the outcomes where they differ."""
    tones: tuple[Tone, Tone] = ("ink", "clean")
    if sides[0].survived != sides[1].survived:
        tones = ("survived", "fooled") if sides[0].survived else ("fooled", "survived")
    found = []
    for side, tone in zip(sides, tones, strict=True):
        values = getattr(side.path, column)
        kept = evenly_spaced(len(values), MOST_STEPS)
        outcome = "survives" if side.survived else "is fooled"
        name = f"{side.letter} ({outcome})"
        found.append(Series(name, tone, side.path.step[kept].tolist(), values[kept].tolist()))
    return found
