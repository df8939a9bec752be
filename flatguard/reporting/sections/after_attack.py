"""Where samples ended: by how much the loss rose, and how sharp they are, before and after."""

from __future__ import annotations

import numpy as np

from flatguard.geometry.basin import LOSS_TOLERANCE
from flatguard.reporting.attempt_charts import Heap, histogram
from flatguard.reporting.charts import Axis, Rule, Words
from flatguard.reporting.figure import Figure
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.along_attack import groups
from flatguard.reporting.sections.section import Drawn, NotMeasured, Section
from flatguard.reporting.text import counted, number


def _draw(judged: JudgedRun) -> Drawn | NotMeasured:
    table = judged.samples.set_index("sample")
    rise = table["adv_loss"] - table["clean_loss"]
    heaps = [
        Heap(f"{name} ({len(samples):,})", tone, rise.loc[samples].to_numpy(float))
        for name, tone, samples in groups(judged)
    ]
    if not any(np.isfinite(heap.values).any() for heap in heaps):
        return NotMeasured("no sample that was right when clean has a loss after the attack")
    figures = [_rise(heaps)]
    right = judged.samples[judged.samples["clean_correct"]]
    clean = right["clean_log_kappa"].to_numpy(float)
    after = right["adv_log_kappa"].to_numpy(float)
    if np.isfinite(clean).any() and np.isfinite(after).any():
        figures.append(_kappa(clean, after, judged.detection is not None))
    data = {
        "loss_increase": {str(heap.tone): _summary(heap.values) for heap in heaps},
        "log_kappa": {"clean": _summary(clean), "adversarial": _summary(after)},
    }
    return Drawn(tuple(figures), data=data)


def _rise(heaps: list[Heap]) -> Figure:
    values = np.concatenate([heap.values for heap in heaps])
    kept = int((values <= LOSS_TOLERANCE).sum())
    medians = "; ".join(f"{heap.name}: {number(_median(heap.values))}" for heap in heaps)
    return histogram(
        Words(
            "loss-increase",
            "How much the loss rose",
            f"Histogram of loss increase. Medians: {medians}.",
            f"Loss at the returned example less loss at the clean image. For "
            f"{counted(kept, 'sample')} of {len(values):,} it did not rise by more than "
            f"{LOSS_TOLERANCE:g}, a loss-change example's tolerance (Walter et al. 2026, "
            "Definition 4).",
        ),
        Axis("loss increase"),
        heaps,
        [Rule(LOSS_TOLERANCE, "tolerance")],
    )


def _kappa(clean: np.ndarray, after: np.ndarray, detected: bool) -> Figure:
    threshold = "none was calibrated for this run"
    if detected:
        threshold = "those of the detector that was given are under Detection"
    return histogram(
        Words(
            "kappa-ends",
            "log κ, clean against adversarial",
            f"Histogram of log κ. Median {number(_median(clean))} clean, {number(_median(after))} "
            "adversarial.",
            "Samples that are right when clean, before and after the attack. Where the two heaps "
            "part, flatness gives adversarial examples away; a detector's thresholds lie "
            f"between them, and {threshold}.",
        ),
        Axis("log κ"),
        [Heap("clean", "clean", clean), Heap("adversarial", "fell", after)],
    )


def _median(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None


def _summary(values: np.ndarray) -> dict[str, float | int | None]:
    return {"samples": int(np.isfinite(values).sum()), "median": _median(values)}


AFTER_ATTACK = Section("where-samples-ended", "Where samples ended", _draw)
