"""What a tracker gets of a run: parameters, metrics, tags and files, under one prefix."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flatguard.checks.verdict import VERDICT
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.markdown import markdown_summary
from flatguard.reporting.report import report_files
from flatguard.reporting.report_page import headlines
from flatguard.reporting.text import shortened, visible
from flatguard.runs.facts import Manifest, digest
from flatguard.runs.layout import SUMMARY
from flatguard.runs.run import Run
from flatguard.runs.storage import Folder

PREFIX = "flatguard"
"""Of all names, so that they do not meet those of the training that the run may belong to."""

Value = str | int | float | bool

_COUNTS = ("n_examples", "failed", "outside_budget", "rows_unassigned")
_SPENT = ("sample_forwards", "sample_backwards", "check_forwards", "seconds", "attack_seconds")
_WHEN = ("clean", "adversarial")
_MEDIANS = ("median_log_kappa", "median_log_logit_sharpness")
_HEADLINES = {
    "reported": "robust_accuracy",
    "corrected": "corrected_robust_accuracy",
    "over": "overestimate",
    "clean": "clean_accuracy",
}
"""The metrics of the numbers at the head of the report, by their tones."""


@dataclass(frozen=True)
class LoggedRun:
    """A judged run as trackers take it.

    Attributes:
        name: of the run's folder.
        key: of this run; the same after it was judged again.
        parameters: the resolved request and the attack's effective arguments; what is None is
            left out.
        metrics: numbers with the ends of their intervals; what was not measured is left out.
        tags: the verdict, each check's status, and what was evaluated, by hashes.
        files: the report, the verdict and the summary.
        markdown: the report's summary.
        folder: the run's; None at an address.
    """

    name: str
    key: str
    parameters: Mapping[str, Value]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    files: tuple[Path, ...]
    markdown: str
    folder: Path | None

    @classmethod
    def of(cls, run: Run) -> LoggedRun:
        """What is logged of a run.

        Raises:
            RunFolderError: it is damaged, or was not judged yet.
        """
        judged = JudgedRun.load(run)
        return cls(
            name=run.path.name,
            key=digest([run.manifest.identity, run.manifest.created])[:16],
            parameters=dict(_parameters(run.manifest)),
            metrics={name: value for name, value in _metrics(judged) if math.isfinite(value)},
            tags=dict(_tags(judged)),
            files=tuple(file for file in _files(run) if file.is_file()),
            markdown=markdown_summary(judged),
            folder=run.path if isinstance(run.storage, Folder) else None,
        )

    def prefix_beside(self, other_key: str | None) -> str:
        """The prefix of this run's names, in a tracker's run that holds the run `other_key`.

        The first run of a tracker's run has `flatguard`; a second one has its own name after it,
        so that neither is lost.
        """
        if other_key in (None, self.key):
            return PREFIX
        return f"{PREFIX}/{re.sub(r'[^A-Za-z0-9._-]+', '-', self.name)[:60]}-{self.key[:8]}"


def _parameters(manifest: Manifest) -> Iterator[tuple[str, Value]]:
    request = manifest.request.model_dump(mode="json", exclude={"attack_args", "log_to"})
    for name, value in request.items():
        if value not in (None, [], ""):
            yield name, _plain(value)
    for name, value in sorted(manifest.attack_args.items()):
        if value is not None:
            yield f"attack_args.{name}", _plain(value)


def _plain(value: Any) -> Value:
    if isinstance(value, bool | int | float):
        return value
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return visible(text)


def _metrics(judged: JudgedRun) -> Iterator[tuple[str, float]]:
    for number in headlines(judged):
        name = _HEADLINES[number.tone]
        yield name, number.share
        if number.interval is not None:
            yield from zip((f"{name}_low", f"{name}_high"), number.interval, strict=True)
    names = [*_COUNTS, *_SPENT, *(f"{m}_{when}" for m in _MEDIANS for when in _WHEN)]
    for name in names:
        if judged.summary.get(name) is not None:
            yield name, float(judged.summary[name])
    for finding in judged.verdict.findings:
        if finding.value is not None and finding.status != "not-run":
            yield f"measured/{finding.check}", finding.value


def _tags(judged: JudgedRun) -> Iterator[tuple[str, str]]:
    verdict, manifest = judged.verdict, judged.run.manifest
    yield "verdict", verdict.verdict
    if verdict.mechanism is not None:
        yield "mechanism", verdict.mechanism
    yield "sentence", visible(verdict.sentence)
    yield "exit_code", str(verdict.exit_code)
    yield "complete", "yes" if judged.run.complete else "no"
    yield "version", version("flatguard")
    yield "weights_sha256", manifest.target.weights_sha256
    yield "data_sha256", manifest.data.sha256
    for finding in verdict.findings:
        yield f"check/{finding.check}", finding.status


def _files(run: Run) -> list[Path]:
    report = report_files(run)
    pages = [report.html, report.json, report.junit, report.sarif, report.markdown]
    return [*pages, run.path / VERDICT, run.path / SUMMARY]


def text_of(value: Value, most: int = 5000) -> str:
    """A parameter or a tag as text, as long as trackers take it."""
    return shortened(str(value), most)
