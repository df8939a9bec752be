"""JUnit XML: one case a check and one for the verdict, for whatever shows test results.

A check that did not run is skipped, with its reason. A warning alone decides nothing, so it passes,
and says so in its output. An open verdict is an error: nobody may take it for a pass.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as xml

from flatguard.checks.finding import Finding
from flatguard.checks.verdict import Verdict
from flatguard.reporting.findings import measured
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.text import between, percent, visible

FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML document may hold, however it is written."""


def junit_xml(judged: JudgedRun) -> str:
    """The findings and the verdict as a test suite."""
    manifest, verdict = judged.run.manifest, judged.verdict
    name = _said(f"{manifest.target.name} {manifest.request.attack} {judged.budget}")
    suite = xml.Element(
        "testsuite", name=f"flatguard {name}", timestamp=_said(manifest.created[:19])
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
    told = (
        f"{verdict.sentence}\ncorrected robust accuracy "
        f"{percent(verdict.corrected_robust_accuracy)} ({between(verdict.corrected_interval)})\n"
        + "\n".join(f"next: {step}" for step in verdict.next)
    )
    tag = {0: "system-out", 1: "failure"}.get(verdict.exit_code, "error")
    _tell(case, tag, verdict.sentence, told)


def _add_finding(suite: xml.Element, finding: Finding, name: str) -> None:
    case = xml.SubElement(
        suite, "testcase", classname=f"flatguard.{name}", name=_said(finding.check)
    )
    pieces = [finding.status, finding.summary, f"measured: {measured(finding)}", finding.source]
    if finding.next:
        pieces.append(f"next: {finding.next}")
    tag = {"fail": "failure", "not-run": "skipped"}.get(finding.status, "system-out")
    _tell(case, tag, finding.summary, "\n".join(piece for piece in pieces if piece))


def _tell(case: xml.Element, tag: str, message: str, text: str) -> None:
    told = xml.SubElement(case, tag)
    if tag != "system-out":
        told.set("message", _said(message))
    told.text = _said(text)


def _said(text: str) -> str:
    return FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", visible(text))
