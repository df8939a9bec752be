"""`report.json`: the report for machines, with a published and versioned schema.

A reader that knows `schema_version` 1 can read every report that says 1: names are only added.
"""

from __future__ import annotations

import math
from importlib.metadata import version
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from flatguard.checks.finding import Finding
from flatguard.checks.mechanism import Mechanism
from flatguard.checks.verdict import Word
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.report_page import Drawing
from flatguard.runs.facts import Manifest


class Part(BaseModel):
    """A piece of a document: fixed, and without names that the schema does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Share(Part):
    """A share of all samples with its exact interval."""

    value: float
    low: float
    high: float


class Numbers(Part):
    """The numbers at the head of the report, each over `samples` samples."""

    samples: int
    confidence_level: float
    clean: Share
    robust: Share
    corrected: Share
    overestimate: Share


class Judgement(Part):
    """The verdict, as `flatguard audit` gives it."""

    verdict: Word
    mechanism: Mechanism | None
    sentence: str
    exit_code: int
    tolerance: float
    next: tuple[str, ...]


class Spent(Part):
    """What the run cost, and what could not be counted."""

    sample_forwards: int
    sample_backwards: int
    check_forwards: int
    seconds: float
    attack_seconds: float
    rows_unassigned: int
    outside_budget: int
    adversarial_sha256: str
    warnings: tuple[str, ...]


class SectionDocument(Part):
    """One section: its numbers, or why there are none."""

    name: str
    title: str
    measured: bool
    why_not: str | None
    data: dict[str, Any]


class ReportDocument(Part):
    """A report.

    Attributes:
        schema_version: of this document.
        flatguard: the version that drew it.
        run: the name of the run's folder.
        complete: whether every planned block was attacked.
        judgement: the verdict.
        numbers: accuracies with intervals.
        findings: of every check, also those that did not run.
        spent: price, time, and what was left out.
        manifest: everything needed to repeat the run.
        sections: what the figures show, in their order; what was not measured says so.
    """

    schema_version: Literal[1]
    flatguard: str
    run: str
    complete: bool
    judgement: Judgement
    numbers: Numbers
    findings: tuple[Finding, ...]
    spent: Spent
    manifest: Manifest
    sections: tuple[SectionDocument, ...]


def document_of(judged: JudgedRun, drawing: Drawing) -> ReportDocument:
    """The document of a drawn report."""
    verdict, summary = judged.verdict, judged.summary
    return ReportDocument(
        schema_version=1,
        flatguard=version("flatguard"),
        run=judged.run.path.name,
        complete=judged.run.complete,
        judgement=Judgement(
            verdict=verdict.verdict,
            mechanism=verdict.mechanism,
            sentence=verdict.sentence,
            exit_code=verdict.exit_code,
            tolerance=verdict.tolerance,
            next=verdict.next,
        ),
        numbers=_numbers(judged),
        findings=verdict.findings,
        spent=Spent(**{name: summary[name] for name in Spent.model_fields}),
        manifest=judged.run.manifest,
        sections=_sections(drawing),
    )


def _numbers(judged: JudgedRun) -> Numbers:
    verdict, summary = judged.verdict, judged.summary
    return Numbers(
        samples=len(judged.samples),
        confidence_level=verdict.confidence_level,
        clean=_share(summary["clean_accuracy"], summary["clean_interval"]),
        robust=_share(verdict.robust_accuracy, summary["robust_interval"]),
        corrected=_share(verdict.corrected_robust_accuracy, verdict.corrected_interval),
        overestimate=_share(verdict.overestimate, verdict.overestimate_interval),
    )


def _share(value: float, interval: tuple[float, float] | list[float]) -> Share:
    low, high = interval
    return Share(value=value, low=low, high=high)


def _sections(drawing: Drawing) -> tuple[SectionDocument, ...]:
    drawn = [
        SectionDocument(
            name=piece.section.name,
            title=piece.section.title,
            measured=True,
            why_not=None,
            data={key: _plain(value) for key, value in piece.drawn.data.items()},
        )
        for piece in drawing.pieces
    ]
    missing = [
        SectionDocument(
            name=piece.section.name,
            title=piece.section.title,
            measured=False,
            why_not=piece.reason.why,
            data={},
        )
        for piece in drawing.missing
    ]
    return (*drawn, *missing)


def _plain(value: Any) -> Any:
    """JSON knows no NaN: what is not finite was not measured."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
