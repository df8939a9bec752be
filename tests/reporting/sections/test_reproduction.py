from dataclasses import replace

from support.pages import Page, content

from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.reproduction import REPRODUCTION
from flatguard.runs.run import Run


def test_request_arguments_and_seeds_are_listed(run: Run) -> None:
    found = content(REPRODUCTION, JudgedRun.load(run))
    page = Page(str(found.html))
    assert "attack torchattacks:PGD" in page.text
    assert run.manifest.data.sha256 in page.text
    for block in run.manifest.blocks:
        assert f"{block.start} to {block.stop - 1} {block.seed}" in page.text
    assert found.data["manifest"] == run.manifest.model_dump(mode="json")
    assert all(limit in page.text for limit in found.data["limits"])


def test_unassigned_rows_are_counted(run: Run) -> None:
    judged = JudgedRun.load(run)
    summary = {**judged.summary, "rows_unassigned": 3, "warnings": ["library: slow"]}
    page = Page(str(content(REPRODUCTION, replace(judged, summary=summary)).html))
    assert "3 rows could not be assigned to a sample" in page.text
    assert "library: slow" in page.text
