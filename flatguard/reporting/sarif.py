"""SARIF 2.1.0: one result for each check and one for the verdict, for tools that show findings.

The kinds are SARIF's own: a check that did not run is `open`, never a pass, and so is an
inconclusive verdict. A warning alone does not decide, so it is for `review`.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from flatguard.checks.finding import Finding, Status
from flatguard.checks.registry import load_checks
from flatguard.checks.verdict import Verdict
from flatguard.reporting.findings import measured_text
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.text import between, percent, visible

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"
_SITE = "https://github.com/flatguard/flatguard"
_VERDICT = "verdict"
_KINDS: dict[Status, tuple[str, str]] = {
    "fail": ("fail", "error"), "warn": ("review", "none"), "not-run": ("open", "none"),
    "pass": ("pass", "none"),
}  # fmt: skip
"""The kind and the level of a check's result; only a failure may have a level."""
_VERDICTS = {0: ("pass", "none"), 1: ("fail", "error"), 3: ("open", "none")}


def sarif(judged: JudgedRun) -> str:
    """The findings and the verdict as a SARIF log."""
    location = _location(judged)
    results = [_verdict(judged.verdict), *map(_finding, judged.verdict.findings)]
    run = {
        "tool": {"driver": _driver()},
        "automationDetails": {"id": f"flatguard/{visible(judged.run.path.name)}"},
        "invocations": [{"executionSuccessful": judged.run.complete}],
        "results": [{**result, "locations": [location]} for result in results],
        "properties": _properties(judged),
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1)


def _driver() -> dict[str, Any]:
    rules = [{"id": _VERDICT, "shortDescription": {"text": "Can this accuracy be believed?"}}]
    rules += [
        {
            "id": check.name,
            "shortDescription": {"text": check.why or check.name},
            "helpUri": f"{_SITE}/blob/main/docs/verdict.md#{check.name}",
        }
        for check in load_checks()
    ]
    return {
        "name": "flatguard",
        "semanticVersion": version("flatguard"),
        "informationUri": _SITE,
        "rules": rules,
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    corrected = (
        f"Corrected robust accuracy {percent(verdict.corrected_robust_accuracy)} "
        f"({between(verdict.corrected_interval)})."
    )
    return _result(_VERDICT, _VERDICTS[verdict.exit_code], [verdict.sentence, corrected])


def _finding(finding: Finding) -> dict[str, Any]:
    lines = [finding.summary, f"Measured: {measured_text(finding)}."]
    if finding.next:
        lines.append(f"Next: {finding.next}")
    return _result(finding.check, _KINDS[finding.status], lines)


def _result(rule: str, kind: tuple[str, str], lines: list[str]) -> dict[str, Any]:
    word, level = kind
    text = visible("\n".join(lines))
    return {"ruleId": rule, "kind": word, "level": level, "message": {"text": text}}


def _location(judged: JudgedRun) -> dict[str, Any]:
    """The file of weights where the model is one in the project, else the report."""
    manifest = judged.run.manifest
    model = PurePath(manifest.request.model)
    is_file = bool(model.suffix) and ":" not in manifest.request.model
    in_project = is_file and not model.is_absolute() and ".." not in model.parts
    file = model.as_posix() if in_project else "report.html"
    return {
        "physicalLocation": {"artifactLocation": {"uri": quote(visible(file))}},
        "logicalLocations": [{"name": visible(manifest.target.name), "kind": "module"}],
    }


def _properties(judged: JudgedRun) -> dict[str, Any]:
    verdict, summary, manifest = judged.verdict, judged.summary, judged.run.manifest
    return {
        "attack": visible(manifest.request.attack),
        "budget": str(judged.budget),
        "samples": len(judged.samples),
        "clean_accuracy": summary["clean_accuracy"],
        "robust_accuracy": verdict.robust_accuracy,
        "corrected_robust_accuracy": verdict.corrected_robust_accuracy,
        "corrected_interval": list(verdict.corrected_interval),
        "weights_sha256": manifest.target.weights_sha256,
    }
