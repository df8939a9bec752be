"""JUnit XML: one test case for each check and one for the verdict.

A check that did not run is skipped, with its reason. A warning alone does not decide, so the case
passes and its output contains the warning. An inconclusive verdict is an error, so that it cannot
be mistaken for a pass.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree as xml

from flatguard.checks.finding import Finding
from flatguard.checks.verdict import Verdict
from flatguard.reporting.findings import measured_text
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.text import between, percent, visible

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML document may contain, escaped or not."""


def junit_xml(judged: JudgedRun) -> str:
    """The findings and the verdict as a test suite."""
    manifest, verdict = judged.run.manifest, judged.verdict
    name = _xml_text(f"{manifest.target.name} {manifest.request.attack} {judged.budget}")
    suite = xml.Element(
        "testsuite", name=f"flatguard {name}", timestamp=_xml_text(manifest.created[:19])
    )
    suite.set("time", f"{judged.summary['seconds']:.3f}")
    _add_properties(suite, judged)
    _add_verdict(suite, verdict, name)
    for finding in verdict.findings:
        _add_finding(suite, finding, name)
    suite.set("tests", str(len(suite.findall("testcase"))))
    for counter, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(counter, str(len(suite.findall(f"testcase/{tag}"))))
    suites = xml.Element("testsuites")
    suites.append(suite)
    xml.indent(suites)
    return xml.tostring(suites, encoding="unicode", xml_declaration=False)


def _add_properties(suite: xml.Element, judged: JudgedRun) -> None:
    verdict, summary = judged.verdict, judged.summary
    low, high = verdict.corrected_interval
    values = {
        "clean_accuracy": summary["clean_accuracy"],
        "robust_accuracy": verdict.robust_accuracy,
        "corrected_robust_accuracy": verdict.corrected_robust_accuracy,
        "corrected_interval": f"{low} {high}",
        "samples": len(judged.samples),
    }
    properties = xml.SubElement(suite, "properties")
    for name, value in values.items():
        xml.SubElement(properties, "property", name=name, value=str(value))


def _add_verdict(suite: xml.Element, verdict: Verdict, name: str) -> None:
    case = xml.SubElement(suite, "testcase", classname=f"flatguard.{name}", name="verdict")
    output = [
        verdict.sentence,
        f"corrected robust accuracy {percent(verdict.corrected_robust_accuracy)} "
        f"({between(verdict.corrected_interval)})",
        *(f"next: {step}" for step in verdict.next),
    ]
    tag = {0: "system-out", 1: "failure"}.get(verdict.exit_code, "error")
    _add_result(case, tag, verdict.sentence, output)


def _add_finding(suite: xml.Element, finding: Finding, name: str) -> None:
    case = xml.SubElement(
        suite, "testcase", classname=f"flatguard.{name}", name=_xml_text(finding.check)
    )
    output = [finding.status, finding.summary, f"measured: {measured_text(finding)}"]
    if finding.source:
        output.append(finding.source)
    if finding.next:
        output.append(f"next: {finding.next}")
    tag = {"fail": "failure", "not-run": "skipped"}.get(finding.status, "system-out")
    _add_result(case, tag, finding.summary, output)


def _add_result(case: xml.Element, tag: str, message: str, output: Sequence[str]) -> None:
    result = xml.SubElement(case, tag)
    if tag != "system-out":
        result.set("message", _xml_text(message))
    result.text = _xml_text("\n".join(output))


def _xml_text(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", visible(text))
