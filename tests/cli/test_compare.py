"""`flatguard compare`."""

import json
from dataclasses import replace
from pathlib import Path

from support.reports import SMALL, judged


def test_runs_are_compared(tmp_path: Path, cli) -> None:
    judged(tmp_path / "a")
    judged(tmp_path / "b")
    result = cli("compare", "a", "b", "--html", "pair.html")
    assert result.code == 0
    assert "robust accuracy, corrected" in result.out
    assert result.out.splitlines()[-1] == "pair.html"
    assert (tmp_path / "pair.html").read_text("utf-8").startswith("<!doctype html>")
    result = cli("compare", "a", "b", "--json")
    assert (result.code, json.loads(result.out)["samples"]) == (0, 60)


def test_runs_over_other_data_are_refused(tmp_path: Path, cli) -> None:
    judged(tmp_path / "a")
    judged(tmp_path / "b", replace(SMALL, samples=50))
    result = cli("compare", "a", "b", "--html", "pair.html")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert "a and b are over different data" in result.err
    assert not (tmp_path / "pair.html").exists()


def test_a_pages_folder_that_is_not_there_is_one_line(tmp_path: Path, cli) -> None:
    judged(tmp_path / "a")
    result = cli("compare", "a", "a", "--html", "no/where.html")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "No such file" in result.err
