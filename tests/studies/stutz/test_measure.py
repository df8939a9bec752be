"""Checkpoints to run folders: measured once, and never mixed with others."""

import json
import shutil
from pathlib import Path

import pytest
from support.studies import robust_flatness

from flatguard.runs.check_evidence import load_probes
from flatguard.runs.run import load_run


def test_the_evidence_names_data_seeds_and_every_perturbed_model(
    checkpoints: Path, answer: dict
) -> None:
    run = load_run(checkpoints / "out" / "at-s0-epoch-1")
    probes = {facts.facts["part"]: facts for facts in load_probes(run).values()}
    assert set(probes) == {"test", "training", "held-out"}
    facts = probes["test"].facts
    assert facts["data_sha256"] == run.manifest.data.sha256
    assert len(facts["models"]) == 1 + 2 + 2
    assert facts["models"][0]["weights_sha256"] == run.manifest.target.weights_sha256
    assert len({model["weights_sha256"] for model in facts["models"]}) == 5
    assert probes["test"].sample_forwards > 30 * 5 * 4


def test_what_was_measured_is_not_measured_again(checkpoints: Path, answer: dict) -> None:
    files = sorted((checkpoints / "out").glob("*/evidence/**/*.json"))
    before = {file: file.stat().st_mtime_ns for file in files}
    shutil.rmtree(checkpoints / "out" / "at-s0-epoch-2")  # as if the command had been stopped there
    assert robust_flatness(checkpoints, "--quiet") == 0
    kept = [file for file in files if "epoch-1" in str(file)]
    assert all(file.stat().st_mtime_ns == before[file] for file in kept)
    again = json.loads((checkpoints / "out" / "robust-flatness.json").read_text())
    assert again == answer


def test_a_folder_of_something_else_is_refused(
    checkpoints: Path, answer: dict, capsys: pytest.CaptureFixture[str]
) -> None:
    assert robust_flatness(checkpoints, "--quiet", "--seed", "1") == 2
    assert "is of other seed; name another folder" in capsys.readouterr().err
    assert robust_flatness(checkpoints, "--quiet", "--restarts", "2") == 2
    assert "by another protocol or on other data" in capsys.readouterr().err
    assert robust_flatness(checkpoints, "--quiet", "--xi", "-1") == 2
    assert "--xi: expected a positive number, got -1" in capsys.readouterr().err
    assert robust_flatness(checkpoints, "--quiet", "--norm", "L0", "--eps", "5", out="other") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (checkpoints / "other").exists()


def test_json_is_one_object(
    checkpoints: Path, answer: dict, capsys: pytest.CaptureFixture[str]
) -> None:
    assert robust_flatness(checkpoints, "--json") == 0
    assert json.loads(capsys.readouterr().out) == answer
