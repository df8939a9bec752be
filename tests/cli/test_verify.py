"""`flatguard verify`: what it prints, its exit codes, and its JSON."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support import digits

from flatguard.runs.run import load_run

VERIFY = ["verify", "--model", "digits.safetensors", "--arch", f"{digits.__file__}:digits_net",
          "--dataset", "images.npz", "--norm", "Linf", "--eps", "0.1", "--quiet"]  # fmt: skip
COUNT = 24


@pytest.fixture
def clean(digits_files: Path, tmp_path: Path) -> int:
    """The files of a claim whose examples are the clean images; how many of these are right."""
    (tmp_path / "digits.safetensors").write_bytes(
        (digits_files / "digits.safetensors").read_bytes()
    )
    held = slice(digits.TRAINING, digits.TRAINING + COUNT)
    images, labels = (part[held] for part in digits.digits())
    np.savez("images.npz", images=images.numpy(), labels=labels.numpy())
    torch.save(images, "adv.pt")
    from safetensors.torch import load_file

    net = digits.digits_net().eval()
    net.load_state_dict(load_file("digits.safetensors"))
    return int((net(images).argmax(1) == labels).sum())


def test_the_answer_is_printed_and_decides_the_exit_code(cli, clean: int) -> None:
    share = f"{clean / COUNT:.1%}"
    typed = [*VERIFY, "--examples", "adv.pt", "--checks", "fast", "--tolerance", "0.9"]
    found = cli(*typed, "--claim", share, "--out", "run")
    assert found.code == 0, found.out + found.err
    assert f"\nclaim reproduced: {share} is claimed, and {clean} of {COUNT} images" in found.out
    assert "\nwithstand the checks, too" in found.out
    found = cli("verify", "--run", "run", "--claim", "1%", "--quiet")
    assert found.code == 1
    assert "\nclaim not reproduced: 1.0% is claimed" in found.out
    found = cli("verify", "--run", "run", "--claim", "100%", "--claim-clean", "100%", "--json")
    answer = json.loads(found.out)
    assert (found.code, answer["exit_code"]) == (1, 1)
    assert answer["claim"]["answer"]["word"] == "refuted"
    assert answer["claim"]["claim"]["clean"]["written"] == "100%"
    assert answer["verdict"] == load_run("run").summary["verdict"]
    found = cli("verify", "--run", "run", "--claim", share, "--claim-images", 500, "--quiet")
    assert found.code == 3
    assert "\nclaim undecided: " in found.out
    found = cli("audit", "run", "--quiet")
    assert "\nclaim undecided: " in found.out, "an audit answers the claim again"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["--claim", "90.5"], "--claim: expected a share from 0 to 1, got 90.5; write 90.5% for"),
        (["--claim", "high"], "--claim: expected a share such as 0.905 or 90.5%, got 'high'"),
        (["--claim", "0.9", "--examples", "none.pt"], "examples:none.pt: no file none.pt"),
        (["--claim", "0.9", "--examples", "images.png"], "expected the path of a file of .pt"),
        (["--claim", "0.9", "--indices", "i.npy"], "give --examples, too"),
        (["--claim", "0.9", "--examples", "adv.pt", "--attack", "apgd-ce"], "leave out --attack"),
        (["--claim", "0.9", "--examples", "scaled.pt"], "divide them by 255"),
        (["--claim", "0.9", "--examples", "other.pt"], "none of the 24 examples belongs to one of"),
        (["--claim", "0.9", "--run", "run"], "--model is answered by the folder of --run"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    cli, clean: int, typed: list[str], expected: str
) -> None:
    torch.save(torch.load("adv.pt") * 255, "scaled.pt")
    torch.save(torch.rand(COUNT, 1, 8, 8), "other.pt")
    found = cli(*VERIFY, *typed, "--out", "run")
    assert (found.code, found.out, len(found.err.splitlines())) == (2, "", 1), found.err
    assert expected in found.err
    assert not Path("run").exists()


def test_a_claim_without_a_model_or_a_run(cli) -> None:
    found = cli("verify", "--claim", "0.9")
    assert found.code == 2
    assert "--model is needed, or the --run" in found.err
    found = cli("verify", "--model", "demo")
    assert found.code == 2
    assert "--claim" in found.err
