"""Every figure and table of both papers has a name and an honest status."""

import json
import re
from pathlib import Path

import pytest

from flatguard.cli.app import main
from flatguard.errors import UsageError
from flatguard.studies import STUDIES, find_study
from flatguard.studies.reproduce import reproduce

WALTER = [f"walter-fig{n}" for n in range(1, 17)] + ["walter-table1"]
STUTZ = [f"stutz-fig{n}" for n in range(1, 8)] + ["stutz-table1"]


def test_every_figure_and_table_is_named_once() -> None:
    names = [study.name for study in STUDIES]
    assert len(set(names)) == len(names)
    assert set(WALTER + STUTZ) <= set(names)


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_a_status_says_whether_it_runs(study) -> None:
    assert (study.run is not None) == (study.status in ("runs-here", "needs-checkpoint"))
    assert bool(study.why) == (study.status != "runs-here")


def test_what_cannot_be_run_says_why() -> None:
    with pytest.raises(UsageError, match=r"walter-fig1 cannot be run \(illustration\)"):
        reproduce("walter-fig1", ["demo"])
    with pytest.raises(UsageError, match="no study 'walter-fig133'; nearest: walter-fig13"):
        find_study("walter-fig133")


def test_list_names_all_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["reproduce", "--list", "--json"])
    assert caught.value.code == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == [study.name for study in STUDIES]


DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_a_page_says_what_it_means(study) -> None:
    if study.run is None:
        return
    pages = [page for page in (DOCS / "studies").glob("*.md") if page.stem != "index"]
    naming = [page for page in pages if f"`{study.name}`" in page.read_text("utf-8")]
    ranged = [page for page in pages if study.name in _ranges(page.read_text("utf-8"))]
    assert naming or ranged
    assert all("## For you" in page.read_text("utf-8") for page in naming + ranged)


def _ranges(text: str) -> set[str]:
    """`walter-fig7` to `walter-fig11` names all five."""
    found = re.findall(r"`(\w+-fig)(\d+)` to\s+`\w+-fig(\d+)`", text)
    return {f"{stem}{n}" for stem, low, high in found for n in range(int(low), int(high) + 1)}


def test_the_commands_of_the_pages_name_studies() -> None:
    for page in (DOCS / "studies").glob("*.md"):
        for name in re.findall(r"flatguard reproduce ([a-z]+-\w+)", page.read_text("utf-8")):
            assert find_study(name).run is not None


def test_a_calculation_runs_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["reproduce", "walter-table1", "--json"])
    assert caught.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert {claim["verdict"] for claim in found["claims"]} == {"agrees", "refuted"}
    assert found["models"] == []
    with pytest.raises(SystemExit) as caught:
        main(["reproduce", "walter-table1"])
    assert "refuted      Assumption (A) for reverse KL" in capsys.readouterr().out
