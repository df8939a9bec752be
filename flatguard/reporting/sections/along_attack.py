"""Loss and log κ along the attack: up the ridge, and down into the uncanny valley."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flatguard.reporting.attack_paths import Bands, bands
from flatguard.reporting.charts import Axis, Band, Series, Words, line_chart
from flatguard.reporting.figure import Figure, Tone
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.section import Drawn, NotMeasured, Section
from flatguard.reporting.text import counted, number

STEP = Axis("step of the attack on a sample")
QUANTILES = "Lines are medians, dark bands hold half of the samples, light bands 90% of them."
FOLLOWED = 5_000
"""Of more samples than these in a group, so many are followed, evenly: memory stays what it is."""


def groups(judged: JudgedRun) -> list[tuple[str, Tone, np.ndarray]]:
    """The samples that were right when clean, by what became of them."""
    right = judged.samples[judged.samples["clean_correct"]]
    robust = right["robust"].to_numpy(bool)
    number_of = right["sample"].to_numpy(np.int64)
    found: list[tuple[str, Tone, np.ndarray]] = [
        ("fell", "fell", number_of[~robust]),
        ("survived", "survived", number_of[robust]),
    ]
    return [group for group in found if len(group[2])]


def _draw(judged: JudgedRun) -> Drawn | NotMeasured:
    followed = {name: _thinned(samples) for name, _, samples in groups(judged)}
    if not followed:
        return NotMeasured("no sample was right when clean, so there was nothing to attack")
    paths = judged.paths(np.concatenate(list(followed.values())))
    if not len(paths):
        return NotMeasured("no call of the attack could be given to a sample for certain")
    found: dict[str, dict[str, Bands]] = {}
    for column in ("loss", "log_kappa"):
        measured = {name: bands(paths, column, samples) for name, samples in followed.items()}
        found[column] = {name: band for name, band in measured.items() if len(band.step)}
    figures = []
    if found["loss"]:
        figures.append(_loss(judged, found["loss"]))
    if found["log_kappa"]:
        figures.append(_sharpness(judged, found["log_kappa"]))
    if not figures:
        return NotMeasured("loss and log κ were finite at no call of the attack")
    words = [] if found["log_kappa"] else [f"κ was not measured: {_why(judged)}."]
    words += [
        f"Of {len(samples):,} that {name}, {len(followed[name]):,} are followed, evenly chosen."
        for name, _, samples in groups(judged)
        if len(followed[name]) < len(samples)
    ]
    data = {
        column: {name: _data(band) for name, band in measured.items()}
        for column, measured in found.items()
    }
    return Drawn(tuple(figures), intro=" ".join(words), data=data)


def _thinned(samples: np.ndarray) -> np.ndarray:
    return samples[:: -(-len(samples) // FOLLOWED)]


def _why(judged: JudgedRun) -> str:
    return judged.run.manifest.target.head_reason or "the head did not explain the logits"


def _loss(judged: JudgedRun, found: dict[str, Bands]) -> Figure:
    return line_chart(
        Words(
            "loss-along",
            "Loss along the attack",
            _told("Cross-entropy", found),
            f"{QUANTILES} An attack that works raises the loss; where it stays flat, the attack "
            "was given nothing to follow.",
        ),
        STEP,
        Axis("cross-entropy"),
        _series(judged, found),
    )


def _sharpness(judged: JudgedRun, found: dict[str, Bands]) -> Figure:
    return line_chart(
        Words(
            "kappa-along",
            "log κ along the attack",
            _told("log κ", found),
            f"{QUANTILES} Near the boundary relative sharpness κ peaks: the ridge. Beyond it a "
            "sample is wrong, confident and flat: the uncanny valley.",
        ),
        STEP,
        Axis("log κ"),
        _series(judged, found),
    )


def _told(what: str, found: dict[str, Bands]) -> str:
    pieces = [
        f"of samples that {name} it goes from {number(float(band.values[2][0]))} to "
        f"{number(float(band.values[2][-1]))} over {counted(int(band.step[-1]) + 1, 'step')}"
        for name, band in found.items()
    ]
    return f"{what}, medians: {'; '.join(pieces)}."


def _series(judged: JudgedRun, found: dict[str, Bands]) -> Sequence[Series]:
    return [
        Series(
            f"{name} ({len(samples):,})",
            tone,
            found[name].step.tolist(),
            found[name].values[2].tolist(),
            bands=(
                Band(found[name].values[0].tolist(), found[name].values[4].tolist()),
                Band(found[name].values[1].tolist(), found[name].values[3].tolist(), strong=True),
            ),
            notes=[
                f"half in {number(float(low))} to {number(float(high))}, n = {int(count):,}"
                for low, high, count in zip(
                    found[name].values[1], found[name].values[3], found[name].count, strict=True
                )
            ],
        )
        for name, tone, samples in groups(judged)
        if name in found
    ]


def _data(band: Bands) -> dict[str, list[float]]:
    names = ("q05", "q25", "median", "q75", "q95")
    values = {name: [float(v) for v in row] for name, row in zip(names, band.values, strict=True)}
    return {"step": band.step.tolist(), "samples": band.count.tolist(), **values}


ALONG_ATTACK = Section("along-the-attack", "Along the attack", _draw)
