"""Single samples, the worst cases first, with images, numbers and paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from flatguard.geometry.measures import SharpnessMeasure
from flatguard.reporting.attack_paths import MOST_STEPS, AttackPaths
from flatguard.reporting.charts import Axis, Series, line_chart
from flatguard.reporting.figure import Figure, FigureText
from flatguard.reporting.images import EmbeddedImage, embed_difference, embed_image
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.section import NotMeasured, Section, SectionContent
from flatguard.reporting.sections.twins import attempt_name
from flatguard.reporting.summaries import evenly_spaced
from flatguard.reporting.templating import render
from flatguard.reporting.text import counted, number, percent
from flatguard.runs.check_evidence import load_fooled

_MOST_SAMPLES = 100

Outcome = Literal["overturned", "survived", "fooled", "misclassified"]
_OUTCOMES: dict[Outcome, str] = {
    "overturned": "survived the audited attack, fooled by another attempt",
    "survived": "survived every attempt",
    "fooled": "fooled by the audited attack",
    "misclassified": "misclassified without an attack",
}


@dataclass(frozen=True)
class _Quantity:
    """One quantity of a sample, before and after the attack."""

    name: str
    clean: str
    adversarial: str


@dataclass(frozen=True)
class _Case:
    """One sample with everything that is shown of it."""

    sample: int
    outcome: Outcome
    label: str
    clean_prediction: str
    prediction: str
    distance: str
    quantities: tuple[_Quantity, ...]
    fooled_by: tuple[str, ...]
    images: tuple[EmbeddedImage, ...]
    paths: tuple[Figure, ...]


def _build(judged: JudgedRun) -> SectionContent | NotMeasured:
    chosen = worst_samples(judged)
    numbers = [int(sample) for sample in chosen["sample"]]
    seen = _Seen(_Images(judged, numbers), judged.paths(numbers), _attempts_that_fooled(judged))
    cases = [_case(judged, row, seen) for _, row in chosen.iterrows()]
    counts = {outcome: sum(case.outcome == outcome for case in cases) for outcome in _OUTCOMES}
    intro = (
        f"{counted(len(cases), 'sample')} of {len(judged.samples):,}, the worst cases first. "
        "Open a sample to see its images, numbers and path."
    )
    html = render("samples.html.j2", cases=cases, outcomes=_OUTCOMES, counts=counts)
    data = [
        {"sample": case.sample, "outcome": case.outcome, "fooled_by": list(case.fooled_by)}
        for case in cases
    ]
    return SectionContent(html=html, intro=intro, data={"samples": data})


def worst_samples(judged: JudgedRun) -> pd.DataFrame:
    """At most 100 samples: overturned ones, then survivors, then others; small margins first.

    The table has the columns of the run's samples and `outcome`.
    """
    table = judged.samples
    outcome = np.select(
        [
            table["sample"].isin(judged.evidence.fooled),
            table["robust"].astype(bool),
            table["clean_correct"].astype(bool),
        ],
        ["overturned", "survived", "fooled"],
        "misclassified",
    )
    ranks = pd.Categorical(outcome, categories=list(_OUTCOMES), ordered=True)
    ordered = table.assign(outcome=ranks).sort_values(
        ["outcome", "adv_margin", "sample"], kind="stable"
    )
    chosen: pd.DataFrame = ordered.head(_MOST_SAMPLES)
    return chosen


class _Images:
    """The images of the chosen samples, read block by block.

    The tensors for them are allocated first. Small copies that are allocated between the large
    buffers would keep the allocator from reusing the memory of a block.
    """

    def __init__(self, judged: JudgedRun, chosen: list[int]):
        run = judged.run
        self._row = {sample: row for row, sample in enumerate(chosen)}
        shape = (len(chosen), *run.manifest.data.image_shape)
        self._clean, self._adversarial = torch.zeros(shape), torch.zeros(shape)
        for block in run.blocks:
            numbers = range(block.plan.start, block.plan.stop)
            here = [(i, sample) for i, sample in enumerate(numbers) if sample in self._row]
            if not here:
                continue
            clean, adversarial = run.clean(block.plan.index), run.adversarial(block.plan.index)
            for index, sample in here:
                self._adversarial[self._row[sample]] = adversarial[index]
                self._clean[self._row[sample]] = clean[index]
        self._fooling: dict[int, Tensor] = {}
        for probe in judged.evidence.probes:
            for sample, image in load_fooled(run, probe).items():
                if sample in self._row:
                    self._fooling.setdefault(sample, image)

    def of(self, sample: int) -> tuple[EmbeddedImage, ...]:
        """Clean image, example of the audited attack, later example, and both differences."""
        name, row = f"sample {sample}", self._row[sample]
        clean, attacked = self._clean[row], self._adversarial[row]
        found = [
            embed_image(clean, "clean", f"{name}, clean"),
            embed_image(attacked, "audited attack", f"{name} after the audited attack"),
            embed_difference(attacked, clean, f"change by the audited attack in {name}, magnified"),
        ]
        fooling = self._fooling.get(sample)
        if fooling is not None:
            found.append(
                embed_image(fooling, "example that fools it", f"{name} after a later attempt")
            )
            alt = f"change by the later attempt in {name}, magnified"
            found.append(embed_difference(fooling, clean, alt))
        return tuple(found)


@dataclass(frozen=True)
class _Seen:
    """What is shown of the chosen samples beside the numbers of the table."""

    images: _Images
    paths: AttackPaths
    fooled_by: Mapping[int, tuple[str, ...]]


def _attempts_that_fooled(judged: JudgedRun) -> dict[int, tuple[str, ...]]:
    """For each fooled sample, the names of the attempts that fooled it."""
    table = judged.evidence.attempts
    fooled = table[table["fooled"].astype(bool)].drop_duplicates(["sample", "attempt"])
    found: dict[int, tuple[str, ...]] = {}
    for sample, attempt in zip(fooled["sample"], fooled["attempt"], strict=True):
        found[int(sample)] = (*found.get(int(sample), ()), attempt_name(str(attempt)))
    return found


def _case(judged: JudgedRun, row: pd.Series, seen: _Seen) -> _Case:
    sample = int(row["sample"])
    return _Case(
        sample=sample,
        outcome=row["outcome"],
        label=judged.class_name(int(row["label"])),
        clean_prediction=_prediction(judged, row["clean_prediction"]),
        prediction=_prediction(judged, row["adv_prediction"]),
        distance=_distance(judged, row),
        quantities=_quantities(row, judged.sharpness),
        fooled_by=seen.fooled_by.get(sample, ()),
        images=seen.images.of(sample),
        paths=_path_figures(seen.paths.of(sample), sample, judged.sharpness),
    )


def _prediction(judged: JudgedRun, label: Any) -> str:
    return "not measured" if pd.isna(label) else judged.class_name(int(label))


def _distance(judged: JudgedRun, row: pd.Series) -> str:
    outside = "" if row["admissible"] else ", outside the budget or [0, 1]: not counted"
    norm = judged.budget.norm
    return f"{number(float(row['distance']))}{'' if norm == 'none' else f' in {norm}'}{outside}"


def _quantities(row: pd.Series, measure: SharpnessMeasure) -> tuple[_Quantity, ...]:
    names: Mapping[str, str] = {
        "loss": "loss", measure.column: measure.log_name, "margin": "margin", "feature_norm": "‖φ‖",
    }  # fmt: skip
    confidences = (percent(float(row[f"{when}_confidence"])) for when in ("clean", "adv"))
    others = [
        _Quantity(title, number(float(row[f"clean_{name}"])), number(float(row[f"adv_{name}"])))
        for name, title in names.items()
    ]
    return (_Quantity("confidence", *confidences), *others)


def _path_figures(path: AttackPaths, sample: int, measure: SharpnessMeasure) -> tuple[Figure, ...]:
    figures = []
    for column, name in (("loss", "loss"), ("sharpness", measure.log_name)):
        values = getattr(path, column)
        if not np.isfinite(values).any():
            continue
        kept = evenly_spaced(len(values), MOST_STEPS)
        words = FigureText(
            f"sample-{sample}-{measure.column if column == 'sharpness' else column}",
            f"{name} along the attack",
            f"Sample {sample}: {name} from {number(float(values[0]))} to "
            f"{number(float(values[-1]))} over {counted(len(values), 'step')}.",
        )
        series = Series(name, "ink", path.step[kept].tolist(), values[kept].tolist())
        figures.append(line_chart(words, Axis("step", is_whole=True), Axis(name), [series]))
    return tuple(figures)


SAMPLES = Section("samples", "Samples", _build)
