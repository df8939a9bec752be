"""JUnit XML, as an XML parser reads it."""

import shutil
from xml.etree import ElementTree

from support.pages import page_of

import flatguard
from flatguard.checks.verdict import verdict_of
from flatguard.reporting.report import report_files
from flatguard.runs.run import Run, load_run


def test_hostile_names_are_text(hostile: Run) -> None:
    suite = ElementTree.fromstring(report_files(hostile).junit.read_text("utf-8"))[0]
    assert "<script>document.title='owned'</script>" in suite.attrib["name"]


def test_junit_has_one_case_a_check(run: Run) -> None:
    verdict = verdict_of(run)
    suite = ElementTree.fromstring(report_files(run).junit.read_text("utf-8"))[0]
    cases = {case.attrib["name"]: case for case in suite.findall("testcase")}
    assert set(cases) == {"verdict", *(finding.check for finding in verdict.findings)}
    wanted = {"fail": "failure", "not-run": "skipped", "warn": "system-out", "pass": "system-out"}
    for finding in verdict.findings:
        assert [child.tag for child in cases[finding.check]] == [wanted[finding.status]]
    assert int(suite.attrib["skipped"]) == sum(f.status == "not-run" for f in verdict.findings)
    assert verdict.exit_code == 1
    assert [child.tag for child in cases["verdict"]] == ["failure"]


def test_an_open_verdict_is_no_pass_in_junit(fresh: Run) -> None:
    shutil.rmtree(fresh.path / "evidence" / "probes")
    assert flatguard.audit(fresh.path).verdict == "inconclusive"
    suite = ElementTree.fromstring(report_files(fresh).junit.read_text("utf-8"))[0]
    assert suite.find("testcase[@name='verdict']/error") is not None
    assert "Not measured" in page_of(load_run(fresh.path)).text
