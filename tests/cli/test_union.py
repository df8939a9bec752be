"""`flatguard union`, and several norms at `flatguard evaluate`."""

import json
from pathlib import Path

import pytest
from support import digits
from support.commands import JUDGED

ARCH = Path(digits.__file__)
N = "8"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits.write(tmp_path)
    monkeypatch.chdir(tmp_path)


def typed(*more: str) -> list[str]:
    return [
        "evaluate", "--model", "digits.safetensors", "--arch", f"{ARCH}:digits_net",
        "--allow-code", "--dataset", "digits.npz", "--n-examples", N, "--norm", "Linf,L2",
        "--eps", "0.1,0.5", "--checks", "none", *more,
    ]  # fmt: skip


@pytest.mark.usefixtures("files")
def test_several_norms_are_a_run_each_and_one_answer(cli) -> None:
    attacks = ["--attack", "torchattacks:FGSM,torchattacks:PGDL2", "--out", "both"]
    shown = cli(*typed(*attacks, "--quiet"))
    assert shown.code == 3, shown.err
    assert "inconclusive: the run under Linf 0.1 is" in shown.out
    assert str(Path("both") / "union.html") in shown.out
    again = cli("union", "both/Linf-0.1", "both/L2-0.5", "--out", "again", "--json")
    assert again.code in JUDGED
    assert json.loads(again.out)["samples"] == int(N)
    assert json.loads(again.out)["members"][0]["run"].endswith("both/Linf-0.1")
    twice = cli(*typed(*attacks))
    assert twice.code == 2
    assert "flatguard union both/*" in twice.err


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--shard", "1/2"], "--shard takes one norm"),
        (["--config", "release"], "its thresholds hold for one norm"),
        (["--eps", "0.1"], "a radius for each norm of Linf,L2"),
        (["--norm", "Linf,L9"], "--norm: "),
    ],
)
def test_what_holds_for_one_norm_is_refused_by_name(cli, more: list[str], said: str) -> None:
    shown = cli(*typed("--attack", "torchattacks:FGSM", "--out", "new", *more))
    assert (shown.code, shown.out) == (2, "")
    assert said in shown.err
    assert not Path("new").exists()
