"""report.json: its schema, its sections, and values that were not measured."""

import json
from pathlib import Path

import jsonschema
import pytest
from support.pages import page_of
from support.reports import HOSTILE
from support.schemas import meaning

from flatguard.reporting.json_report import ReportDocument, report_document
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.report import report_files
from flatguard.reporting.sections import SECTIONS
from flatguard.reporting.sections.claim import CLAIM
from flatguard.reporting.sections.leaderboard import LEADERBOARD
from flatguard.reporting.sections.section import (
    Section,
    SectionContent,
    build_sections,
)
from flatguard.runs.run import Run

SCHEMA = Path(__file__).parents[2] / "docs" / "report.schema.json"


def test_what_is_not_finite_is_null(run: Run) -> None:
    numbers = {"a": float("nan"), "b": [1.0, float("inf")], "c": {"d": -float("inf")}}
    section = Section("x", "X", lambda judged: SectionContent(data=numbers))
    judged_run = JudgedRun.load(run)
    document = report_document(judged_run, build_sections(judged_run, [section]))
    data = json.loads(document.model_dump_json())["sections"][0]["data"]
    assert data == {"a": None, "b": [1.0, None], "c": {"d": None}}


def test_every_section_is_drawn_or_listed(run: Run) -> None:
    page, document = page_of(run), json.loads(report_files(run).json.read_text("utf-8"))
    assert len(page.ids()) == len(set(page.ids()))
    assert [s["name"] for s in document["sections"] if s["measured"]] == [
        section.name for section in SECTIONS if section.name in page.ids()
    ]
    about_others = {CLAIM.name, LEADERBOARD.name}  # this run has no claim, its model no entry
    names = {section.name for section in SECTIONS}
    assert {s["name"] for s in document["sections"]} == names - about_others
    for section in document["sections"]:
        assert section["measured"] or section["why_not"]


def test_the_published_schema_is_the_models(run: Run) -> None:
    published = json.loads(SCHEMA.read_text("utf-8"))
    now = ReportDocument.model_json_schema()
    assert meaning(published) == meaning(now), "make docs-schema writes it again"
    document = json.loads(report_files(run).json.read_text("utf-8"))
    jsonschema.Draft202012Validator(published).validate(document)
    assert document["schema_version"] == 1
    broken = document | {"judgement": document["judgement"] | {"verdict": "fine"}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(published).validate(broken)


def test_names_are_stored_unchanged(hostile: Run) -> None:
    document = json.loads(report_files(hostile).json.read_text("utf-8"))
    assert document["manifest"]["target"]["name"] == HOSTILE.model


def test_the_numbers_are_the_verdicts(run: Run) -> None:
    numbers = json.loads(report_files(run).json.read_text("utf-8"))["numbers"]
    verdict = JudgedRun.load(run).verdict
    low, high = verdict.corrected_interval
    assert numbers["samples"] == 60
    assert numbers["corrected"] == {
        "value": verdict.corrected_robust_accuracy, "low": low, "high": high,
    }  # fmt: skip
