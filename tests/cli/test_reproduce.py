"""`flatguard reproduce`, typed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.architectures import tiny

from flatguard.cli.app import main

ARCHITECTURES = Path(__file__).parents[1] / "support" / "architectures.py"


@pytest.fixture
def model(tmp_path: Path) -> list[str]:
    """A small model and its data, as options."""
    torch.manual_seed(0)
    net = tiny().eval()
    save_file(net.state_dict(), tmp_path / "tiny.safetensors")
    images = torch.rand(6, 3, 8, 8)
    with torch.no_grad():
        labels = net(images).argmax(1)
    np.savez(tmp_path / "data.npz", images=images.numpy(), labels=labels.numpy())
    return [
        "--model",
        "tiny.safetensors",
        "--arch",
        f"{ARCHITECTURES}:tiny",
        "--dataset",
        "data.npz",
    ]


def typed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([*arguments])
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out, captured.err


def test_json_is_one_object_with_every_claim(
    model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = typed(capsys, "reproduce", "walter-lemma11", *model, "--seed", "5", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["shown"]["samples"] == 6
    assert found["shown"]["seed"] == 5
    assert found["models"][0]["name"] == "tiny"
    for claim in found["claims"]:
        assert {"claim", "paper", "ours", "interval", "rule", "verdict"} <= set(claim)
    assert found["claims"][0]["verdict"] == "refuted"


def test_a_person_reads_verdict_paper_and_ours(
    model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = typed(
        capsys, "reproduce", "walter-lemma10", *model, "--n-examples", "4", "--quiet"
    )
    assert code == 0
    assert "\nrefuted      A point whose prediction flipped" in out
    assert "paper: always; here: " in out
    assert "it agrees if no choice of probabilities breaks it" in out
    assert "\nrefuted: the statement is false as it is printed" in out
    assert "\nWhat the terms mean\n" in out
    assert out.index("walter-lemma10, Definitions 4 to 6, Lemma 10: Flips of") < out.index(
        "refuted"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "expected a study's name"),
        (["walter-fig13"], "walter-fig13: expected one --model, got 0"),
        (["walter-fig1", "--model", "demo"], "cannot be run (illustration)"),
        (["walter-fig99", "--model", "demo"], "no study 'walter-fig99'"),
        (["walter-fig3", "--model", "demo", "--n-examples", "21"], "has only 20 images"),
        (["walter-fig3", "--model", "demo", "--mean", "x"], "--mean: expected numbers"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = typed(capsys, "reproduce", *arguments, "--json")
    assert (code, out) == (2, "")
    assert said in err.strip().splitlines()[-1]
    assert err.count("\n") == 1
