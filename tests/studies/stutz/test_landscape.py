"""`flatguard geometry landscape` on a measured checkpoint: kept once, and in the report."""

import json
import shutil
from pathlib import Path

import pytest

from flatguard.checks.weight_space.summary import weight_losses
from flatguard.cli.app import main
from flatguard.runs.run import load_run


def test_a_landscape_is_kept_and_shown(
    checkpoints: Path, answer: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(checkpoints / "out" / "at-s0-epoch-2", run)
    seen, command = [], ["geometry", "landscape", str(run)]
    with pytest.raises(SystemExit) as caught:
        main(command)
    assert caught.value.code == 2
    assert "--allow-code" in capsys.readouterr().err  # the run names an architecture's code
    for _ in range(2):
        with pytest.raises(SystemExit) as caught:
            main([*command, "--directions", "2", "--steps", "2", "--json", "--allow-code"])
        assert caught.value.code == 0
        seen.append(json.loads(capsys.readouterr().out))
    assert seen[0] == seen[1]
    by_t = {row["t"]: row for row in seen[0]}
    assert len(by_t) == 11
    reference = weight_losses(load_run(run))["test"].matrix("reference", "clean_loss").mean()
    assert by_t[0.0]["clean_loss"] == pytest.approx(reference)
    assert all(row["lowest"] <= row["robust_loss"] <= row["highest"] for row in seen[0])
    (kept,) = (run / "evidence" / "probes").glob("landscape-*")
    assert (kept / "landscape.parquet").is_file()
    page = (run / "report.html").read_text()
    assert "The loss around the weights" in page
    assert "Flatness in weight space (Stutz et al. 2021, Eq. 1)" in page
    shown = json.loads((run / "report.json").read_text())
    (section,) = (one for one in shown["sections"] if one["name"] == "geometry")
    flatness = section["data"]["weights"]["test"]["flatness"]
    assert flatness == pytest.approx(answer["checkpoints"][1]["flatness"])
