"""The report of a run: what it shows, what it refuses, and what it does to hostile names."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
from support.reports import HOSTILE, judged
from support.schemas import meaning

import flatguard
from flatguard.checks.evidence import Evidence
from flatguard.checks.judging import CHECKS, run_checks
from flatguard.checks.verdict import verdict_of
from flatguard.errors import RunFolderError
from flatguard.reporting.findings import WHY
from flatguard.reporting.json_report import ReportDocument
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.report import report_files, write_report
from flatguard.reporting.report_page import draw_sections
from flatguard.reporting.sections import SECTIONS
from flatguard.reporting.sections.samples import worst
from flatguard.reporting.sections.section import Drawn, NotMeasured, Section
from flatguard.reporting.text import visible
from flatguard.runs.layout import committed
from flatguard.runs.run import Run, load_run

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "docs" / "report.schema.json"


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def ids(self) -> list[str]:
        return [str(attrs["id"]) for _, attrs in self.tags if "id" in attrs]


def page_of(run: Run) -> Page:
    return Page(report_files(run).html.read_text("utf-8"))


def test_the_verdict_is_the_judges(run: Run) -> None:
    verdict = verdict_of(run)
    text = " ".join("".join(page_of(run).words).split())
    assert verdict.sentence in text
    assert f"{verdict.corrected_robust_accuracy:.1%}" in text
    for finding in verdict.findings:
        assert " ".join(finding.summary.split()) in text
    unrun = [finding.check for finding in verdict.findings if finding.status == "not-run"]
    assert unrun
    assert f"{len(unrun)} checks did not run" in text


def test_every_section_is_drawn_or_listed(run: Run) -> None:
    page, document = page_of(run), json.loads(report_files(run).json.read_text("utf-8"))
    assert len(page.ids()) == len(set(page.ids()))
    assert [s["name"] for s in document["sections"] if s["measured"]] == [
        section.name for section in SECTIONS if section.name in page.ids()
    ]
    assert {s["name"] for s in document["sections"]} == {section.name for section in SECTIONS}
    for section in document["sections"]:
        assert section["measured"] or section["why_not"]


def test_nothing_measured_is_said_so(run: Run) -> None:
    absent = Section("absent", "Absent", lambda judged: NotMeasured("no probe", "flatguard do"))
    other = Section("other", "Other", lambda judged: Drawn(intro="here"))
    drawing = draw_sections(JudgedRun.load(run), [absent, other])
    assert [piece.section.name for piece in drawing.pieces] == ["other"]
    assert [(m.section.name, m.reason.why) for m in drawing.missing] == [("absent", "no probe")]


def test_the_page_asks_for_nothing_and_forbids_the_rest(run: Run) -> None:
    page = page_of(run)
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    for tag, attrs in page.tags:
        assert "style" not in attrs, tag
        assert not any(name.startswith("on") for name in attrs), tag
        source = attrs.get("src") or attrs.get("href") or "#"
        assert source.startswith(("#", "data:image/")), source
    assert sum(tag == "script" for tag, _ in page.tags) == 1


def test_every_figure_has_words_and_numbers(run: Run) -> None:
    text = report_files(run).html.read_text("utf-8")
    figures = re.findall(r"<figure.*?</figure>", text, flags=re.DOTALL)
    assert len(figures) == 9
    for figure in figures:
        assert re.search(r'<svg [^>]*role="img" aria-label="[^"]{20,}"', figure)
        assert "<table>" in figure


def test_the_worst_samples_come_first(run: Run) -> None:
    chosen = worst(JudgedRun.load(run))
    evidence = Evidence.of(run)
    overturned = [s for s in chosen["sample"] if s in evidence.fallen]
    assert chosen["sample"].tolist()[: len(overturned)] == overturned
    assert len(overturned) == len(evidence.fallen)
    assert chosen["fate"].tolist() == sorted(
        chosen["fate"], key=["overturned", "stood", "fell", "wrong"].index
    )


def test_it_is_drawn_again_from_the_folder_alone(fresh: Run, tmp_path: Path) -> None:
    before = report_files(fresh).html.read_bytes()
    moved = tmp_path / "elsewhere" / "fresh"
    shutil.move(fresh.path, moved.parent / "fresh")
    for file in moved.glob("report.*"):
        file.unlink()
    assert write_report(load_run(moved)).html.read_bytes() == before


def test_a_damaged_run_is_refused_and_its_old_report_stays(fresh: Run) -> None:
    old = report_files(fresh).html.read_bytes()
    file = committed(fresh.path)[1] / "clean.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"clean\.safetensors is damaged"):
        write_report(load_run(fresh.path))
    assert report_files(fresh).html.read_bytes() == old


def test_an_unjudged_run_is_told_to_be_judged(fresh: Run) -> None:
    (fresh.path / "verdict.json").unlink()
    with pytest.raises(RunFolderError, match="has no verdict yet; flatguard audit"):
        write_report(load_run(fresh.path))
    flatguard.audit(fresh.path)
    (fresh.path / "summary.json").write_text("{}")
    with pytest.raises(RunFolderError, match=r"flatguard audit .* writes it anew"):
        write_report(load_run(fresh.path))


def test_why_each_check_matters_is_known(run: Run) -> None:
    names = {finding.check for finding in run_checks(Evidence.of(run), 0.05)}
    assert set(WHY) == names
    assert len(names) == len(CHECKS)


def test_the_published_schema_is_the_models(run: Run) -> None:
    published = json.loads(SCHEMA.read_text("utf-8"))
    now = ReportDocument.model_json_schema()
    assert meaning(published) == meaning(now), "make docs-schema writes it anew"
    document = json.loads(report_files(run).json.read_text("utf-8"))
    jsonschema.Draft202012Validator(published).validate(document)
    assert document["schema_version"] == 1
    broken = document | {"judgement": document["judgement"] | {"verdict": "fine"}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(published).validate(broken)


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
    assert "Not measured" in "".join(page_of(load_run(fresh.path)).words)


def test_hostile_names_are_text_in_the_page(hostile: Run) -> None:
    page = page_of(hostile)
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert not [tag for tag, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    text = "".join(page.words)
    assert visible(HOSTILE.model) in text
    assert visible(HOSTILE.classes[0]) in text
    whole = report_files(hostile).html.read_text("utf-8")
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u0000\u0007]", whole)
    assert "\\u202egnp.exe" in text


def test_hostile_names_are_text_for_machines(hostile: Run) -> None:
    suite = ElementTree.fromstring(report_files(hostile).junit.read_text("utf-8"))[0]
    assert "<script>document.title='owned'</script>" in suite.attrib["name"]
    document = json.loads(report_files(hostile).json.read_text("utf-8"))
    assert document["manifest"]["target"]["name"] == HOSTILE.model
    summary = report_files(hostile).markdown.read_text("utf-8")
    assert "<" not in summary
    subject = summary.splitlines()[2]
    assert "|" not in subject
    assert "\\`" in subject
    rows = [line for line in summary.splitlines() if line.startswith("|")]
    bars = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    assert bars == {4, 5}


@pytest.mark.parametrize("file", ["verdict.json", "summary.json"])
def test_another_runs_verdict_is_refused(fresh: Run, tmp_path: Path, file: str) -> None:
    other = judged(tmp_path / "other", seed=1)
    shutil.copy(other.path / file, fresh.path / file)
    with pytest.raises(RunFolderError, match=r"not of this run's evidence; flatguard audit "):
        write_report(load_run(fresh.path))
