from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.section import (
    NotMeasured,
    Section,
    SectionContent,
    build_sections,
)
from flatguard.runs.run import Run


def test_missing_measurements_are_reported(run: Run) -> None:
    absent = Section("absent", "Absent", lambda judged: NotMeasured("no probe", "flatguard do"))
    other = Section("other", "Other", lambda judged: SectionContent(intro="here"))
    sections = build_sections(JudgedRun.load(run), [absent, other])
    assert [one.section.name for one in sections.built] == ["other"]
    assert [(m.section.name, m.reason.why) for m in sections.missing] == [("absent", "no probe")]
