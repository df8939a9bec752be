"""One sample at a time: the worst cases first, with images, numbers and path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from flatguard.reporting.attack_paths import MOST_STEPS, Paths
from flatguard.reporting.charts import Axis, Series, Words, line_chart
from flatguard.reporting.figure import Figure, Tone
from flatguard.reporting.images import Picture, difference, picture
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.section import Drawn, NotMeasured, Section
from flatguard.reporting.sections.twins import attempt_name
from flatguard.reporting.templating import render
from flatguard.reporting.text import counted, number, percent
from flatguard.runs.check_evidence import load_fooled

MOST = 100

Fate = Literal["overturned", "stood", "fell", "wrong"]
FATES: dict[Fate, str] = {
    "overturned": "survived the audited attack, fell to another",
    "stood": "survived everything that was tried",
    "fell": "fell to the audited attack",
    "wrong": "was wrong before any attack",
}
TONES: dict[Fate, Tone] = {
    "overturned": "fell", "stood": "survived", "fell": "other", "wrong": "ink",
}  # fmt: skip


@dataclass(frozen=True)
class Fact:
    """One quantity of a sample, before and after the attack."""

    name: str
    clean: str
    adversarial: str


@dataclass(frozen=True)
class Case:
    """One sample, with all that is shown of it."""

    sample: int
    fate: Fate
    label: str
    clean_prediction: str
    prediction: str
    distance: str
    facts: tuple[Fact, ...]
    fell_to: tuple[str, ...]
    pictures: tuple[Picture, ...]
    paths: tuple[Figure, ...]

    @property
    def title(self) -> str:
        """What became of it."""
        return FATES[self.fate]


def _draw(judged: JudgedRun) -> Drawn | NotMeasured:
    chosen = worst(judged)
    numbers = [int(number_of) for number_of in chosen["sample"]]
    images, paths = _Images(judged, numbers), judged.paths(numbers)
    cases = [_case(judged, row, images, paths) for _, row in chosen.iterrows()]
    counts = {fate: sum(case.fate == fate for case in cases) for fate in FATES}
    intro = (
        f"{counted(len(cases), 'sample')} of {len(judged.samples):,}, the worst cases first. "
        "Open one for its images, its numbers and its path."
    )
    html = render("samples.html.j2", cases=cases, fates=FATES, counts=counts)
    data = [
        {"sample": case.sample, "fate": case.fate, "fell_to": list(case.fell_to)} for case in cases
    ]
    return Drawn(html=html, intro=intro, data={"samples": data})


def worst(judged: JudgedRun) -> pd.DataFrame:
    """At most `MOST` samples: overturned ones, then survivors, then others; a narrow margin first.

    A column `fate` is added to those of the run's samples.
    """
    table, evidence = judged.samples, judged.evidence
    fate = np.select(
        [
            table["sample"].isin(evidence.fooled),
            table["robust"].astype(bool),
            table["clean_correct"].astype(bool),
        ],
        ["overturned", "stood", "fell"],
        "wrong",
    )
    rank = pd.Series(fate, index=table.index).map({name: i for i, name in enumerate(FATES)})
    ordered = table.assign(fate=fate, rank=rank).sort_values(
        ["rank", "adv_margin", "sample"], kind="stable"
    )
    chosen: pd.DataFrame = ordered.head(MOST)
    return chosen


class _Images:
    """The images of the chosen samples, read block by block.

    They go to tensors that are there before: small copies between large buffers would keep the
    allocator from giving a block's memory to the next one.
    """

    def __init__(self, judged: JudgedRun, chosen: list[int]):
        run, wanted = judged.run, set(chosen)
        self._row = {sample: row for row, sample in enumerate(chosen)}
        shape = (len(chosen), *run.manifest.data.image_shape)
        self._clean, self._adversarial = torch.zeros(shape), torch.zeros(shape)
        for block in run.blocks:
            numbers = range(block.plan.start, block.plan.stop)
            here = [(i, sample) for i, sample in enumerate(numbers) if sample in wanted]
            if not here:
                continue
            clean, adversarial = run.clean(block.plan.index), run.adversarial(block.plan.index)
            for index, sample in here:
                self._adversarial[self._row[sample]] = adversarial[index]
                self._clean[self._row[sample]] = clean[index]
        self.fooled: dict[int, Tensor] = {}
        for probe in judged.evidence.probes:
            for sample, image in load_fooled(run, probe).items():
                if sample in wanted:
                    self.fooled.setdefault(sample, image)

    def of(self, sample: int) -> tuple[Picture, ...]:
        """Clean, adversarial and magnified difference, as far as they were kept."""
        what, found = f"sample {sample}", []
        row = self._row[sample]
        clean, attacked = self._clean[row], self._adversarial[row]
        fooling = self.fooled.get(sample)
        found.append(picture(clean, "clean", f"{what}, clean"))
        found.append(picture(attacked, "audited attack", f"{what} after the audited attack"))
        alt = f"what the audited attack changed in {what}, magnified"
        found.append(difference(attacked, clean, alt))
        if fooling is not None:
            found.append(picture(fooling, "what fooled it", f"{what} as a later attempt fooled it"))
            alt = f"what the later attempt changed in {what}, magnified"
            found.append(difference(fooling, clean, alt))
        return tuple(found)


def _case(judged: JudgedRun, row: pd.Series, images: _Images, paths: Paths) -> Case:
    sample = int(row["sample"])
    return Case(
        sample=sample,
        fate=row["fate"],
        label=judged.class_name(int(row["label"])),
        clean_prediction=_predicted(judged, row["clean_prediction"]),
        prediction=_predicted(judged, row["adv_prediction"]),
        distance=_distance(judged, row),
        facts=_facts(row),
        fell_to=_fell_to(judged, sample),
        pictures=images.of(sample),
        paths=_paths(paths.of(sample), sample),
    )


def _predicted(judged: JudgedRun, number: Any) -> str:
    return "not measured" if pd.isna(number) else judged.class_name(int(number))


def _distance(judged: JudgedRun, row: pd.Series) -> str:
    outside = "" if row["admissible"] else ", outside the budget or [0, 1]: not counted"
    norm = judged.budget.norm
    return f"{number(float(row['distance']))}{'' if norm == 'none' else f' in {norm}'}{outside}"


def _facts(row: pd.Series) -> tuple[Fact, ...]:
    names: Mapping[str, str] = {
        "loss": "loss", "log_kappa": "log κ", "margin": "margin", "feature_norm": "‖φ‖",
    }  # fmt: skip
    ends = [row["clean_confidence"], row["adv_confidence"]]
    confidence = Fact("confidence", *(percent(float(value)) for value in ends))
    others = [
        Fact(title, number(float(row[f"clean_{name}"])), number(float(row[f"adv_{name}"])))
        for name, title in names.items()
    ]
    return (confidence, *others)


def _fell_to(judged: JudgedRun, sample: int) -> tuple[str, ...]:
    table = judged.evidence.attempts
    fell = table.loc[(table["sample"] == sample) & table["fooled"].astype(bool), "attempt"]
    return tuple(attempt_name(str(name)) for name in fell.unique())


def _paths(path: Paths, sample: int) -> tuple[Figure, ...]:
    found = []
    for column, name in (("loss", "loss"), ("log_kappa", "log κ")):
        values = getattr(path, column)
        if not np.isfinite(values).any():
            continue
        kept = np.unique(np.linspace(0, len(values) - 1, min(len(values), MOST_STEPS)).astype(int))
        title = f"{name} along the attack"
        words = Words(
            f"sample-{sample}-{column}",
            title,
            f"Sample {sample}: {name} from {number(float(values[0]))} to "
            f"{number(float(values[-1]))} over {counted(len(values), 'step')}.",
            "",
        )
        one = Series(name, "ink", path.step[kept].tolist(), values[kept].tolist())
        found.append(line_chart(words, Axis("step"), Axis(name), [one]))
    return tuple(found)


SAMPLES = Section("samples", "Samples", _draw)
