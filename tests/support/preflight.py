"""Preflight in a test: of a set-up, and judged from facts that are written by hand."""

from __future__ import annotations

from typing import Any

from support.broken import SetUp

from flatguard.checks.check import Check
from flatguard.checks.evidence import Evidence, ProbeEvidence
from flatguard.checks.finding import Finding
from flatguard.checks.preflight.facts import (
    CleanPass,
    Difference,
    InputGradient,
    Output,
    PreflightFacts,
    clean_table,
)
from flatguard.checks.preflight.judged import Preflight, preflight
from flatguard.data.arrays import ArrayDataset
from flatguard.execution.context import ModelAndData, load_model_and_data
from flatguard.request import make_request
from flatguard.runs.check_evidence import PREFLIGHT
from flatguard.targets.target import make_target

SAME = Difference(largest=0.0, flips=0, images=16)
OTHER = Difference(largest=0.25, flips=3, images=16)


def loaded(made: SetUp, **options: Any) -> ModelAndData:
    """A set-up as a request loads it."""
    target = make_target(made.model, "net", "a test")
    dataset = ArrayDataset(made.images, made.labels.numpy(), "images")
    request = make_request(model="net", attack="torchattacks:PGD", dataset="images", **options)
    return load_model_and_data(request, None, target, dataset)


def tried(made: SetUp, **options: Any) -> Preflight:
    """Preflight of a set-up."""
    return preflight(loaded(made, **options))


def clean(correct: int, images: int, classes: int = 10) -> CleanPass:
    """Labels in turn; the first are classified right, the others as the next class but two."""
    labels = tuple(number % classes for number in range(images))
    predictions = tuple(
        label if number < correct else (label + 1 + number // classes % (classes - 1)) % classes
        for number, label in enumerate(labels)
    )
    return CleanPass(
        samples=tuple(range(images)),
        labels=labels,
        predictions=predictions,
        lowest_pixel=0.0,
        highest_pixel=1.0,
    )


def facts(**changes: Any) -> PreflightFacts:
    """The facts of a model with which nothing is wrong, but for the changes."""
    honest = PreflightFacts(
        forwards=300, backwards=32, on_a_copy=True, clean=clean(90, 100),
        repeated=SAME, other_seed=SAME, other_neighbours=SAME, smaller_batch=SAME,
        after_calls=SAME, near_image=SAME, writes_input=False,
        gradient=InputGradient(images=32, absent=False, zero=0, not_finite=0),
        output=Output(kind="logits", lowest=-3.0, highest=7.0),
    )  # fmt: skip
    return honest.model_copy(update=changes)


def evidence_of(measured: PreflightFacts | None, classes: int = 10) -> Evidence:
    """What checks read of these facts; None is a run without preflight."""
    probes = {}
    if measured is not None:
        probes = {PREFLIGHT: ProbeEvidence(measured.model_dump(mode="json"))}
    samples = clean_table(None if measured is None else measured.clean)
    return Evidence(
        num_classes=classes, eps=None, norm=None, attack="", attack_args={}, samples=samples,
        trajectory=(), probes=probes,
    )  # fmt: skip


def judged(check: Check, **changes: Any) -> Finding:
    """The finding of a check from the facts of an honest model, but for the changes."""
    return check.judge(evidence_of(facts(**changes)), 0.01)


def judged_without(check: Check) -> Finding:
    """The finding of a check where preflight did not run."""
    return check.judge(evidence_of(None), 0.01)
