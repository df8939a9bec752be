"""The samples after the attack: increase of the loss, and sharpness before and after."""

from __future__ import annotations

import numpy as np

from flatguard.geometry.basin import LOSS_TOLERANCE
from flatguard.geometry.measures import KAPPA, SharpnessMeasure
from flatguard.reporting.charts import Axis, ReferenceLine
from flatguard.reporting.figure import Figure, FigureText
from flatguard.reporting.histogram import Distribution, histogram
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.along_attack import samples_by_outcome
from flatguard.reporting.sections.section import NotMeasured, Section, SectionContent
from flatguard.reporting.summaries import finite_median
from flatguard.reporting.text import counted, number


def _build(judged: JudgedRun) -> SectionContent | NotMeasured:
    table = judged.samples.set_index("sample")
    increase = table["adv_loss"] - table["clean_loss"]
    groups = [
        Distribution(f"{name} ({len(samples):,})", tone, increase.loc[samples].to_numpy(float))
        for name, tone, samples in samples_by_outcome(judged)
    ]
    if not any(np.isfinite(group.values).any() for group in groups):
        return NotMeasured("no correctly classified sample has a finite loss after the attack")
    figures = [_loss_increase(groups)]
    correct = judged.samples[judged.samples["clean_correct"]]
    measure = judged.sharpness
    clean = correct[f"clean_{measure.column}"].to_numpy(float)
    adversarial = correct[f"adv_{measure.column}"].to_numpy(float)
    if np.isfinite(clean).any() and np.isfinite(adversarial).any():
        figures.append(_sharpness(clean, adversarial, measure, judged.detection is not None))
    data = {
        "loss_increase": {str(group.tone): _summary(group.values) for group in groups},
        measure.column: {"clean": _summary(clean), "adversarial": _summary(adversarial)},
    }
    return SectionContent(tuple(figures), data=data)


def _loss_increase(groups: list[Distribution]) -> Figure:
    values = np.concatenate([group.values for group in groups])
    kept = int((values <= LOSS_TOLERANCE).sum())
    medians = "; ".join(f"{group.name}: {number(finite_median(group.values))}" for group in groups)
    return histogram(
        FigureText(
            "loss-increase",
            "Increase of the loss",
            f"Histogram of the increase of the loss. Medians: {medians}.",
            "Loss at the returned example minus loss at the clean image. For "
            f"{counted(kept, 'sample')} of {len(values):,} the loss did not increase by more than "
            f"{LOSS_TOLERANCE:g}, the tolerance for loss-change adversarial examples (Walter et "
            "al. 2026, Definition 4).",
        ),
        Axis("increase of the loss"),
        groups,
        [ReferenceLine(LOSS_TOLERANCE, "tolerance")],
    )


def _sharpness(
    clean: np.ndarray, adversarial: np.ndarray, measure: SharpnessMeasure, has_detector: bool
) -> Figure:
    thresholds = (
        'see the section "Detection" for the thresholds of the detector'
        if has_detector
        else "no detector was given for this run"
    )
    return histogram(
        FigureText(
            "kappa-ends" if measure is KAPPA else "sharpness-ends",
            f"{measure.log_name} of clean and adversarial images",
            f"Histogram of {measure.log_name}. Median {number(finite_median(clean))} clean, "
            f"{number(finite_median(adversarial))} adversarial.",
            "Samples whose clean image is classified correctly, before and after the attack. Where "
            f"the two distributions are separate, a threshold on {measure.name} detects "
            f"adversarial examples; {thresholds}.",
        ),
        Axis(measure.log_name),
        [
            Distribution("clean", "clean", clean),
            Distribution("adversarial", "fooled", adversarial),
        ],
    )


def _summary(values: np.ndarray) -> dict[str, float | int | None]:
    return {"samples": int(np.isfinite(values).sum()), "median": finite_median(values)}


AFTER_ATTACK = Section("where-samples-ended", "Loss and sharpness after the attack", _build)
