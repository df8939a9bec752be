"""Loss and sharpness along the attack: up to the ridge and into the uncanny valley."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flatguard.geometry.measures import KAPPA, SharpnessMeasure
from flatguard.reporting.attack_paths import StepQuantiles, step_quantiles
from flatguard.reporting.charts import Axis, Band, Series, line_chart
from flatguard.reporting.figure import Figure, FigureText, Tone
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.section import NotMeasured, Section, SectionContent
from flatguard.reporting.text import counted, number

_QUANTILES = "Lines are medians. Dark bands hold 50% of the samples, light bands hold 90% of them."
_MOST_SAMPLES = 5_000
"""Of a larger group, this many evenly spaced samples are used, which bounds the memory."""


def samples_by_outcome(judged: JudgedRun) -> list[tuple[str, Tone, np.ndarray]]:
    """The samples whose clean image is classified correctly, by the audited attack's outcome."""
    correct = judged.samples[judged.samples["clean_correct"]]
    robust = correct["robust"].to_numpy(bool)
    numbers = correct["sample"].to_numpy(np.int64)
    groups: list[tuple[str, Tone, np.ndarray]] = [
        ("fooled", "fooled", numbers[~robust]),
        ("survived", "survived", numbers[robust]),
    ]
    return [group for group in groups if len(group[2])]


def _build(judged: JudgedRun) -> SectionContent | NotMeasured:
    groups = samples_by_outcome(judged)
    used = {name: samples[:: -(-len(samples) // _MOST_SAMPLES)] for name, _, samples in groups}
    if not used:
        return NotMeasured("the model classifies no clean image correctly, so none was attacked")
    paths = judged.paths(np.concatenate(list(used.values())))
    if not len(paths):
        return NotMeasured("no model call of the attack could be assigned to a sample")
    found: dict[str, dict[str, StepQuantiles]] = {}
    for column in ("loss", "sharpness"):
        measured = {name: step_quantiles(paths, column, chosen) for name, chosen in used.items()}
        found[column] = {name: band for name, band in measured.items() if len(band.step)}
    measure = judged.sharpness
    figures = _figures(groups, found, measure)
    if not figures:
        return NotMeasured(
            f"loss and {measure.log_name} were finite at no model call of the attack"
        )
    notes = _notes(judged, is_measured=bool(found["sharpness"]))
    notes += [
        f"Of {len(samples):,} samples that {'were fooled' if name == 'fooled' else name}, "
        f"{len(used[name]):,} evenly spaced ones are shown."
        for name, _, samples in groups
        if len(used[name]) < len(samples)
    ]
    data = {
        measure.column if column == "sharpness" else column: {
            name: _data(band) for name, band in measured.items()
        }
        for column, measured in found.items()
    }
    return SectionContent(figures, intro=" ".join(notes), data=data)


def _notes(judged: JudgedRun, is_measured: bool) -> list[str]:
    """Why κ is missing, and what is shown in its place."""
    if is_measured and judged.sharpness is KAPPA:
        return []
    note = f"κ was not measured: {_why_no_kappa(judged)}."
    return [f"{note} Logit sharpness is shown in its place."] if is_measured else [note]


def _why_no_kappa(judged: JudgedRun) -> str:
    return (
        judged.run.manifest.target.head_reason
        or "the logits are not those of the final linear layer"
    )


def _figures(
    groups: Sequence[tuple[str, Tone, np.ndarray]],
    found: dict[str, dict[str, StepQuantiles]],
    measure: SharpnessMeasure,
) -> tuple[Figure, ...]:
    loss = FigureText(
        "loss-along",
        "Loss along the attack",
        _description("cross-entropy", found["loss"]),
        f"{_QUANTILES} A working attack raises the loss. Where the loss stays constant, the "
        "gradient gave the attack no direction.",
    )
    sharpness = FigureText(
        "kappa-along" if measure is KAPPA else "sharpness-along",
        f"{measure.log_name} along the attack",
        _description(measure.log_name, found["sharpness"]),
        f"{_QUANTILES} {measure.title} has a maximum near the decision boundary (the ridge). "
        "Beyond it, the model is wrong, confident and flat (the uncanny valley).",
    )
    step = Axis("step of the attack on a sample", is_whole=True)
    return tuple(
        line_chart(words, step, Axis(axis), _series(groups, found[column]))
        for words, axis, column in (
            (loss, "cross-entropy", "loss"),
            (sharpness, measure.log_name, "sharpness"),
        )
        if found[column]
    )


def _description(quantity: str, found: dict[str, StepQuantiles]) -> str:
    medians = [
        f"{name}: from {number(float(band.values[2][0]))} to "
        f"{number(float(band.values[2][-1]))} over {counted(int(band.step[-1]) + 1, 'step')}"
        for name, band in found.items()
    ]
    return f"Median of {quantity}. {'; '.join(medians)}."


def _series(
    groups: Sequence[tuple[str, Tone, np.ndarray]], found: dict[str, StepQuantiles]
) -> list[Series]:
    series = []
    for name, tone, samples in groups:
        if name not in found:
            continue
        q05, q25, median, q75, q95 = found[name].values.tolist()
        series.append(
            Series(
                f"{name} ({len(samples):,})",
                tone,
                found[name].step.tolist(),
                median,
                bands=(Band(q05, q95), Band(q25, q75, strong=True)),
                notes=[
                    f"50% between {number(low)} and {number(high)}, n = {count:,}"
                    for low, high, count in zip(q25, q75, found[name].count.tolist(), strict=True)
                ],
            )
        )
    return series


def _data(band: StepQuantiles) -> dict[str, list[float]]:
    names = ("q05", "q25", "median", "q75", "q95")
    values = dict(zip(names, band.values.tolist(), strict=True))
    return {"step": band.step.tolist(), "samples": band.count.tolist(), **values}


ALONG_ATTACK = Section("along-the-attack", "Along the attack", _build)
