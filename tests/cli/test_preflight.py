"""`flatguard preflight`: what it prints, and its exit code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from support import broken
from support.commands import ARCH, CHECKPOINT

import flatguard

ASK = ["preflight", *CHECKPOINT[1:]]


@pytest.fixture
def honest(tmp_path: Path) -> Path:
    """An honest checkpoint, its images, and the same labels one too high."""
    good = broken.honest()
    torch.save(good.model.state_dict(), "net.pt")
    Path("net.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    return nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(),"
        " nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))\n"
    )
    images, labels = good.images.numpy(), good.labels.numpy()
    np.savez("good.npz", images=images, labels=labels)
    np.savez("shifted.npz", images=images, labels=(labels + 1) % 10)
    return tmp_path


def ask(data: str) -> list[str]:
    return ["preflight", "--model", "net.pt", "--arch", "net.py:net", "--dataset", data]


def test_an_honest_set_up_is_0_and_says_so(cli, honest: Path) -> None:
    found = cli(*ask("good.npz"))
    assert found.code == 0, found.err
    assert found.out.count(" pass ") == 8
    assert "next:" not in found.out
    assert (
        "nothing stands against an attack (442 forward and 32 backward passes of one image)"
        in found.out
    )
    assert not list(honest.glob("reports*"))


def test_a_mistake_is_3_and_named_with_what_to_do(cli, honest: Path) -> None:
    found = cli(*ask("shifted.npz"), "--quiet")
    assert (found.code, found.err) == (3, "")
    text = " ".join(found.out.split())
    assert "the labels are shifted: they are one too high" in text
    assert "next: the labels are shifted" in text


@pytest.mark.parametrize(("data", "code"), [("good.npz", 0), ("shifted.npz", 3)])
def test_json_is_one_document_and_the_same_as_from_python(
    cli, honest: Path, data: str, code: int
) -> None:
    found = cli(*ask(data), "--json")
    answer = json.loads(found.out)
    assert (found.code, answer["exit_code"]) == (code, code)
    assert [finding["check"] for finding in answer["findings"]][:2] == [
        "clean-accuracy", "determinism",
    ]  # fmt: skip
    same = flatguard.preflight("net.pt", data=data, arch="net.py:net")
    assert answer["facts"] == same.facts.model_dump(mode="json")
    assert answer["findings"] == json.loads(
        json.dumps([finding.model_dump() for finding in same.findings])
    )
    assert (answer["nothing_to_judge"] is None) == (code == 0)


def test_a_model_that_is_no_use_shuts_the_gate(cli, honest: Path) -> None:
    """A gate that asks for nothing is shut too: there is no robustness to judge."""
    options = {
        "model": "net.pt", "arch": "net.py:net", "attack": "torchattacks:FGSM", "eps": "1/255",
        "checks": "fast",
    }  # fmt: skip
    evaluate = ["evaluate", "--config", "c.yaml", "--allow-code", "--quiet", "--out"]
    for data, codes in (("good.npz", (0, 1)), ("shifted.npz", (3,))):
        Path("c.yaml").write_text(yaml.safe_dump({**options, "dataset": data}))
        plain = cli(*evaluate, f"plain-{data}")
        assert plain.code in codes, plain.out + plain.err
        gate = {"allow": ["black-box", "more-budget", "surrogate-transfer"]}
        Path("c.yaml").write_text(yaml.safe_dump({**options, "dataset": data, "gate": gate}))
        gated = cli(*evaluate, f"gated-{data}")
        assert gated.code == (3 if data == "shifted.npz" else 0), gated.out + gated.err
        assert ("finding[clean-accuracy] the set-up is in doubt" in gated.out) == bool(gated.code)
    assert flatguard.load_run("gated-shifted.npz").summary["verdict"] == "inconclusive"


TOO_LARGE = [
    ("Linf", "1", "was 1/255 meant?"),
    ("Linf", "8", "was 8/255 meant?"),
    ("Linf", "300", "8/255"),
    ("L2", "14", "such as 0.5"),
    ("L2", "128", "was 128/255 meant?"),
    ("L1", "193", "such as 12"),
    ("L0", "193", "such as 5"),
    ("Linf", "0", "positive"),
    ("L2", "-1", "positive"),
    ("L1", "nan", "expected a "),
    ("L2", "inf", "expected a "),
    ("Linf", "8/0", "expected a "),
]


@pytest.mark.parametrize(("norm", "eps", "text"), TOO_LARGE)
def test_a_radius_in_another_unit_is_refused_everywhere(
    cli, files: Path, norm: str, eps: str, text: str
) -> None:
    attack = {
        "Linf": "torchattacks:FGSM", "L2": "foolbox:L2PGD", "L1": "foolbox:L1FMNAttack",
        "L0": "foolbox:L0FMNAttack",
    }[norm]  # fmt: skip
    radius = ["--norm", norm, f"--eps={eps}"]
    if norm != "L0":
        evaluated = cli(*CHECKPOINT, "--attack", attack, *radius, "--out", "run", "--quiet")
        assert (evaluated.code, len(evaluated.err.splitlines())) == (2, 1)
        assert text in evaluated.err
    asked = cli(*ASK, *radius, "--quiet")
    assert (asked.code, len(asked.err.splitlines()), asked.out) == (2, 1, "")
    assert text in asked.err
    Path("c.yaml").write_text(
        yaml.safe_dump({
            "model": "weights.safetensors", "arch": f"{ARCH}:tiny", "dataset": "data.npz",
            "attack": attack, "norm": norm, "eps": eps,
        })
    )  # fmt: skip
    if norm != "L0":
        config = cli("evaluate", "--config", "c.yaml", "--allow-code", "--quiet", "--out", "run")
        assert (config.code, len(config.err.splitlines())) == (2, 1)
        assert text in config.err
    assert not Path("run").exists()


@pytest.mark.parametrize(("norm", "eps"), [("Linf", "0.999"), ("L2", "13.8"), ("L1", "191")])
def test_a_radius_just_within_the_box_is_accepted(cli, files: Path, norm: str, eps: str) -> None:
    assert cli(*ASK, "--norm", norm, "--eps", eps, "--quiet").code in (0, 3)
