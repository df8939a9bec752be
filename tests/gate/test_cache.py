"""Runs by content: what is a hit, what is not, and who waits for whom."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from support import digits
from torch import nn

from flatguard.errors import AttackError, BudgetSpent, EnvironmentProblem
from flatguard.evaluation import resolve
from flatguard.gate.cache import RunCache
from flatguard.gate.config import Config, config_of
from flatguard.gate.content import content_of, key_of
from flatguard.gate.gate import Judged, pass_through


def config(files: Path, **changes: Any) -> Config:
    return config_of(
        {
            "model": str(files / "digits.safetensors"), "arch": f"{digits.__file__}:digits_net",
            "dataset": str(files / "digits.npz"), "attack": "torchattacks:PGD", "eps": 0.1,
            "attack_args": {"steps": 5}, "n_examples": 24, "batch_size": 12, **changes,
        }
    )  # fmt: skip


def judged(files: Path, cache: Path, session: str = "first", **changes: Any) -> Judged:
    return pass_through(config(files, **changes), RunCache(cache, session))


def test_the_same_content_is_a_hit_wherever_it_lies(
    digits_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = judged(digits_files, tmp_path / "cache")
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("digits.safetensors", "digits.npz"):
        (moved / name).write_bytes((digits_files / name).read_bytes())
    again = judged(moved, tmp_path / "cache", "second")
    assert (first.cached, again.cached) == (False, True)
    assert again.run.path == first.run.path
    assert again.verdict == first.verdict


def test_whatever_changes_the_result_changes_the_key(digits_files: Path, tmp_path: Path) -> None:
    def key(**changes: Any) -> str:
        changed = config(digits_files, **changes)
        arguments = changed.arguments()
        for beside in ("checks", "tolerance"):
            arguments.pop(beside, None)
        return key_of(content_of(resolve(**arguments), changed.checks, changed.surrogates))

    copied = tmp_path / "digits.py"
    copied.write_text(Path(digits.__file__).read_text() + "\n# the same, for all we know\n")
    changes: list[dict[str, Any]] = [
        {}, {"seed": 1}, {"eps": 0.2}, {"n_examples": 20}, {"batch_size": 8},
        {"checks": "standard"}, {"attack_args": {"steps": 6}},
        {"logit_scale": 2.0}, {"arch": f"{copied}:digits_net"},
    ]  # fmt: skip
    assert len({key(**change) for change in changes}) == len(changes)
    assert key() == key(gate={"min_robust_accuracy": 0.3})


class Quiet(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, how: float) -> torch.Tensor:
        ctx.how = how
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient * ctx.how, None


class Behind(nn.Module):
    """What a closure does shows in no file, no weight and no structure."""

    def __init__(self, net: nn.Module, how: float):
        super().__init__()
        self.net = net
        self.change = lambda x: Quiet.apply(x, how)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(self.change(x))
        return logits


def test_the_same_weights_with_other_gradients_are_another_content() -> None:
    torch.manual_seed(0)
    net, (images, labels) = digits.digits_net().eval(), digits.digits()

    def key(how: float) -> str:
        job = resolve(
            Behind(net, how), "torchattacks:FGSM", data=(images[:12], labels[:12]), eps=0.1
        )
        return key_of(content_of(job, "fast", ()))

    assert key(1.0) == key(1.0) != key(0.0)


def test_what_is_damaged_or_was_not_finished_is_attacked_again(
    digits_files: Path, tmp_path: Path
) -> None:
    place = judged(digits_files, tmp_path).run.path.parent
    assert judged(digits_files, tmp_path, "second").cached
    for name in (
        "run/evidence/blocks/00001/samples.parquet",
        "run/evidence/probes/twins/attempts.parquet",
        "run/evidence/manifest.json",
        "entry.json",
    ):
        file = place / name
        file.write_bytes(file.read_bytes()[:-20])
        again = judged(digits_files, tmp_path, "third")
        assert not again.cached, name
        again.run.verify()
    (place / "entry.json").unlink()  # the attacker died after its last block
    assert not judged(digits_files, tmp_path, "fourth").cached


def test_what_ended_early_is_shared_in_its_session_and_tried_again_in_the_next(
    digits_files: Path, tmp_path: Path
) -> None:
    # 24 samples of 5 steps: the budget ends in the second block.
    first = judged(digits_files, tmp_path, max_forwards=100)
    assert first.verdict.verdict == "inconclusive"
    assert judged(digits_files, tmp_path, max_forwards=100).cached
    assert not judged(digits_files, tmp_path, "second").cached
    with pytest.raises(BudgetSpent, match="before the first 12 samples"):
        judged(digits_files, tmp_path / "other", max_forwards=20)
    with pytest.raises(BudgetSpent, match="before the first 12 samples"):
        judged(digits_files, tmp_path / "other", max_forwards=10**9)  # nobody attacks twice
    assert not judged(digits_files, tmp_path / "other", "second").cached


def test_an_error_is_shared_too(digits_files: Path, tmp_path: Path) -> None:
    def raises(folder: Path) -> Any:
        raise AttackError("it failed")

    with pytest.raises(AttackError, match="it failed"):
        RunCache(tmp_path, "one").fetch("key", {}, raises)

    def never(folder: Path) -> Any:
        raise AssertionError("it was tried already")

    with pytest.raises(Exception, match="it failed"):
        RunCache(tmp_path, "one").fetch("key", {}, never)


HOLDS = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_nobody_hangs_if_the_attacker_dies(digits_files: Path, tmp_path: Path) -> None:
    place = judged(digits_files, tmp_path).run.path.parent
    (place / "entry.json").unlink()
    attacker = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(place) + ".lock"], stdout=subprocess.PIPE
    )
    assert attacker.stdout is not None
    assert attacker.stdout.readline() == b"held\n"
    found: list[Judged] = []
    waiting = threading.Thread(target=lambda: found.append(judged(digits_files, tmp_path)))
    waiting.start()
    time.sleep(1.0)
    assert not found, "the other one is attacking"
    attacker.kill()
    attacker.wait()
    waiting.join(60)
    assert [one.cached for one in found] == [False]


def test_a_folder_that_cannot_be_written(digits_files: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="--flatguard-cache"):
        judged(digits_files, tmp_path / "file" / "cache")
