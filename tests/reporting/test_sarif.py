"""SARIF, as its readers take it."""

import json
import shutil
from pathlib import Path
from typing import Any

import flatguard
from flatguard.checks.registry import check_names
from flatguard.checks.verdict import verdict_of
from flatguard.reporting.report import report_files
from flatguard.runs.run import Run, load_run

KINDS = {"fail": "fail", "warn": "review", "not-run": "open", "pass": "pass"}


def log(run: Run) -> Any:
    found = json.loads(report_files(run).sarif.read_text("utf-8"))
    assert found["version"] == "2.1.0"
    (one,) = found["runs"]
    return one


def test_one_result_a_check_and_one_for_the_verdict(run: Run) -> None:
    found, verdict = log(run), verdict_of(run)
    results = {result["ruleId"]: result for result in found["results"]}
    assert len(results) == len(found["results"]) == len(verdict.findings) + 1
    for finding in verdict.findings:
        assert results[finding.check]["kind"] == KINDS[finding.status]
        assert finding.summary in results[finding.check]["message"]["text"]
    assert results["verdict"]["kind"] == "fail"
    assert verdict.sentence in results["verdict"]["message"]["text"]
    # Of all kinds, only a failure may have a level (3.27.10).
    levels = {(result["kind"] == "fail", result["level"]) for result in found["results"]}
    assert levels == {(True, "error"), (False, "none")}
    rules = {rule["id"] for rule in found["tool"]["driver"]["rules"]}
    assert rules == {"verdict", *check_names()} >= set(results)


def test_an_open_verdict_is_no_pass(fresh: Run) -> None:
    shutil.rmtree(fresh.path / "evidence" / "probes")
    assert flatguard.audit(fresh.path).verdict == "inconclusive"
    kinds = {result["ruleId"]: result["kind"] for result in log(load_run(fresh.path))["results"]}
    assert kinds["verdict"] == kinds["black-box"] == "open"


def test_every_result_has_a_place_and_names_are_visible(hostile: Run) -> None:
    assert "\u202e" not in json.dumps(log(hostile), ensure_ascii=False)
    for result in log(hostile)["results"]:
        (place,) = result["locations"]
        uri = place["physicalLocation"]["artifactLocation"]["uri"]
        assert not set(uri) & set("<>\"' \u202e")
        assert "\\u202e" in place["logicalLocations"][0]["name"]


def test_a_file_of_weights_is_the_place(fresh: Run) -> None:
    from flatguard.reporting.judged_run import JudgedRun
    from flatguard.reporting.sarif import _location

    judged = JudgedRun.load(fresh)
    cases = {
        "weights/a b.safetensors": "weights/a%20b.safetensors", "/else/w.pt": "report.html",
        "../w.pt": "report.html", "timm:resnet18.a1_in1k": "report.html", "demo": "report.html",
    }  # fmt: skip
    for model, uri in cases.items():
        request = fresh.manifest.request.model_copy(update={"model": model})
        fresh.manifest = fresh.manifest.model_copy(update={"request": request})
        assert _location(judged)["physicalLocation"]["artifactLocation"]["uri"] == uri


def test_rules_lead_to_their_sections() -> None:
    docs = Path(__file__).parents[2] / "docs" / "verdict.md"
    headings = [line for line in docs.read_text("utf-8").splitlines() if line.startswith("### ")]
    assert {f"### {name}" for name in check_names()} <= set(headings)
