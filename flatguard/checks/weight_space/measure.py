"""Flatness and landscape of a finished run, stored in its folder like other probes.

A probe's name ends with a digest of its settings: the same settings are not measured twice, and
other settings are not mistaken for them.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pandas as pd

from flatguard.checks.context import CheckContext
from flatguard.checks.evidence import ProbeEvidence
from flatguard.checks.weight_space.flatness import (
    Losses,
    Neighbourhood,
    Scene,
    models_of,
    weight_flatness,
)
from flatguard.checks.weight_space.landscape import DIRECTIONS, POINTS, landscape
from flatguard.checks.weight_space.robust_loss import Ascent
from flatguard.data.dataset import Batch, Dataset, blocks, check_labels
from flatguard.data.hashing import DataHash
from flatguard.errors import UsageError, memory_errors
from flatguard.request import derive_seed
from flatguard.runs.check_evidence import ProbeFacts, add_probe, load_probes
from flatguard.targets.first_call import model_errors

_PartName = Literal["test", "training", "held-out"]


@dataclass(frozen=True)
class Part:
    """What losses are measured on.

    Attributes:
        name: `test` is the run's own samples.
        data: the data set.
        count: its first so many samples.
    """

    name: _PartName
    data: Dataset
    count: int


def own_part(context: CheckContext) -> Part:
    """The samples of the run."""
    return Part("test", context.evaluation.dataset, context.evaluation.count)


def add_weight_flatness(
    context: CheckContext, part: Part, ascent: Ascent, around: Neighbourhood
) -> str:
    """Measure `weight_flatness` and keep it, unless the folder has it; the probe's name.

    Raises:
        UsageError: the folder has it for this part, by another protocol.
    """
    settings = {"part": part.name, "ascent": asdict(ascent), "around": asdict(around)}

    def measure(scene: Scene) -> Losses:
        return weight_flatness(context.model, scene, around)

    return _added(context, part, ascent, "weight-flatness", settings, measure, models_of(around))


def add_landscape(
    context: CheckContext,
    ascent: Ascent,
    directions: int = DIRECTIONS,
    points: Sequence[float] = POINTS,
) -> str:
    """Measure `landscape` on the run's own samples and keep it, unless the folder has it."""
    settings = {"ascent": asdict(ascent), "directions": directions, "points": list(points)}

    def measure(scene: Scene) -> Losses:
        return landscape(context.model, scene, directions=directions, points=points)

    total = directions * len([t for t in points if t]) + 1
    return _added(context, own_part(context), ascent, "landscape", settings, measure, total)


def _added(
    context: CheckContext,
    part: Part,
    ascent: Ascent,
    kind: Literal["weight-flatness", "landscape"],
    settings: dict[str, Any],
    measure: Callable[[Scene], Losses],
    total: int,
) -> str:
    with memory_errors(f"{context.target.name}, with the images of {part.data.name} beside it"):
        batches, sha256 = _batches(context, part)
    settings = {**settings, "data": part.data.name, "data_sha256": sha256, "samples": part.count}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    name, known = f"{kind}-{digest}", load_probes(context.run)
    if name in known:
        return name
    _refuse_second(context, kind, part.name, known)
    context.progress.stage(f"{kind} on {part.name} samples", total)
    seed, before = derive_seed(context.evaluation.request.seed, 0, kind), context.meter.forwards
    began = time.perf_counter()
    with model_errors(context.target.name, f"while its {kind} is measured"):
        losses = measure(Scene(batches, ascent, seed, context.meter, context.progress.advanced))
    table = "weight_losses" if kind == "weight-flatness" else "landscape"
    found = ProbeEvidence(
        {"kind": kind, **settings, "models": _rows(losses.models)}, {table: losses.table}
    )
    facts = ProbeFacts(
        name=name,
        checks="geometry",
        ran=True,
        facts=found.facts,
        sample_forwards=context.meter.forwards - before,
        seed=seed,
    )
    add_probe(context.run, facts, found.tables, {}, time.perf_counter() - began)
    return name


def _refuse_second(
    context: CheckContext, kind: str, part: str, known: dict[str, ProbeFacts]
) -> None:
    """Only one protocol of flatness a part is stored, so that results are unambiguous."""
    for facts in known.values():
        if kind == facts.facts.get("kind") == "weight-flatness" and facts.facts["part"] == part:
            raise UsageError(
                f"{context.run.path} holds weight flatness on {part} samples by another protocol "
                "or on other data; measure into another folder"
            )


def _batches(context: CheckContext, part: Part) -> tuple[list[Batch], str]:
    """The batches on the model's device, and the hash of the data."""
    hashes, batches = DataHash(), []
    for start, batch in blocks(part.data, part.count, context.evaluation.block_size):
        check_labels(batch, context.evaluation.num_classes, part.data, start)
        hashes.update(batch)
        batches.append(Batch(batch.images.to(context.device), batch.labels.to(context.device)))
    return batches, hashes.hexdigest()


def _rows(models: pd.DataFrame) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(models.to_json(orient="records"))
    return rows
