"""`flatguard report` and `flatguard compare`, typed."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.reports import SMALL, judged

import flatguard
from flatguard.cli.app import main


class Told:
    """An observer who remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, line: str) -> None:
        self.lines.append(line)


def typed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([*arguments])
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out, captured.err


def test_reports_are_drawn_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = judged(tmp_path / "run")
    (run.path / "report.html").unlink()
    code, out, _ = typed(capsys, "report", "run", "run")
    assert (code, out) == (0, "run/report.html\nrun/report.html\n")
    assert (run.path / "report.html").is_file()


def test_no_run_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = typed(capsys, "report", "nowhere")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "is no run folder" in err


def test_a_report_that_cannot_be_drawn_loses_no_verdict(tmp_path: Path) -> None:
    run = judged(tmp_path / "run")
    for file in run.path.glob("report.*"):
        file.unlink()
    (run.path / "report.html").mkdir()
    told = Told()
    verdict = flatguard.audit(run, progress=told)  # type: ignore[arg-type]
    assert verdict.exit_code == 1
    assert (run.path / "verdict.json").is_file()
    assert len(told.lines) == 1
    assert "the report was not written: cannot write" in told.lines[0]
    assert f"flatguard report {run.path}" in told.lines[0]


def test_runs_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judged(tmp_path / "a")
    judged(tmp_path / "b")
    code, out, _ = typed(capsys, "compare", "a", "b", "--html", "pair.html")
    assert code == 0
    assert "robust accuracy, corrected" in out
    assert out.splitlines()[-1] == "pair.html"
    assert (tmp_path / "pair.html").read_text("utf-8").startswith("<!doctype html>")
    code, out, _ = typed(capsys, "compare", "a", "b", "--json")
    assert (code, json.loads(out)["samples"]) == (0, 60)


def test_runs_over_other_data_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged(tmp_path / "a")
    judged(tmp_path / "b", replace(SMALL, samples=50))
    code, out, err = typed(capsys, "compare", "a", "b", "--html", "pair.html")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "a and b are over different data" in err
    assert not (tmp_path / "pair.html").exists()


def test_a_pages_folder_that_is_not_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged(tmp_path / "a")
    code, _, err = typed(capsys, "compare", "a", "a", "--html", "no/where.html")
    assert (code, err.count("\n")) == (2, 1)
    assert "No such file" in err


def test_drawing_needs_no_room_for_every_row(tmp_path: Path) -> None:
    """Scaled down from `make bench`: a hundred thousand rows."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from benchmarks.report import drawn
    from benchmarks.synthetic import make_run

    run = make_run(tmp_path / "run", replace(SMALL, samples=2000, steps=50, block=500, side=16))
    flatguard.audit(run)
    found = drawn(run.path)
    assert found["worked"] < 20
    assert found["size"] < 6
