"""`--detector`, typed: to `evaluate`, to `audit`, and in a config."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import detectors, digits

import flatguard
from flatguard.checks.registry import check_names
from flatguard.cli.app import main
from flatguard.detection.flagging import load_detection


@pytest.fixture(scope="module")
def file(digits_files: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    found = tmp_path_factory.mktemp("detectors") / "d.json"
    fitted = detectors.detector(digits_files, alpha=0.3, side="high")
    fitted.save(found, adaptive=detectors.ADAPTIVE)
    return str(found)


Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Typed:
    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(list(arguments))
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture
def pgd(digits_files: Path) -> list[str]:
    return [
        "evaluate", "--model", str(digits_files / "digits.safetensors"), "--arch", detectors.ARCH,
        "--dataset", str(digits_files / "digits.npz"), "--attack", "torchattacks:PGD", "--eps",
        "0.1", "--attack-arg", "steps=20", "--attack-arg", "alpha=0.02", "--checks", "none",
        "--out", "run",
    ]  # fmt: skip


def test_the_answer_says_what_is_flagged_and_why_it_is_no_defence(
    typed: Typed, pgd: list[str], file: str
) -> None:
    code, out, _ = typed(*pgd, "--quiet", "--detector", file)
    assert code == 3  # the verdict's own: a detector decides nothing
    found = load_detection(flatguard.load_run("run"))
    assert found is not None
    clean, fell, stood = found.kinds.clean, found.kinds.successful, found.kinds.failed
    assert (
        f"flagged: of clean images {clean.share:.1%} of 200 (30.0% requested), of examples that "
        f"fool the model {fell.share:.1%} of {fell.samples}, of examples that fail "
        f"{stood.share:.1%} of {stood.samples}"
    ) in out
    assert "a diagnostic, no defence: an attacker who knows the detector fools" in out
    code, again, _ = typed("audit", "run", "--quiet")
    assert (code, again.count("a diagnostic, no defence")) == (3, 1)
    code, told, _ = typed("audit", "run", "--json")
    assert json.loads(told)["detection"]["detector_sha256"] == found.detector_sha256


def test_json_has_it_and_none_without_a_detector(typed: Typed, pgd: list[str], file: str) -> None:
    code, out, _ = typed(*pgd, "--json")
    assert (code, json.loads(out)["detection"]) == (3, None)
    code, out, _ = typed("audit", "run", "--json", "--detector", file)
    detection = json.loads(out)["detection"]
    assert detection["kinds"]["clean"]["samples"] == 200
    assert detection["adaptive"]["evaded"] == 194


def test_another_models_detector_is_one_line_and_nothing_is_written(
    typed: Typed, pgd: list[str], file: str
) -> None:
    code, out, err = typed(*pgd, "--quiet", "--detector", file, "--logit-scale", "10")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "this detector was fitted on digits with another --logit-scale" in err
    assert not Path("run").exists()
    code, _, err = typed(*pgd, "--quiet", "--detector", "nowhere.json")
    assert (code, err.count("\n")) == (2, 1)
    assert "cannot read nowhere.json: No such file or directory" in err
    assert not Path("run").exists()


def release(files: Path, gate: dict[str, Any], **keys: Any) -> None:
    values = {
        "model": str(files / "digits.safetensors"), "arch": detectors.ARCH,
        "dataset": str(files / "digits.npz"), "attack": "torchattacks:PGD", "eps": digits.EPS,
        "attack_args": detectors.PGD, "checks": "none",
        "gate": {"allow": ["inconclusive", *check_names()], **gate},
    }  # fmt: skip
    Path("release.yaml").write_text(yaml.safe_dump(values | keys))


def test_a_gate_holds_the_detector_to_its_thresholds(
    typed: Typed, digits_files: Path, file: str
) -> None:
    evaluate = ["evaluate", "--config", "release.yaml", "--allow-code", "--quiet"]
    release(digits_files, {"min_detected": 0.8, "max_false_positives": 0.5}, detector=file)
    code, out, _ = typed(*evaluate)
    assert (code, out.rstrip().endswith("gate of release.yaml: open")) == (0, True)
    release(digits_files, {"min_detected": 0.8, "max_false_positives": 0.1})
    code, out, _ = typed(*evaluate, "--json", "--detector", file)  # typed beside the config
    told = {outcome["label"]: outcome["status"] for outcome in json.loads(out)["gate"]}
    assert (code, told["threshold[min_detected]"]) == (1, "passed")
    assert told["threshold[max_false_positives]"] == "failed"
    code, out, err = typed(*evaluate)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "gate.min_detected needs a detector: add a key `detector`" in err
