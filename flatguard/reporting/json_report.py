"""`report.json`: the report for programs, with a published and versioned schema.

A program that reads `schema_version` 1 can read every report of that version: within a version,
fields are only added.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from flatguard.checks.error_rates import ErrorRate
from flatguard.checks.finding import Finding
from flatguard.checks.mechanism import Explanation, Mechanism
from flatguard.checks.verdict import Word
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.section import Sections
from flatguard.runs.facts import Manifest


class Part(BaseModel):
    """A part of a document: frozen, and without fields that the schema does not list."""

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
    explanations: tuple[Explanation, ...]
    sentence: str
    exit_code: int
    tolerance: float
    error_rates: tuple[ErrorRate, ...]
    next: tuple[str, ...]


class Spent(Part):
    """The cost of the run, and what could not be counted."""

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
        schema_version: version of this format.
        flatguard: the version of flatguard that wrote the report.
        run: the name of the run's folder.
        complete: whether every planned block was attacked.
        judgement: the verdict.
        numbers: accuracies with intervals.
        findings: the findings of all checks, including those that did not run.
        spent: cost, time, and what was left out.
        manifest: everything that is needed to reproduce the run.
        sections: the numbers of the figures, in their order; then what was not measured, and why.
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


def report_document(judged: JudgedRun, sections: Sections) -> ReportDocument:
    """The document of a report, from its sections."""
    verdict, summary = judged.verdict, judged.summary
    return ReportDocument(
        schema_version=1,
        flatguard=version("flatguard"),
        run=judged.run.path.name,
        complete=judged.run.complete,
        judgement=Judgement(
            verdict=verdict.verdict,
            mechanism=verdict.mechanism,
            explanations=verdict.explanations,
            sentence=verdict.sentence,
            exit_code=verdict.exit_code,
            tolerance=verdict.tolerance,
            error_rates=verdict.error_rates,
            next=verdict.next,
        ),
        numbers=Numbers(
            samples=len(judged.samples),
            confidence_level=verdict.confidence_level,
            clean=_share(summary["clean_accuracy"], summary["clean_interval"]),
            robust=_share(verdict.robust_accuracy, summary["robust_interval"]),
            corrected=_share(verdict.corrected_robust_accuracy, verdict.corrected_interval),
            overestimate=_share(verdict.overestimate, verdict.overestimate_interval),
        ),
        findings=verdict.findings,
        spent=Spent(**{name: summary[name] for name in Spent.model_fields}),
        manifest=judged.run.manifest,
        sections=_section_documents(sections),
    )


def _share(value: float, interval: Sequence[float]) -> Share:
    low, high = interval
    return Share(value=value, low=low, high=high)


def _section_documents(sections: Sections) -> tuple[SectionDocument, ...]:
    built = [
        SectionDocument(
            name=one.section.name, title=one.section.title, measured=True, why_not=None,
            data=one.content.data,
        )
        for one in sections.built
    ]  # fmt: skip
    missing = [
        SectionDocument(
            name=one.section.name, title=one.section.title, measured=False,
            why_not=one.reason.why, data={},
        )
        for one in sections.missing
    ]  # fmt: skip
    return (*built, *missing)
