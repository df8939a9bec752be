"""Surrogate transfer: examples made on other models. One sign among several, never decisive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flatguard.checks.chance import NOT_BY_CHANCE, BeyondChance, ChanceQuestion
from flatguard.checks.check import Check, InParts, Probe, every_level
from flatguard.checks.context import TARGET_GAP, CheckContext, Rows, evenly
from flatguard.checks.evidence import Evidence, ProbeEvidence
from flatguard.checks.first_look import FirstLook, in_two_looks
from flatguard.checks.missing_evidence import how_to_name_a_surrogate
from flatguard.checks.search.attempts import Attempt, AttemptTable
from flatguard.checks.search.gradients import Gradient, tempered
from flatguard.errors import ModelError, ran_out_of_memory
from flatguard.geometry.ball import direction, project
from flatguard.geometry.decision import margin
from flatguard.request import Checks
from flatguard.targets.first_call import first_look
from flatguard.twins.outputs import plain

if TYPE_CHECKING:
    from flatguard.execution.context import EvaluationContext
    from flatguard.targets import Target

NAME = "surrogate-transfer"

_LEAST_ACCURACY = 0.5
"""A surrogate that is right on less than this share of the images was trained on other classes."""

_DEMO_AT: tuple[Checks, ...] = ("standard", "full")
"""The levels at which the demo model is a surrogate where none is named."""


def surrogates_of(
    named: Sequence[str | Target], checks: Checks, evaluation: EvaluationContext
) -> list[Target]:
    """The surrogates that are named; else the demo model where its classes may be the target's."""
    from flatguard.targets import load_target
    from flatguard.targets.calls import isolate_calls

    fits = tuple(evaluation.dataset.block(0, 1).images.shape[1:]) == (3, 32, 32)
    if not named and checks in _DEMO_AT and evaluation.num_classes == 10 and fits:
        named = ["demo"]
    classes = evaluation.request.classes  # of a zero-shot surrogate
    found = [
        load_target(name, classes=classes) if isinstance(name, str) else name for name in named
    ]
    for surrogate in found:
        isolate_calls(surrogate.model)
        surrogate.model.to(evaluation.device)
    return [s for s in found if s.weights_sha256 != evaluation.target.weights_sha256]


def _gather(context: CheckContext, steps: int, batches: Iterable[Rows]) -> ProbeEvidence:
    """Attack each surrogate, and show its examples to the target.

    Cost: `steps` + 1 passes of each surrogate and one of the target, for each survivor.
    """
    table, refused, fitting = AttemptTable(), {}, []
    for surrogate in context.surrogates:
        key = f"surrogate {surrogate.weights_sha256}"
        accuracy = context.once(key, partial(_accuracy, context, surrogate))
        if accuracy < _LEAST_ACCURACY:
            refused[surrogate.name] = f"right on only {accuracy:.0%} of the clean images"
            continue
        method = partial(_transfer, context, surrogate, steps)
        fitting.append(Attempt(f"from {surrogate.name}", "surrogate", method))
    for rows in batches:
        for attempt in fitting:
            table.add(context, attempt, rows)
    names = [surrogate.name for surrogate in context.surrogates]
    return table.evidence({"surrogates": names, "refused": refused})


@torch.no_grad()
def _accuracy(context: CheckContext, surrogate: Target) -> float:
    correct, count = 0, 0
    for rows in context.rows(evenly(context.survivors, 16)):
        context.meter.add(len(rows))
        try:
            # The first look finds out how the surrogate is called and how its logits are read.
            logits = surrogate.model(rows.images) if count else first_look(surrogate, rows.images)
        except (RuntimeError, ValueError, ModelError) as error:
            if ran_out_of_memory(error):
                raise
            return 0.0
        if logits.shape[1] != context.evaluation.num_classes:
            return 0.0
        correct += int((logits.argmax(dim=1) == rows.labels).sum())
        count += len(rows)
    return correct / count if count else 0.0


def _transfer(
    context: CheckContext, surrogate: Target, steps: int, rows: Rows
) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        gap = margin(surrogate.model(rows.images), rows.labels).clamp_min(1.0)
    cooled = replace(rows, temperature=gap / TARGET_GAP)
    source = Gradient(plain(surrogate.model), tempered, context.meter)
    images, norm = rows.images, context.budget.norm
    for step in range(steps):
        length = context.eps * (0.5 if step < steps // 2 else 0.1)
        view = source(images, cooled)
        moved = images + length * direction(view.gradient, norm)
        images = project(moved, rows.images, context.eps, norm)
    return images, context.fools(images, rows)


def _stored_as(context: CheckContext, steps: int) -> str | None:
    names = "-".join(surrogate.weights_sha256[:8] for surrogate in context.surrogates)
    return f"surrogate-{names}" if names else None


def _missing(evidence: Evidence) -> str:
    probe = evidence.probe("surrogate")
    refused = probe.facts.get("refused") if probe is not None else None
    why = evidence.why_not("surrogate")
    if refused:
        why = "; ".join(f"{name} is {reason}" for name, reason in refused.items())
    return f"no surrogate, another model whose examples are tried, was attacked: {why}"


def _summary(evidence: Evidence, found: BeyondChance) -> str:
    return f"examples made on other models fool {len(found.only)} survivors {NOT_BY_CHANCE}"


_QUESTION = ChanceQuestion(
    check=NAME,
    source="Papernot et al. 2017; Athalye et al. 2018",
    families=("surrogate",),
    probe="surrogate",
    level="standard",
    missing=_missing,
    summary=_summary,
    how=how_to_name_a_surrogate,
    data=lambda evidence, found: {},
    can_fail=False,
)

_WHY = (
    "Examples made on another model are usually weaker than examples made on the model itself. If "
    "they fool more samples, the model's own gradients mislead attacks."
)

CHECK = Check(
    NAME,
    _QUESTION.source,
    _WHY,
    _QUESTION.judge,
    in_two_looks(
        Probe(
            "surrogate",
            InParts(_gather),
            every_level(10),
            lambda context, steps: len(context.survivors) * (steps + 1),
            order=90,
            stored_as=_stored_as,
            reads=(),
        ),
        FirstLook(nearest=0.1, spread=0.1),
    ),
)
