"""`flatguard detect` as a person and as a script see it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import digits

from flatguard.cli.app import main
from flatguard.detection.baselines import BASELINES
from flatguard.detection.scores import ONE_PASS

ARCH = str(Path(__file__).parents[1] / "support" / "digits.py") + ":digits_net"
MODEL = ["--model", "digits.safetensors", "--arch", ARCH, "--dataset", "held_out.npz"]
PGD = ["--attack", "torchattacks:PGD", "--attack-arg", "steps=5", "--eps", "0.3"]
SMALL = ["--n-examples", "60", "--n-fit", "40", "--n-calibration", "200", "--adaptive", "10"]
NUMBERS = {"auroc", "stump_accuracy", "stump_folds", "tpr_at_5_fpr", "tpr_at_1_fpr"}


@pytest.fixture
def files(digits_files: Path, tmp_path: Path) -> Path:
    """Weights, and all 797 images that were not trained on."""
    (tmp_path / "digits.safetensors").write_bytes(
        (digits_files / "digits.safetensors").read_bytes()
    )
    images, labels = digits.digits()
    np.savez(
        tmp_path / "held_out.npz",
        images=images[digits.TRAINING :].permute(0, 2, 3, 1).numpy(),
        labels=labels[digits.TRAINING :].numpy(),
    )
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["detect", *arguments])
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out, captured.err


def test_fit_and_score(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "fit", *MODEL, "--n-examples", "300", "--eps", "0.3", "--quiet")
    assert code == 0
    assert (
        "false positives        at most 5.0% of clean images like the 300 from held_out.npz are "
        "flagged, on average over calibrations"
    ) in out
    assert "not flagged            log κ from " in out
    assert "\nnext: flatguard evaluate ... --detector detector.json: " in out
    assert "adaptive attack" in out
    assert "a diagnostic, not a defence" in out
    kept = json.loads((files / "detector.json").read_text())
    assert kept["adaptive"]["samples"] == 32
    code, out, _ = run(
        capsys, "score", *MODEL, "--detector", "detector.json", "--out", "s.csv", "--json",
        "--quiet",
    )  # fmt: skip
    assert code == 0
    facts = json.loads(out)
    table = pd.read_csv(files / "s.csv")
    assert facts["images"] == len(table) == 797
    assert facts["flagged"] == int(table["flagged"].sum())
    assert 0.01 < facts["flagged"] / 797 < 0.12


def test_fit_in_json_without_an_adaptive_attack(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No radius is needed, and what was not measured is null."""
    arguments = ["--n-examples", "100", "--adaptive", "0", "--side", "low", "--json", "--quiet"]
    code, out, _ = run(capsys, "fit", *MODEL, *arguments, "--out", "low.json")
    assert code == 0
    facts = json.loads(out)
    assert facts["adaptive"] is None
    assert facts["thresholds"]["-1"][1] is None
    assert Path(facts["file"]).is_file()


def test_a_stump(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--n-examples", "100", "--stump", "--adaptive", "0", *PGD, "--quiet"]
    code, out, _ = run(capsys, "fit", *MODEL, *arguments)
    assert code == 0
    assert "stump in 5 folds" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n-examples", "20", "--adaptive", "0"], "20 calibration images are too few"),
        (["--stump", "--attack", "torchattacks:PDG"], "nearest: torchattacks:PGD"),
        (["--stump"], "--stump learns from adversarial examples"),
        (["--side", "both"], "--side: expected one of two-sided, low, high"),
        (["--alpha", "0", "--adaptive", "0"], "--alpha: expected a share above 0"),
        (["--n-examples", "50"], "--eps is needed"),
    ],
)
def test_fit_refuses_in_one_line(
    files: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, out, err = run(capsys, "fit", *MODEL, *arguments, "--quiet")
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""
    assert not (files / "detector.json").exists()


def test_another_models_detector_is_refused(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "fit", *MODEL, "--n-examples", "50", "--adaptive", "0", "--quiet")
    code, _, err = run(
        capsys, "score", *MODEL, "--logit-scale", "2", "--detector", "detector.json", "--quiet"
    )
    assert code == 2
    assert "another --logit-scale or --head" in err


def test_evaluate_for_a_script(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*MODEL, *PGD, "--attack", "torchattacks:FGSM", *SMALL, "--out", "t", "--quiet"]
    code, out, _ = run(capsys, "evaluate", *arguments, "--json")
    assert code == 0
    facts = json.loads(out)
    assert set(facts) >= NUMBERS
    names = (set(ONE_PASS) | {kind.name for kind in BASELINES}) - {"log-kappa"}
    assert set(facts["baselines"]) == names
    for found in facts["baselines"].values():
        assert set(found) >= NUMBERS
    # Fewer than ten of 40 images fell, so that LID learnt nothing, and it says so.
    assert facts["baselines"]["lid"]["auroc"] is None
    assert "adversarial examples to learn from" in facts["baselines"]["lid"]["missing"]
    assert len(facts["stump_folds"]) == 5
    assert facts["stump_accuracy"] == pytest.approx(np.mean(facts["stump_folds"]))
    trial = facts["trial"]
    assert [a["attack"] for a in trial["attacks"]] == ["torchattacks:PGD", "torchattacks:FGSM"]
    first = trial["attacks"][0]
    assert first["successful"] + first["failed"] + first["clean_wrong"] == 60
    assert {result["asked"] for result in trial["adaptive"][0]["results"]} == {0.05, 0.01}
    assert trial["split"] == {"evaluated": 60, "fitted": 40, "calibrated": 200, "seed": 0}
    (worst,) = trial["worst"]
    assert worst["caught"]["log-kappa"][0]["of"] >= first["successful"]
    # The same again takes the finished attacks as they are, and says the same for a person.
    before = (files / "t" / "detection-trial.json").read_text()
    code, out, _ = run(capsys, "evaluate", *arguments[:-1])
    assert code == 0
    assert "taken from" in out
    assert "a diagnostic, not a defence" in out
    assert (files / "t" / "detection-trial.json").read_text() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n-calibration", "100"], "100 clean images are too few for 0.01 false positives"),
        (["--n-examples", "700"], "has only 797 images (700 to evaluate, 100 to fit"),
        (["--n-examples", "90", "--attack", "torchattacks:CW"], "CW measures L2, not Linf"),
    ],
)
def test_evaluate_refuses_in_one_line(
    files: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    few = ["--n-fit", "100", "--n-calibration", "400"]
    code, out, err = run(
        capsys, "evaluate", *MODEL, *PGD, *few, *arguments, "--out", "t", "--quiet"
    )
    assert code == 2
    assert message in err
    assert out == ""
    assert not (files / "t").exists()
