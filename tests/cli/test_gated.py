"""`flatguard evaluate --config` and `flatguard configs`."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import digits

import flatguard
from flatguard.checks.registry import check_names
from flatguard.checks.verdict import verdict_of
from flatguard.cli.app import main

EVALUATE = ("evaluate", "--config", "release.yaml", "--allow-code")


@pytest.fixture
def release(digits_files: Path) -> dict[str, Any]:
    return {
        "model": str(digits_files / "digits.safetensors"), "arch": f"{digits.__file__}:digits_net",
        "dataset": str(digits_files / "digits.npz"), "attack": "torchattacks:PGD",
        "attack_args": {"steps": 20, "alpha": 0.02}, "eps": 0.1, "n_examples": 100,
        "checks": "none",
    }  # fmt: skip


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return int(caught.value.code or 0)


def write(values: dict[str, Any]) -> None:
    Path("release.yaml").write_text(yaml.safe_dump(values))


def test_what_is_typed_wins_over_the_config(release: dict[str, Any]) -> None:
    write(release)
    assert call(*EVALUATE, "--quiet", "--out", "a") == 3
    spec = flatguard.load_run("a").request
    assert (spec.eps, spec.n_examples, spec.attack_args) == (
        "0.1", 100, {"steps": 20, "alpha": 0.02},
    )  # fmt: skip
    typed = ["--eps", "0.05", "--attack-arg", "steps=3", "--n-examples", "10", "--seed", "0"]
    write({**release, "seed": 7})
    assert call(*EVALUATE, *typed, "--quiet", "--out", "b") == 3
    spec = flatguard.load_run("b").request
    assert (spec.eps, spec.n_examples, spec.seed) == ("0.05", 10, 0)
    assert spec.attack_args == {"steps": 3, "alpha": 0.02}
    other = ["--attack", "torchattacks:FGSM"]  # the config's arguments belong to another attack
    assert call(*EVALUATE, *other, "--quiet", "--out", "c") == 3
    assert flatguard.load_run("c").request.attack_args == {}


def test_a_gate_decides_the_exit_code(
    release: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate = [*EVALUATE, "--quiet"]
    write({**release, "gate": {"allow": ["inconclusive", *check_names()]}})
    assert call(*evaluate) == 0
    assert capsys.readouterr().out.rstrip().endswith("gate of release.yaml: open")
    write({**release, "gate": {"allow": list(check_names())}})
    assert call(*evaluate, "--out", "undecided") == 3
    share = verdict_of(flatguard.load_run("undecided")).robust_accuracy
    shut = "threshold[conclusive] inconclusive: the evidence neither supports nor refutes "
    assert f"{shut}{share:.1%}" in capsys.readouterr().out
    write({**release, "gate": {"allow": list(check_names()), "min_robust_accuracy": 0.9}})
    assert call(*evaluate) == 1
    assert "gate of release.yaml: shut" in capsys.readouterr().out


def test_json_has_the_gate_beside_the_summary(
    release: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate = [*EVALUATE, "--json"]
    write({**release, "gate": {"allow": list(check_names())}})
    assert call(*evaluate) == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["complete"], told["exit_code"]) == (True, 3)
    (shut,) = (outcome for outcome in told["gate"] if outcome["status"] == "undecided")
    assert shut["label"] == "threshold[conclusive]"
    assert shut["headline"].startswith("inconclusive: ")
    assert call(*evaluate, "--max-forwards", "50") == 3
    assert capsys.readouterr().out == ""  # there is no run; stderr says so


def test_a_named_protocol(release: dict[str, Any], tmp_path: Path) -> None:
    model = ["--model", release["model"], "--arch", release["arch"]]
    data = ["--dataset", release["dataset"], "--n-examples", "10", "--checks", "none"]
    run = ["--out", "run", "--quiet"]
    assert call("evaluate", "--config", "stutz2021-pgd20", *model, *data, *run) == 3
    found = flatguard.load_run("run")
    assert (found.request.attack, found.request.eps) == ("foolbox:LinfPGD", "8/255")
    assert found.trajectory["restart"].nunique() == 10
    assert found.trajectory.groupby("restart")["call"].nunique().min() == 20


def test_what_is_missing_or_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("evaluate", "--config", "release") == 2
    assert "--model is needed, or a key `model` in release" in capsys.readouterr().err
    assert call("evaluate", "--model", "demo") == 2
    assert "--attack is needed" in capsys.readouterr().err
    Path("bad.yaml").write_text("eps: 8/255\nepz: 3\n")
    assert call("evaluate", "--config", "bad.yaml", "--model", "demo") == 2
    assert "flatguard: bad.yaml:2: epz: there is no such key; nearest: eps" in (
        capsys.readouterr().err
    )


def test_a_config_runs_no_code(release: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """An architecture in a config from elsewhere waits for a word of the user's."""
    Path("evil.py").write_text("open('victim', 'w')\n")
    for named in ({"arch": "evil.py:net"}, {"arch": "evil:net"}, {"allow_code": True}):
        write({**release, **named})
        assert call("evaluate", "--config", "release.yaml") == 2
        assert "release.yaml names code that would run here" in capsys.readouterr().err
    assert not Path("victim").exists()
    write(release)
    typed = ["--arch", release["arch"], "--attack-arg", "steps=1", "--quiet"]
    assert call("evaluate", "--config", "release.yaml", *typed) == 3
