"""Every figure and table of both papers has a name and an honest status."""

import json

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
    with pytest.raises(UsageError, match=r"walter-fig15 cannot be run .*language models"):
        reproduce("walter-fig15", ["demo"])
    with pytest.raises(UsageError, match="no study 'walter-fig133'; nearest: walter-fig13"):
        find_study("walter-fig133")


def test_list_names_all_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["reproduce", "--list", "--json"])
    assert caught.value.code == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == [study.name for study in STUDIES]
