"""Pages of reports as a parser sees them, and judged runs with chosen evidence."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import torch
from torch import Tensor, nn

import flatguard
from flatguard.checks.evidence import ProbeEvidence
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.report import report_files
from flatguard.reporting.sections.section import Section, SectionContent
from flatguard.runs.run import Run


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._pieces: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self._pieces.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._pieces).split())

    def ids(self) -> list[str]:
        return [str(attrs["id"]) for _, attrs in self.tags if "id" in attrs]


def terms_of(page: str) -> set[str]:
    """The names of the terms that a page lists, one click away from its verdict."""
    assert 'href="#terms"' in page
    listed = page.split('<details id="terms"')[1].split("</details>")[0]
    return set(re.findall(r"<dt>(.*?)</dt>", listed))


def page_of(run: Run) -> Page:
    return Page(report_files(run).html.read_text("utf-8"))


def with_probes(run: Run, **probes: ProbeEvidence) -> JudgedRun:
    """The judged run, as if these probes had been run too."""
    judged = JudgedRun.load(run)
    evidence = replace(judged.evidence, probes={**judged.evidence.probes, **probes})
    judged.__dict__["evidence"] = evidence
    return judged


def content(section: Section, judged: JudgedRun) -> SectionContent:
    """What a section shows of a run that has it measured."""
    found = section.build(judged)
    assert isinstance(found, SectionContent), found
    return found


def section_data(run: Run, name: str) -> dict[str, Any]:
    """A section as `report.json` has it."""
    document = json.loads(report_files(run).json.read_text("utf-8"))
    found: dict[str, Any] = next(s for s in document["sections"] if s["name"] == name)
    return found


def evaluated(data: tuple[Tensor, Tensor], attack: str, model: nn.Module, **how: Any) -> Run:
    """A run in the current folder."""
    torch.manual_seed(0)
    return flatguard.evaluate(model, attack, data=data, out="run", **how)
